import json
from dataclasses import replace
from decimal import Decimal
from importlib import resources

import pytest

from tdcompress.errors import UserError
from tdcompress.records.measures import FileFigure, Measure
from tdcompress.records.report import Report, Row
from tdcompress.report.comparison import cell_text, compare_with_published, comparison_blocks, large_differences, nearest_variants
from tdcompress.report.document import Document
from tdcompress.report.markdown import render_document
from tdcompress.report.papers import Heading, matches, published_table, published_tables, read_heading, variant

METHODS = ("none", "dropout", "targeted", "l1", "l0", "variational", "smallify", "random_prune")
TARGETED = {"gamma": 0.75, "alpha": 0.66, "schedule": "constant", "draw": "unit"}


def row(method: str = "none", fraction: float | None = 0.0, accuracy: float = 0.5, **changes) -> Row:
    fields = {
        "id": f"{method}-{fraction}-{changes.get('seed', 0)}",
        "method": method,
        "options": {},
        "granularity": "weight",
        "fraction": fraction,
        "keep_per_filter": None,
        "scope": "layer",
        "seed": 0,
        "epochs": 20,
        "train_seconds": 10.0,
        "device": "cpu",
        "accuracy_dense": 0.9,
        "accuracy_masked": accuracy,
        "accuracy_shrunk": None,
        "accuracy_stored": accuracy,
        "accuracy_onnx": accuracy,
        "parameters_total": 100,
        "parameters_nonzero": 100,
        "sparsity_prunable": 0.0,
        "sparsity_model": 0.0,
        "macs": 1000,
        "values": "float32",
        "onnx_file": "a.onnx",
        "onnx_bytes": 500,
        "dense_onnx_bytes": 500,
        "bound_bytes": 400.0,
        "stored_bytes": 400,
        "why": "",
    }
    return Row(**(fields | changes))


def report(*rows: Row, model: str = "lenet5", data: str = "cifar10") -> Report:
    return Report(
        run="r",
        created="2026-01-01T00:00:00+00:00",
        recipe_key="0" * 16,
        data=data,
        model=model,
        classes=("a", "b"),
        test_samples=10_000,
        rows=rows,
        selected=None,
        notes=(),
        hosts={},
        versions={},
    )


def test_every_published_table_is_read_and_every_heading_understood():
    tables = published_tables()
    assert len(tables) == len({table.source + table.id for table in tables.values()}) == 24
    for table in tables.values():
        for heading, values in table.columns.items():
            assert read_heading(heading).method in (
                "none",
                "dropout",
                "targeted",
                "l1",
                "l0",
                "variational",
                "smallify",
                "random_prune",
            )
            assert values
        assert set(table.sd) <= set(table.columns)


def test_published_values_are_those_of_the_papers():
    assert published_table("workshop-3a").columns["none"]["0"] == 67.69
    assert published_table("workshop-3b").columns["l0(0.0001)"]["90"] == 8.75
    assert published_table("arxiv-6-weight-extreme").columns["ramping_targeted(alpha=0.99,gamma=0.99)"]["99.4"] == 16.55
    assert published_table("arxiv-7c").sd["random_prune"]["95"] == 1.64
    text = json.loads(resources.files("tdcompress.report").joinpath("tables.json").read_text())
    assert set(published_tables()) == {table["id"] for table in text["tables"]}


def test_unknown_table_names_the_nearest():
    with pytest.raises(UserError, match=r"no published table 'workshop-3'; did you mean 'workshop-3a' or 'workshop-3b'\?"):
        published_table("workshop-3")


