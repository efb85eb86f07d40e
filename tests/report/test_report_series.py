import dataclasses

import pytest

from tdcompress.records.report import RowConfig
from tdcompress.report.colours import PALETTE, PLAIN, styles
from tdcompress.report.series import as_trained, dense_accuracies, dense_accuracy, group, pruned_share, training_identity


def test_rows_group_by_everything_but_fraction_and_seed(report):
    series = group(report.rows)
    assert [line.label for line in series] == ["none", "dropout (α 0.594)", "targeted (γ 0.9, α 0.66)"]
    assert [len(line.rows) for line in series] == [6, 6, 6]
    assert group(()) == ()


def test_whatever_tells_rows_apart_makes_series_of_their_own_but_for_share_and_seed(make_row):
    row = make_row("targeted", 0.5, 0.9, granularity="unit")
    others = {
        "case": "half the rate",
        "method": "dropout", "options": {"gamma": 0.1}, "granularity": "weight", "trained_granularity": "weight",
        "scope": "group", "unit": "filter", "shares": "erk", "evaluation": "released", "epochs": 7, "finetune_epochs": 3,
        "finetune_after": "shrink", "values": "int8", "differs": {"prune.align": 4},
    }  # fmt: skip
    assert set(others) | {"fraction", "keep_per_filter", "seed"} == {field.name for field in dataclasses.fields(RowConfig)}
    for name, value in others.items():
        assert len(group([row, dataclasses.replace(row, **{name: value})])) == 2, name


def test_what_varies_is_named_and_what_does_not_is_not(make_row):
    row = make_row("targeted", 0.5, 0.9)
    alone = group([row, dataclasses.replace(row, id="b", seed=1)])
    assert [line.label for line in alone] == ["targeted (γ 0.9, α 0.66)"]
    variants = [
        row,
        dataclasses.replace(row, granularity="unit"),
        dataclasses.replace(row, trained_granularity="unit"),
        dataclasses.replace(row, values="int8"),
        dataclasses.replace(row, evaluation="released"),
        dataclasses.replace(row, options={"gamma": 0.99, "alpha": 0.9, "schedule": "ramp", "ramp_epochs": [49, 49]}),
    ]
    assert [line.detail for line in group(variants)] == [
        "γ 0.9, α 0.66, schedule constant, weights",
        "γ 0.9, α 0.66, schedule constant, units",
        "γ 0.9, α 0.66, schedule constant, weights, trained by unit",
        "γ 0.9, α 0.66, schedule constant, weights, int8",
        "γ 0.9, α 0.66, schedule constant, weights, released evaluation",
        "γ 0.99, α 0.9, ramp epochs 49/49, schedule ramp, weights",
    ]


def test_a_case_with_a_name_is_called_by_it_and_by_what_it_leaves_open(make_row):
    row = make_row("targeted", 0.5, 0.9)
    slow = dataclasses.replace(row, case="slow", differs={"train.optimizer.lr": 0.01})
    again = dataclasses.replace(slow, options=row.options | {"gamma": 0.5})
    assert [line.label for line in group([slow, dataclasses.replace(slow, seed=1)])] == ["slow"]
    assert [line.label for line in group([slow, row])] == ["slow", "targeted (γ 0.9, α 0.66)"]
    assert [line.label for line in group([slow, again])] == ["slow (γ 0.9)", "slow (γ 0.5)"]
    assert [line.label for line in group([slow, dataclasses.replace(slow, values="int8")])] == ["slow", "slow (int8)"]
    assert [line.label for line in group([as_trained(slow)])] == ["targeted (γ 0.9, α 0.66)"]
    assert training_identity(slow) == training_identity(dataclasses.replace(slow, case=""))


def test_swept_settings_of_training_and_pruning_make_series_of_their_own(make_row):
    row = make_row("none", 0.5, 0.9)
    rates = [dataclasses.replace(row, differs={"train.optimizer.lr": rate, "prune.align": 16}) for rate in (0.1, 0.02)]
    assert [line.label for line in group(rates)] == ["none (lr 0.1)", "none (lr 0.02)"]
    assert [line.label for line in group([rates[0], row])] == ["none (align 16, lr 0.1)", "none"]
    assert len({training_identity(each) for each in rates}) == 2
    for after in ({"prune.align": 16}, {"export.pack": "never"}):
        assert training_identity(dataclasses.replace(row, differs=after)) == training_identity(row)
        assert as_trained(dataclasses.replace(row, differs=after)) == as_trained(row)


@pytest.mark.parametrize("key", ["data.crop_padding", "distill.temperature", "model.init", "train.l2"])
def test_whatever_a_training_is_made_with_tells_trainings_apart(make_row, key):
    row = make_row("targeted", 0.5, 0.9)
    one, other = (dataclasses.replace(row, differs={key: value}) for value in (1, 2))
    assert training_identity(one) != training_identity(other)
    labels = [line.label for line in group([as_trained(one), as_trained(other)])]
    assert len(labels) == 2
    assert [label[-2:] for label in labels] == ["1)", "2)"]


def test_labels_say_once_what_was_done_and_nothing_of_what_was_not(make_row):
    row = make_row("none", 0.5, 0.9, granularity="unit", epochs=6)
    off = {"prune.exclude": [], "train.channels_last": False, "finetune.lr": None}
    tuned = dataclasses.replace(row, epochs=7, finetune_epochs=1, finetune_after="prune")
    narrow = dataclasses.replace(row, epochs=9, finetune_epochs=3, finetune_after="shrink", differs={"finetune.lr": 0.01})
    aligned = dataclasses.replace(
        row, differs={"shrink.align": 16, "prune.exclude": ["conv1", "conv2"], "train.channels_last": True}
    )
    assert [line.label for line in group([dataclasses.replace(row, differs=off), tuned, narrow, aligned])] == [
        "none",
        "none (fine-tuned 1 epoch after pruning)",
        "none (fine-tuned 3 epochs after shrinking, fine-tuning lr 0.01)",
        "none (exclude conv1+conv2, shrink align 16, channels last)",
    ]


