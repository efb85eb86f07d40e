"""The shipped recipes of the papers' tables: each can be read, and runs every column of the table that it names."""

import re
from pathlib import Path

import pytest

from tdcompress.codec import shallow
from tdcompress.data.augment import Augmentation
from tdcompress.recipes.experiment import Experiment, resolve
from tdcompress.recipes.names import row_config
from tdcompress.recipes.source import load_recipe
from tdcompress.recipes.sweep import expand_sweep
from tdcompress.records.report import Row
from tdcompress.report.papers import matches, percentage_of, published_table, published_tables, read_heading, variant

FOLDER = Path(__file__).resolve().parents[2] / "pipelines" / "paper"
RECIPES = sorted(FOLDER.glob("*.toml"))
TABLES = [path for path in RECIPES if path.stem not in ("dependence", "workshop3_mismatch")]
# recipes that are not meant to run every column of their table
SEARCHES = ("l0_beta", "smallify_lambda", "xtreme_resnet32", "xtreme_resnet18", "ramping_resnet32")
RELEASED = ("workshop3_released", "arxiv2_released")
RIVALS = ("workshop3_lenet5_rivals_weight", "workshop3_lenet5_rivals_unit")  # two columns, trained as the papers did not
SETTINGS = "workshop3_lenet5_settings"  # some columns, with what the released code was found to set


def row(experiment: Experiment) -> Row:
    config = row_config(experiment, "float32", {})
    return Row(
        **shallow(config),
        id="row",
        train_seconds=0.0,
        device="cpu",
        accuracy_dense=0.0,
        accuracy_masked=0.0,
        accuracy_shrunk=None,
        accuracy_stored=None,
        accuracy_onnx=0.0,
        parameters_total=1,
        parameters_nonzero=1,
        sparsity_prunable=0.0,
        sparsity_model=0.0,
        macs=1,
        onnx_file="row.onnx",
        onnx_bytes=1,
        dense_onnx_bytes=1,
        bound_bytes=1.0,
        stored_bytes=None,
        why="",
    )


def compared_with(path: Path) -> list[str]:
    """The tables that a recipe's comment names."""
    head = path.read_text().split("name =")[0]
    return [table for table in published_tables() if re.search(rf"(?<![\w-]){re.escape(table)}(?![\w-])", head)]


def test_dependence_is_run_for_three_seeds_of_both_trainings_and_either_scale_of_the_pixels():
    for normalise in ("image", "unit"):
        changes = {"name": "dependence-unit", "data.normalise": "unit"} if normalise == "unit" else {}
        found = [resolve(each) for each in expand_sweep(load_recipe(FOLDER / "dependence.toml", changes))]
        assert [(each.method.name, each.seed) for each in found] == [
            (name, seed) for name in ("none", "targeted") for seed in range(3)
        ]
        assert {(each.data.normalise, each.train.batch_size, each.analyse is None) for each in found} == {(normalise, 64, False)}
        assert found[0].data.augmentation() == Augmentation()


def experiments(path: Path) -> list[Experiment]:
    return [resolve(each) for each in expand_sweep(load_recipe(path))]


def test_there_are_recipes_with_names_of_their_own():
    names = [load_recipe(path).name for path in RECIPES]
    assert len(set(names)) == len(names) > 20
    assert all(name == path.stem.replace("_", "-") for name, path in zip(names, RECIPES, strict=True))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_is_and_how_to_compare_it(path: Path):
    first, *rest = path.read_text().splitlines()
    assert re.match(r"# (arXiv 1905\.13678|Workshop paper \(2018\)|Search over)", first)
    assert compared_with(path) or path.stem == "workshop3_mismatch"
    for name in re.findall(r"tdcompress report (\S+)", "\n".join(rest)):
        assert name == load_recipe(path).name


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.stem not in ("dependence", "workshop3_mismatch")], ids=lambda p: p.stem
)
def test_a_recipe_runs_every_cell_of_its_table(path: Path):
    """Each column and percentage, without any variant that the papers do not have."""
    rows, model = [row(each) for each in experiments(path)], load_recipe(path).section("model")["name"]
    for table_id in compared_with(path):
        table = published_table(table_id)
        assert model in table.model
        missing = []
        for heading, values in table.columns.items():
            read = read_heading(heading)
            own = [each for each in rows if each.granularity == table.granularity and matches(read, each, model)]
            found = {percentage_of(each, values, read) for each in own}
            missing += [f"{heading} at {percentage} %" for percentage in values if percentage not in found]
            stated = [variant(each, read) for each in own if not heading.startswith(("ramping", "resnet"))]
            if path.stem in RIVALS:
                assert all("lr_scale = " in each for each in stated), (heading, stated)
                continue
            if path.stem == SETTINGS:
                assert set(stated) <= {"", "initial_drop = 0.25", "warmup_curve = exponential"}, (heading, stated)
                continue
            ways = {"", "evaluation = released"} if path.stem in RELEASED else {""}
            assert set(stated) in (ways, set()), (heading, stated)
        if path.stem in RELEASED:
            missing = [cell for cell in missing if cell.startswith("targeted")]
        if path.stem in RIVALS:
            missing = [cell for cell in missing if cell.startswith(("l0(0.1)", "variational"))]
        if path.stem == SETTINGS:
            missing = [cell for cell in missing if cell.startswith(("none", "targeted(alpha=0.66", "l0(0.1)", "variational"))]
        assert not missing or path.stem in SEARCHES, missing


def test_every_published_table_has_a_recipe():
    assert {table for path in RECIPES for table in compared_with(path)} == set(published_tables())


def test_tables_of_weights_and_units_share_the_trainings_that_know_no_granularity():
    def trainings(name: str) -> dict[str, object]:
        return {
            each.method.name: each.method for each in experiments(FOLDER / f"{name}.toml") if each.method.name in ("none", "l1")
        }

    assert trainings("workshop3_lenet5_weight") == trainings("workshop3_lenet5_unit")


def test_the_mismatch_has_all_four_pairs():
    pairs = {(each.method.granularity, each.pruning.granularity) for each in experiments(FOLDER / "workshop3_mismatch.toml")}
    assert len(pairs) == 4