@pytest.mark.parametrize(
    ("text", "heading"),
    [
        ("none", Heading(method="none", parameters={})),
        ("dropout(alpha=0.25)", Heading(method="dropout", parameters={"alpha": Decimal("0.25")})),
        (
            "targeted(alpha=0.5,gamma=0.5)+l1(0.1)",
            Heading(method="targeted", parameters={"alpha": Decimal("0.5"), "gamma": Decimal("0.5")}, l1=Decimal("0.1")),
        ),
        (
            "ramping_targeted(alpha=0.99,gamma=0.90)",
            Heading(method="targeted", parameters={"alpha": Decimal("0.99"), "gamma": Decimal("0.9")}, ramp=True),
        ),
        ("ramping_targeted", Heading(method="targeted", parameters={}, ramp=True)),
        ("l1(1e-5)", Heading(method="l1", parameters={}, l1=Decimal("0.00001"))),
        ("l0(1e-6)", Heading(method="l0", parameters={"beta": Decimal("0.000001")})),
        ("smallify(1e-4)", Heading(method="smallify", parameters={"strength": Decimal("0.0001")})),
        ("random_prune", Heading(method="random_prune", parameters={})),
        (
            "resnet32 xtreme-3",
            Heading(method="targeted", parameters={"keep_per_filter": Decimal(3)}, ramp=None, xtreme=True, model="resnet32"),
        ),
        ("resnet32 ramping", Heading(method="targeted", parameters={}, ramp=True, model="resnet32")),
    ],
)
def test_headings(text: str, heading: Heading):
    assert read_heading(text) == heading


def test_a_heading_that_is_none_is_refused():
    with pytest.raises(ValueError, match="is not a column's heading"):
        read_heading("targeted dropout!")


@pytest.mark.parametrize(
    ("text", "method", "options", "expected"),
    [
        ("none", "none", {}, True),
        ("none", "none", {"l1": 0.1}, False),
        ("none", "dropout", {}, False),
        ("targeted(alpha=0.66,gamma=0.75)", "targeted", TARGETED, True),
        ("targeted(alpha=0.66,gamma=0.75)", "targeted", TARGETED | {"schedule": "ramp"}, False),
        ("targeted(alpha=0.66,gamma=0.75)", "targeted", TARGETED | {"schedule": "cubic"}, False),
        ("ramping_targeted", "targeted", TARGETED | {"schedule": "cubic"}, False),
        ("resnet32 xtreme-3", "targeted", {"keep_per_filter": 3, "alpha": 0.99, "schedule": "cubic"}, False),
        ("targeted(alpha=0.66,gamma=0.75)", "targeted", TARGETED | {"l1": 0.1}, False),
        ("targeted(alpha=0.66,gamma=0.75)", "targeted", TARGETED | {"alpha": 0.33}, False),
        ("ramping_targeted", "targeted", TARGETED | {"schedule": "ramp"}, True),
        ("l0(1e-6)", "l0", {"beta": 1e-6}, True),
        ("l1(0.1)", "l1", {"l1": 0.1}, True),
        ("resnet32 xtreme-3", "targeted", {"keep_per_filter": 3, "alpha": 0.99, "schedule": "ramp"}, True),
        ("resnet32 xtreme-3", "targeted", {"keep_per_filter": 4, "alpha": 0.99, "schedule": "ramp"}, False),
    ],
)
def test_matching(text: str, method: str, options: dict, expected: bool):
    assert matches(read_heading(text), row(method, options=options), "resnet32") is expected


def test_random_pruning_matches_at_its_own_fraction_only():
    heading = read_heading("random_prune")
    assert matches(heading, row("random_prune", 0.5, options={"fraction": 0.5}), "resnet32")
    assert not matches(heading, row("random_prune", 0.75, options={"fraction": 0.5}), "resnet32")


def test_variant_names_what_is_unusual():
    targeted = read_heading("targeted(alpha=0.66,gamma=0.75)")
    assert variant(row("targeted", options=TARGETED), targeted) == ""
    released = row("targeted", options=TARGETED | {"draw": "weight"}, granularity="unit", unit="filter", evaluation="released")
    assert variant(released, targeted) == "draw = weight, evaluation = released"
    erk = row("targeted", options=TARGETED | {"shares": "erk"})
    assert variant(erk, targeted) == "shares = erk"
    assert variant(row("targeted", options=TARGETED, shares="global"), targeted) == "pruned by global shares"
    mismatched = row("targeted", options=TARGETED, granularity="unit", trained_granularity="weight", unit="filter")
    assert variant(mismatched, targeted) == "trained on weights"
    assert variant(row("none", granularity="unit", trained_granularity="weight"), read_heading("none")) == "whole units"
    ramping = row("targeted", options=TARGETED | {"schedule": "ramp"})
    assert variant(ramping, read_heading("ramping_targeted")) == "gamma = 0.75, alpha = 0.66"