def test_labels_say_which_key_of_a_table_is_meant(make_row):
    row = make_row("none", 0.5, 0.9)
    swept = {
        "train.lr_schedule.name": "one_cycle", "train.lr_schedule.final_factor": 0.1, "train.optimizer.name": "adam",
        "train.average": "ema", "train.average_decay": 0.9, "data.cutout": 3, "train.optimizer.weight_decay": 0.005,
        "distill.temperature": 4.0, "distill.weight": 0.7, "model.init": "dirac", "finetune.lr_schedule.curve": "cosine",
        "train.lr_schedule.milestones": [0.5, 0.75],
    }  # fmt: skip
    usual = {
        "train.lr_schedule.name": "constant", "train.optimizer.name": "sgd", "train.average": "none", "data.cutout": 0,
        "train.optimizer.weight_decay": 0.0,
    }  # fmt: skip
    one, other = group([dataclasses.replace(row, differs=swept), dataclasses.replace(row, differs=usual)])
    assert one.detail == (
        "cutout 3, distill temperature 4, distill weight 0.7, fine-tuning lr curve cosine, init dirac, average ema, "
        "average decay 0.9, lr schedule one_cycle, lr final factor 0.1, lr milestones 0.5/0.75, optimizer adam, "
        "weight decay 0.005"
    )
    assert other.detail == "lr schedule constant, optimizer sgd, weight decay 0"


def test_a_schedule_that_is_not_constant_is_always_said(make_row):
    options = {"gamma": 0.9, "alpha": 0.8, "schedule": "cubic", "alpha_share": [0.0, 0.6], "freeze_share": 0.3}
    row = make_row("targeted", 0.5, 0.9, options=options)
    assert [line.label for line in group([row])] == ["targeted (γ 0.9, α 0.8, schedule cubic)"]
    pruning = dataclasses.replace(row, options=options | {"alpha_share": [0.0, 0.0]})
    assert [line.detail for line in group([row, pruning])] == [
        "γ 0.9, α 0.8, alpha share 0 to 0.6, schedule cubic",
        "γ 0.9, α 0.8, alpha share 0 to 0, schedule cubic",
    ]


def test_rows_stand_by_pruned_share(make_row):
    rows = [make_row("none", fraction, 0.9) for fraction in (0.9, 0.0, 0.5)]
    counted = dataclasses.replace(make_row("none", 0.98, 0.9), fraction=None, keep_per_filter=3)
    (line,) = group([*rows, counted])
    assert [pruned_share(row) for row in line.rows] == [0.0, 0.5, 0.9, 0.98]


def test_dense_accuracy_is_the_plain_networks(make_row):
    plain = [make_row("none", f, 0.5, seed=seed, accuracy_dense=a) for seed, a in ((0, 0.9), (1, 0.8)) for f in (0.0, 0.5)]
    better = make_row("targeted", 0.5, 0.9, accuracy_dense=0.95)
    assert dense_accuracy([*plain, better]) == 0.9 * 0.5 + 0.8 * 0.5
    assert dense_accuracy([better]) == 0.95
    assert dense_accuracy([dataclasses.replace(better, accuracy_dense=0.7), better]) == 0.7  # dense.onnx is of the first row
    other = [dataclasses.replace(row, accuracy_dense=0.3, differs={"train.optimizer.lr": 0.5}) for row in plain]
    assert dense_accuracy([*plain, *other]) == 0.9 * 0.5 + 0.8 * 0.5  # the first plain training, not the last of each seed
    assert dense_accuracy([*other, *plain]) == 0.3
    tuned = dataclasses.replace(
        plain[0], seed=2, accuracy_dense=0.7, epochs=43, finetune_epochs=3, differs={"prune.recalibrate": 9}
    )
    assert dense_accuracy([*plain, tuned]) == pytest.approx(0.8)  # what comes after a training makes no other one
    assert dense_accuracies([*plain, tuned]) == (0.9, 0.8, 0.7)


def test_styles_are_distinct_and_a_method_keeps_its_own(make_row):
    methods = ["none", "targeted", "targeted", "dropout", "l1", "l0", "variational", "smallify", "random_prune", "targeted"]
    rows = [dataclasses.replace(make_row("none", 0.5, 0.9), method=m, options={"x": i}) for i, m in enumerate(methods)]
    found = styles(group(rows))
    assert len(set(found)) == len(methods)
    assert (found[0].colour, found[1].colour, found[3].colour) == (PLAIN, PALETTE[0], PALETTE[1])
    assert [style.dashed for style in found] == [False, False, True, *[False] * 6, True]
    few = styles(group([rows[0], rows[3]]))
    assert few[1] == found[3]


def test_every_colour_is_readable_on_white():
    for colour in (*PALETTE, PLAIN):
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Relative luminance of sRGB (WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_shares_of_training_and_of_pruning_make_series_of_their_own(make_row):
    row = make_row("targeted", 0.5, 0.9)
    erk = dataclasses.replace(row, options=row.options | {"shares": "erk"})
    pruned = dataclasses.replace(row, shares="global")
    assert [line.detail for line in group([row, erk, pruned])] == [
        "γ 0.9, α 0.66",
        "γ 0.9, α 0.66, shares erk",
        "γ 0.9, α 0.66, pruned by global shares",
    ]
    assert training_identity(erk) != training_identity(row) == training_identity(pruned)
