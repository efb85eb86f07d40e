"""What a report says of networks whose training left zeros: masks that were frozen, gates that are shut."""

from dataclasses import replace

import pytest

from tdcompress.records.stages import DeadUnits, LayerCount, LayerUnits, PrunedCount, ShrinkRecord, UnitCount
from tdcompress.report import accuracy_plot, details, text
from tdcompress.report.headline import sentences
from tdcompress.report.one_network import explanations
from tdcompress.report.row_plots import accuracy_figure
from tdcompress.report.select import select_row
from tdcompress.report.zeros import pruned_share

SHRUNK = ShrinkRecord(
    layers=(
        LayerUnits(name="conv1", before=8, after=6),
        LayerUnits(name="conv2", before=16, after=10),
        LayerUnits(name="head", before=10, after=10),
    ),
    parameters_before=1,
    parameters_after=1,
    macs_before=1,
    macs_after=1,
    dead_but_kept=(
        DeadUnits(layer="conv2", count=1, reason="it pads with zeros"),
        DeadUnits(layer="conv2", count=1, reason="a stream"),
    ),
    max_error=0.0,
    max_output=1.0,
    accuracy=0.9,
)
CONVS = tuple(LayerCount(name=f"conv{n}.weight", shape=(8, 1), total=8, kept=4) for n in (1, 2))


@pytest.fixture
def frozen(make_row):
    """Asked for 0, 50 and 90 %: the same 89.81 % zeros."""
    return tuple(
        make_row("targeted", share, 0.93, accuracy_dense=0.93, sparsity_prunable=0.8981, sparsity_trained=0.8981)
        for share in (0.0, 0.5, 0.9)
    )


def test_units_that_had_to_stay_are_not_kept_by_pruning():
    assert SHRUNK.units() == (
        UnitCount(name="conv1", total=8, kept=6),
        UnitCount(name="conv2", total=16, kept=8),
        UnitCount(name="head", total=10, kept=10),
    )


def test_the_share_is_what_was_asked_or_what_is_zero_where_that_is_more(make_row, frozen):
    assert [pruned_share(row) for row in frozen] == [0.8981, 0.8981, 0.9]
    assert [text.pruned(row) for row in frozen] == ["89.81 % of weights", "89.81 % of weights", "90 % of weights"]
    rounded = make_row("none", 0.5, 0.9, sparsity_prunable=0.5049)
    assert (pruned_share(rounded), text.pruned(rounded)) == (0.5, "50 % of weights")
    pattern = make_row("none", 0.0, 0.9, granularity="2:4", sparsity_prunable=0.5)
    assert text.pruned(pattern) == "50 % of weights (2:4)"


def test_units_are_counted_in_the_layers_that_pruning_may_touch(make_row):
    row = make_row("targeted", 0.25, 0.9, granularity="unit", layers=CONVS, units=SHRUNK.units(), sparsity_prunable=0.1)
    assert pruned_share(row) == pytest.approx(10 / 24)
    assert text.pruned(row) == "41.67 % of units"
    assert pruned_share(replace(row, units=())) == 0.25  # of an earlier version
    single = replace(row, fraction=0.0, units=(UnitCount(name="conv1", total=8, kept=8),), sparsity_trained=0.8)
    assert (pruned_share(single), text.pruned(single)) == (0.0, "no units; trained to 80 % zeros")
    assert text.pruned(replace(single, sparsity_trained=0.0)) == "nothing"


def test_layers_that_pruning_leaves_whole_are_not_counted(make_row):
    """As in a ResNet: the first convolution of a block is narrowed, the second writes the stream."""
    units = (UnitCount(name="conv1", total=8, kept=4), UnitCount(name="conv2", total=8, kept=8))
    rows = [
        make_row(
            "targeted", share, 0.9, granularity="unit", layers=CONVS, units=units, pruned=PrunedCount(total=8, asked=n, gone=n)
        )
        for share, n in ((0.0, 0), (0.5, 4))
    ]
    assert [text.pruned(row) for row in rows] == ["50 % of units"] * 2
    streams = replace(rows[0], units=(units[0], replace(units[1], kept=2)))  # a stream of two layers is one group: 8 units
    assert pruned_share(streams) == pytest.approx(10 / 16)
    assert pruned_share(replace(rows[0], pruned=None)) == pytest.approx(4 / 16)  # of an earlier version