def test_comparison_of_exact_numbers():
    rows = (
        row("none", 0.0, 0.6769),
        row("none", 0.1, 0.70),
        row("none", 0.1, 0.68, seed=1, train_seconds=30.0),
        row("targeted", 0.9, 0.3111, options=TARGETED | {"alpha": 0.33}),
        row("none", 0.15, 0.6),
        row("none", 0.2, 0.6, granularity="unit"),
    )
    comparison = compare_with_published(published_table("workshop-3a"), report(*rows))
    none, targeted = comparison.columns
    assert none.heading == "none"
    assert [cell.percentage for cell in none.cells] == [str(10 * i) for i in range(10)]
    assert none.cells[0].difference == pytest.approx(0.0)
    assert none.cells[1].ours == (70.0, 68.0)
    assert none.cells[1].difference == pytest.approx(69 - 67.10)
    assert none.cells[1].sd == pytest.approx(2**0.5)
    assert none.cells[2].ours == ()
    assert (none.seeds, none.epochs, none.device, none.train_seconds) == ((0, 1), 20, "cpu", 20.0)
    assert targeted.cells[9].difference == pytest.approx(0.0)
    assert comparison.foreign == ("none-0.15-0", "none-0.2-0")
    assert "l0(0.1)" in comparison.not_run
    assert len(comparison.not_run) == 9
    assert cell_text(none.cells[1]) == "69.00 ± 1.41 (67.10, +1.90)"
    assert cell_text(none.cells[2]) == "- (68.15)"
    assert large_differences(none) == "none: all 2 cells within 2 points."
    assert large_differences(none, 1.0) == "none: 1 of 2 cells differ by more than 1 points, most at 10 %: +1.90."


def test_fractions_are_decimals_as_written():
    table = published_table("arxiv-6-weight-extreme")
    options = {"gamma": 0.99, "alpha": 0.99, "schedule": "ramp"}
    rows = [row("targeted", fraction, 0.5, options=options) for fraction in (0.985, 0.99, 0.991, 0.994)]
    (column,) = compare_with_published(table, report(*rows, model="resnet32")).columns
    assert [cell.percentage for cell in column.cells if cell.ours] == ["98.5", "99.0", "99.1", "99.4"]


def test_xtreme_belongs_to_its_only_cell():
    options = {"keep_per_filter": 4, "alpha": 0.99, "schedule": "ramp"}
    xtreme = row("targeted", None, 0.87, options=options, keep_per_filter=4)
    comparison = compare_with_published(published_table("arxiv-5.6"), report(xtreme, model="resnet32"))
    (column,) = comparison.columns
    assert column.heading == "resnet32 xtreme-4"
    assert column.cells[0].difference == pytest.approx(87 - 87.06)


def test_variants_stand_in_columns_of_their_own():
    rows = [row("dropout", 0.0, 0.6, options={"alpha": 0.25, "rescale": rescale}, id=str(rescale)) for rescale in (False, True)]
    columns = compare_with_published(published_table("workshop-3a"), report(*rows)).columns
    assert [column.variant for column in columns] == ["", "rescale = true"]


def test_trainings_that_differ_in_anything_stand_in_columns_of_their_own():
    """Same seed, same share: one cell would hold only the last of them."""
    rows = [row("none", 0.0, lr, id=str(lr), differs={"train.optimizer.lr": lr, "train.l2": 0.1}) for lr in (0.01, 0.1)]
    comparison = compare_with_published(published_table("workshop-3a"), report(*rows))
    assert [column.variant for column in comparison.columns] == ["train.optimizer.lr = 0.01", "train.optimizer.lr = 0.1"]
    assert [column.cells[0].ours for column in comparison.columns] == [(1.0,), (10.0,)]
    assert comparison.foreign == ()


def test_trainings_with_other_shares_stand_in_columns_of_their_own():
    """Rows have shares twice: those of the training, and those of the pruning where it splits otherwise."""
    rows = [row("targeted", 0.5, 0.6, id="none", options=TARGETED)]
    rows += [row("targeted", 0.5, 0.5, id=own, options=TARGETED | {"shares": own}) for own in ("erk", "global")]
    rows += [row("targeted", 0.5, 0.4, id="both", options=TARGETED | {"shares": "erk"}, shares="layer")]
    columns = compare_with_published(published_table("workshop-3a"), report(*rows)).columns
    assert [(column.variant, column.cells[5].ours) for column in columns] == [
        ("", (60.0,)),
        ("shares = erk", (50.0,)),
        ("shares = global", (50.0,)),
        ("shares = erk, pruned by layer shares", (40.0,)),
    ]


def test_options_that_a_heading_does_not_know_tell_columns_apart():
    rows = [row("smallify", 0.0, 0.5, id=str(strength), options={"strength": strength}) for strength in (1e-3, 1e-5)]
    comparison = compare_with_published(published_table("arxiv-5.6"), report(*rows, model="resnet32"))
    assert [column.variant for column in comparison.columns] == ["strength = 0.001", "strength = 1e-05"]


def test_a_training_and_a_longer_one_of_fine_tuning_are_not_the_same_column():
    tuned = row("none", 0.0, 0.5, id="tuned", epochs=20, finetune_epochs=8, finetune_after="prune", accuracy_finetuned=0.7)
    longer = replace(tuned, id="longer", epochs=28, finetune_epochs=16)
    columns = compare_with_published(published_table("workshop-3a"), report(row("none", 0.0, 0.6), tuned)).columns
    assert [column.variant for column in columns] == ["", "fine-tuned after prune"]
    assert [column.cells[0].ours for column in columns] == [(60.0,), (70.0,)]
    columns = compare_with_published(published_table("workshop-3a"), report(tuned, longer)).columns
    assert [column.variant for column in columns] == [f"fine-tuned after prune, fine-tuning epochs = {n}" for n in (8, 16)]


def test_xtreme_is_pruned_to_the_count_that_it_was_trained_with():
    options = {"keep_per_filter": 3, "alpha": 0.99, "schedule": "ramp"}
    rows = [row("targeted", None, 0.8, id=str(kept), options=options, keep_per_filter=kept) for kept in (3, 8)]
    comparison = compare_with_published(published_table("arxiv-5.6"), report(*rows, model="resnet32"))
    assert comparison.foreign == ("8",)


def test_a_network_of_another_size_is_remarked():
    narrow = replace(report(row("none", 0.0, 0.6), model="wide_resnet"), model_options={"depth": 10, "width": 1})
    assert compare_with_published(published_table("arxiv-4"), narrow).remarks == (
        "Ours is wide_resnet with depth = 10, width = 1: not the published network.",
    )


def test_of_several_ways_to_run_a_column_the_nearest_is_told():
    """Published at 0, 10 and 20 %: 65.16, 65.15, 65.16. Plain is off by 1, 2 and (alone) 9 points, released by 0.5 and 0.5."""
    ours = {
        ("plain", 0.0): 64.16,
        ("plain", 0.1): 67.15,
        ("plain", 0.2): 56.16,
        ("released", 0.0): 65.66,
        ("released", 0.1): 64.65,
    }
    rows = [
        row("targeted", fraction, value / 100, options=TARGETED, evaluation=evaluation, id=f"{evaluation}-{fraction}")
        for (evaluation, fraction), value in ours.items()
    ]
    comparison = compare_with_published(published_table("workshop-3a"), report(*rows, row("none", 0.0, 0.7)))
    assert nearest_variants(comparison) == (
        "targeted(alpha=0.66,gamma=0.75): nearest to theirs is evaluation = released, 20 epochs, off by 0.50 points on average "
        "over 2 cells; as published, 20 epochs by 1.50.",
    )
    assert nearest_variants(compare_with_published(published_table("workshop-3a"), report(*rows[:3]))) == ()


def test_ways_that_differ_by_their_device_alone_are_told_by_it():
    """Published: 65.16. The column's titles are equal; neither may take the other's place."""
    rows = [
        row("targeted", 0.0, value, options=TARGETED, device=device, id=device)
        for device, value in (("cpu", 0.6416), ("cuda", 0.5516))
    ]
    assert nearest_variants(compare_with_published(published_table("workshop-3a"), report(*rows))) == (
        "targeted(alpha=0.66,gamma=0.75): nearest to theirs is as published, 20 epochs, cpu, off by 1.00 points on average "
        "over 1 cell; as published, 20 epochs, cuda by 10.00.",
    )