def test_less_than_asked_is_told_as_what_went(make_row):
    aligned = make_row("none", 0.5, 0.9, granularity="unit", pruned=PrunedCount(total=288, asked=144, gone=64))
    assert text.pruned(aligned) == "22.22 % of units"
    held = PrunedCount(total=88_064, asked=87_975, gone=87_808)
    assert text.pruned(make_row("none", 0.999, 0.9, pruned=held, sparsity_prunable=0.9971)) == "99.71 % of weights"
    floors = PrunedCount(total=88_064, asked=78_848, gone=78_848)
    assert text.pruned(make_row("none", 0.9, 0.9, pruned=floors, sparsity_prunable=0.8953)) == "90 % of weights"
    nearly = PrunedCount(total=88_064, asked=79_257, gone=79_250)  # seven more: a share of its own would part it from others
    assert text.pruned(make_row("none", 0.9, 0.9, pruned=nearly, sparsity_prunable=0.8999)) == "90 % of weights"
    everything = PrunedCount(total=88_064, asked=88_064, gone=87_808)
    assert text.pruned(make_row("none", 1.0, 0.1, pruned=everything, sparsity_prunable=0.9971)) == "99.71 % of weights"
    frozen = replace(aligned, layers=CONVS, units=SHRUNK.units(), pruned=PrunedCount(total=24, asked=12, gone=6))
    assert pruned_share(frozen) == pytest.approx(10 / 24)


def test_dense_is_never_said_of_a_network_with_zeros_without_saying_so(make_report, frozen):
    report = make_report(frozen, selected=frozen[0].id)
    first, rule, _, _ = sentences(report)
    assert first == "At 90 % pruned: targeted (γ 0.9, α 0.66) 93.00 %; dense (89.81 % zeros) 93.00 %."
    assert rule.startswith(
        "90 % is the largest share here at which a network has at most 2 points less than the best pruned one;"
    )
    assert accuracy_plot.captioned(report).caption.endswith("Dotted: the network of dense.onnx (89.81 % zeros).")
    assert "or below the network of dense.onnx (89.81 % zeros), which is dotted" in accuracy_figure(report).caption
    _, why = select_row(frozen, max_accuracy_drop=0.01, smallest="onnx_bytes", reference_accuracy=0.93)
    assert "within 1.00 points of the dense (89.81 % zeros) 93.00 %" in why
    table = details.trainings(report)
    assert [column.title for column in table.columns][-2:] == ["accuracy as trained, %", "zeros of prunable, %"]
    assert table.rows[0][-2:] == ("93.00", "89.81")


def test_what_to_add_and_which_rows_are_one_network_is_said(make_report, make_row, frozen):
    not_dense, alike = explanations(make_report(frozen))
    assert not_dense.startswith(
        "dense.onnx is not dense: training with targeted (γ 0.9, α 0.66) left 89.81 % of its prunable weig"
    )
    assert not_dense.endswith('add a combination with sparsity.method = "none" to the recipe.')
    assert alike == "Rows that are one network: targeted-0, targeted-0.5, targeted-0.9."
    plain = make_row("none", 0.9, 0.4, sparsity_trained=0.0)
    with_plain = make_report((*frozen, plain))
    assert explanations(with_plain) == (alike,)
    assert sentences(with_plain)[0].endswith("; dense 98.61 %.")


def test_rows_that_differ_are_not_one_network(make_report, make_row, frozen):
    more = replace(frozen[2], id="more", fraction=0.95, sparsity_prunable=0.95, accuracy_masked=0.9)
    other = replace(frozen[0], id="other", seed=1)
    rounded = replace(frozen[0], id="int8", values="int8")
    assert explanations(make_report((frozen[0], more, other, rounded)))[1:] == ()
    assert explanations(make_report(())) == ()


def test_rows_of_several_series_can_be_one_network(make_report, make_row):
    """What nothing was pruned of is the same by weights and by blocks; fine-tuned, or of another training, it is not."""
    plain = make_row("none", 0.0, 0.9, sparsity_trained=0.0)
    blocks = replace(plain, id="blocks", granularity="1x4")
    tuned = replace(plain, id="tuned", finetune_epochs=2, finetune_after="prune", epochs=42)
    again = replace(plain, id="again", train_seconds=13.0)
    assert explanations(make_report((plain, blocks, tuned, again))) == ("Rows that are one network: none-0, blocks.",)
    collapsed = [make_row("none", 0.98, 0.1, id=what, granularity=what) for what in ("weight", "1x4")]
    assert explanations(make_report(tuple(collapsed))) == ()
    released = [make_row("targeted", 0.5, 0.9, id=how, evaluation=how) for how in ("plain", "released")]
    assert explanations(make_report(tuple(released))) == ("Rows that are one network: plain, released.",)


def test_a_report_that_was_written_before_knows_what_pruning_found(make_report, frozen):
    old = tuple(replace(row, sparsity_trained=None) for row in frozen)
    assert [text.pruned(row) for row in old] == [text.pruned(row) for row in frozen]
    (alike,) = explanations(make_report(old))
    assert alike.startswith("Rows that are one network")