def test_each_table_has_the_measure_beside_it_that_it_is_of():
    figures = (FileFigure(measure=Measure(name="per-token accuracy", unit="%"), value=0.61),)
    rows = [
        row(accuracy=0.25, accuracy_onnx=0.24, figures=figures),
        row("none", 0.1, 0.2),
        row("targeted", 0.0, 0.26, options={**TARGETED, "gamma": 0.9}, figures=figures),
    ]
    ours = replace(report(*rows, model="transformer", data="parallel_text"), measure=Measure(name="BLEU"))
    found = {}
    for name in ("arxiv-5a", "arxiv-5b"):
        comparison = compare_with_published(published_table(name), ours)
        assert comparison.not_run == ("targeted(alpha=0.66,gamma=0.75)",)
        found[name] = {column.heading: column.cells[:2] for column in comparison.columns}
    assert [cell_text(cell) for cell in found["arxiv-5a"]["none"]] == ["25.00 (26.01, -1.01)", "20.00 (26.05, -6.05)"]
    assert [cell_text(cell) for cell in found["arxiv-5b"]["none"]] == ["61.00 (62.29, -1.29)", "- (62.54)"]
    with pytest.raises(UserError, match=r"arxiv-5b gives per-token accuracy %, run 'r' BLEU: nothing can be compared"):
        compare_with_published(published_table("arxiv-5b"), replace(ours, rows=(row(),)))


def test_a_column_without_the_tables_measure_is_not_called_near():
    """Another row of the run was measured, so that there is a table."""
    figures = (FileFigure(measure=Measure(name="per-token accuracy", unit="%"), value=0.61),)
    rows = [row(figures=figures), row("targeted", 0.0, 0.26, options={**TARGETED, "gamma": 0.9})]
    ours = replace(report(*rows, model="transformer", data="parallel_text"), measure=Measure(name="BLEU"))
    said = [large_differences(column) for column in compare_with_published(published_table("arxiv-5b"), ours).columns]
    assert said == ["none: all 1 cells within 2 points.", "targeted(alpha=0.66,gamma=0.9): ours was not measured."]


@pytest.mark.parametrize("order", [("float32", "int8"), ("int8", "float32")])
def test_of_a_networks_files_the_one_in_float32_counts(order):
    measure = Measure(name="per-token accuracy", unit="%")
    values = {"float32": 0.61, "int8": 0.55}
    rows = [row(id=name, values=name, figures=(FileFigure(measure=measure, value=values[name]),)) for name in order]
    ours = replace(report(*rows, model="transformer", data="parallel_text"), measure=Measure(name="BLEU"))
    (column,) = compare_with_published(published_table("arxiv-5b"), ours).columns
    assert column.cells[0].ours == (61.0,)


def test_another_network_is_refused_and_another_data_set_remarked():
    with pytest.raises(UserError, match="workshop-3a is of lenet5, run 'r' of resnet32"):
        compare_with_published(published_table("workshop-3a"), report(row(), model="resnet32"))
    with pytest.raises(UserError, match=r"arxiv-5a gives BLEU, run 'r' accuracy: nothing can be compared"):
        compare_with_published(published_table("arxiv-5a"), report(row(), model="transformer"))
    assert "not the same task" in compare_with_published(published_table("workshop-3a"), report(row(), data="digits")).remarks[0]


def test_rendered_as_markdown():
    comparison = compare_with_published(published_table("workshop-3a"), report(row("none", 0.0, 0.70), row("none", 0.9, 0.10)))
    text = render_document(Document(title="t", subtitle="s", blocks=comparison_blocks(comparison)))
    assert "## Beside workshop-3a" in text
    assert "70.00 (67.69, +2.31)" in text
    assert "| none | 0 | cpu | 20 | 10 |" in text
    assert "none: 2 of 2 cells differ by more than 2 points, most at 90 %: -14.24." in text
    assert "Not run: dropout(alpha=0.25);" in text


def test_nothing_run_is_said():
    comparison = compare_with_published(published_table("workshop-3b"), report(row()))
    text = render_document(Document(title="t", subtitle="s", blocks=comparison_blocks(comparison)))
    assert comparison.columns == ()
    assert "Not run: none; dropout(alpha=0.25)" in text
    assert "belong to no published cell: none-0.0-0" in text
