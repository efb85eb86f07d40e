"""Keys of tasks: what a result depends on is in them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tdcompress.data.mnist import MnistSettings
from tdcompress.errors import RecipeError
from tdcompress.recipes.experiment import resolve, table_types
from tdcompress.recipes.idle import idle_keys
from tdcompress.recipes.keys import keys_of
from tdcompress.recipes.source import parse_recipe
from tdcompress.runs.layout import resolved_values
from tdcompress.runs.plan import RunPlan, plan_run
from tdcompress.stores.folder import FolderStore
from tdcompress.train.distill import DistillSettings

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
name = "plan"
[data]
name = "digits"
[model]
name = "digits_cnn"
[sparsity]
method = "none"
[analyse]
bins = 8
[prune]
fraction = 0.5
"""
BENCH_NOTHING = '[bench]\nbudget = "none"\n'


def plan(text: str, tmp_path: Path) -> RunPlan:
    return plan_run(parse_recipe(text), FolderStore(tmp_path))


def test_an_analysis_depends_on_everything_that_its_pruning_depends_on(tmp_path: Path) -> None:
    keys = {
        plan(RECIPE + more, tmp_path).analyses[0].key
        for more in ("", 'exclude = ["conv2"]\n', 'evaluation = "plain"\n', "recalibrate = 4\n")
    }
    assert len(keys) == 3  # evaluation = "plain" is what the first has by default


def test_recipes_that_prune_differently_share_the_dense_export(tmp_path: Path) -> None:
    plans = [plan(RECIPE + more, tmp_path) for more in ("", 'exclude = ["conv2"]\n')]
    assert plans[0].dense.key == plans[1].dense.key
    assert plans[0].rows[0].export.key != plans[1].rows[0].export.key
    assert plans[0].recipe_key != plans[1].recipe_key


def test_an_analysis_of_units_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r'recipe, line 13: prune.granularity: \[analyse\] is of single weights; set "weight"'):
        plan(RECIPE + 'granularity = "unit"\n', tmp_path)


SWEPT = """
[sweep]
"sparsity.method" = ["none", "dropout", "smallify"]
"""


def test_the_teacher_is_the_runs_own_untargeted_training(tmp_path: Path) -> None:
    text = RECIPE.replace("[analyse]\nbins = 8\n", "")
    plain = plan(text + SWEPT, tmp_path).rows
    none, *taught = plan(text + "[distill]\n" + SWEPT, tmp_path).rows
    assert none.train.key == plain[0].train.key  # it has nothing to learn from
    assert none.train.inputs == {}
    for row, alone in zip(taught, plain[1:], strict=True):
        assert row.train.inputs["teacher"].key == none.train.key
        assert row.train.key != alone.train.key
        assert row.train.settings.distill == DistillSettings(temperature=4.0, weight=0.7)
    hotter = plan(text + "[distill]\ntemperature = 2.0\n" + SWEPT, tmp_path).rows[1]
    assert hotter.train.key != taught[0].train.key
    swept = plan(text + '[sweep]\n"sparsity.method" = ["dropout"]\n"distill.weight" = [0.5, 0.9]\n', tmp_path).rows
    assert [row.id for row in swept] == ["dropout-distill-weight0.5-0.5", "dropout-distill-weight0.9-0.5"]
    assert [row.config.differs for row in swept] == [{"distill.weight": 0.5}, {"distill.weight": 0.9}]


@pytest.mark.parametrize("more", ["", SWEPT], ids=["no sweep", "some combinations without a teacher"])
def test_the_resolved_recipe_has_every_default_with_an_effect_of_every_table_in_force(tmp_path: Path, more: str) -> None:
    text = (
        RECIPE.replace('method = "none"', 'method = "dropout"' if not more else 'method = "none"') + "[distill]\nweight = 0.5\n"
    )
    planned = plan(text + more, tmp_path)
    resolved = resolved_values(planned.recipe, planned.experiments)
    idle = set.intersection(*({*idle_keys(experiment)} for experiment in planned.experiments))
    assert {"prune.align", "train.average_share", "finetune.lr_schedule"} <= idle
    for section, table in table_types().items():
        known = {key.path for key in keys_of(table) if key.default != ""}
        without = {key for key in known if any(f"{section}.{key}.".startswith(f"{each}.") for each in idle)}
        assert paths(resolved[section]) >= known - without, section
        assert not paths(resolved[section]) & without, section
    assert resolved["distill"] == {"temperature": 4.0, "weight": 0.5}
    again = plan(tomli_w.dumps(resolved), tmp_path)
    assert again.recipe_key == planned.recipe_key
    assert {task.key for task in again.tasks()} == {task.key for task in planned.tasks()}


def test_tables_that_a_recipe_lacks_stay_out_of_the_resolved_one(tmp_path: Path) -> None:
    planned = plan(RECIPE.replace("[analyse]\nbins = 8\n", ""), tmp_path)
    resolved = resolved_values(planned.recipe, planned.experiments)
    assert not {"distill", "analyse"} & resolved.keys()


@pytest.mark.parametrize("key", ['granularity = "unit"', 'exclude = ["conv1"]', 'shares = "global"'])
def test_the_runs_own_untargeted_training_is_the_teacher_whatever_is_pruned_after_it(key: str, tmp_path: Path) -> None:
    text = RECIPE.replace('method = "none"\n', f'method = "none"\n{key}\n').replace("[analyse]\nbins = 8\n", "[distill]\n")
    both = "".join(
        f'[[sweep.case]]\n"sparsity.method" = {method}\n' for method in ('"none"', '"targeted"\n"sparsity.gamma" = 0.5')
    )
    planned = plan(text + both, tmp_path)
    (none, targeted), (plain,) = planned.rows, plan(text.replace(f"{key}\n", "").replace("[distill]\n", ""), tmp_path).rows
    assert none.train.key == targeted.train.inputs["teacher"].key == plain.train.key
    assert none.pruned.key != plain.pruned.key
    assert planned.recipe_key != plan(text.replace(key, "") + both, tmp_path).recipe_key


TARGETED = RECIPE.replace('"none"', '"targeted"\ngamma = 0.9').replace("[analyse]\nbins = 8\n", "[train]\nepochs = 3\n")


@pytest.mark.parametrize(
    ("case", "section", "same"),
    [
        ('"distill.weight" = 0.7', "distill", None),  # the other combination has no teacher
        ('"train.l2" = 0.1', "train", {"epochs": 3}),
        ("seed = 1", "seed", None),
    ],
)
def test_the_resolved_recipe_has_as_written_what_cases_change(case: str, section: str, same: object, tmp_path: Path) -> None:
    planned = plan(f"{TARGETED}[[sweep.case]]\n[[sweep.case]]\n{case}\n", tmp_path)
    resolved = resolved_values(planned.recipe, planned.experiments)
    assert resolved.get(section) == same
    again = plan(tomli_w.dumps(resolved), tmp_path)
    assert again.experiments == planned.experiments
    assert [row.id for row in again.rows] == [row.id for row in planned.rows]


@pytest.mark.parametrize(
    ("schedule", "epochs"),
    [('schedule = "cubic"', 3), ('schedule = "cubic"', 0), ('schedule = "ramp"\nramp_scale = true', 3)],
    ids=["cubic", "cubic without training", "ramp"],
)
def test_the_resolved_recipe_can_be_run_with_another_length(schedule: str, epochs: int, tmp_path: Path) -> None:
    text = TARGETED.replace("gamma = 0.9", f"gamma = 0.9\n{schedule}").replace("epochs = 3", f"epochs = {epochs}")
    planned = plan(text, tmp_path)
    resolved = tomli_w.dumps(resolved_values(planned.recipe, planned.experiments))
    assert plan(resolved, tmp_path).recipe_key == planned.recipe_key
    for changes in ({}, {"train.epochs": 7}):
        first, again = (parse_recipe(each, overrides=changes) for each in (text, resolved))
        assert resolve(again) == resolve(first)


def paths(table: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted keys of nested tables."""
    found = {f"{prefix}{key}" for key in table}
    return found.union(*(paths(value, f"{prefix}{key}.") for key, value in table.items() if isinstance(value, dict)))


def test_how_weights_begin_is_part_of_a_trainings_key(tmp_path: Path) -> None:
    text = RECIPE.replace("[analyse]\nbins = 8\n", "")
    drawn, dirac = (plan(text.replace("[sparsity]", f"{init}[sparsity]"), tmp_path).rows[0] for init in ("", 'init = "dirac"\n'))
    assert drawn.train.key != dirac.train.key
    with pytest.raises(RecipeError, match=r"model\.init: 'dirak' is not a file, nor \"dirac\""):
        plan(text.replace("[sparsity]", 'init = "dirak"\n[sparsity]'), tmp_path)


def test_initial_weights_that_the_network_cannot_have_are_refused_with_their_line(tmp_path: Path) -> None:
    """At once, not when the earlier trainings of a sweep are done."""
    (other := tmp_path / "other.safetensors").write_bytes(b"other")
    text = RECIPE.replace("digits_cnn", "mlp") + "[[sweep.case]]\nseed = 1\n[[sweep.case]]\n"
    line = len(text.splitlines()) + 1
    for init, said in (
        ("dirac", r'"dirac" is for convolutions behind the first; this Mlp has none'),
        (other, r".*other\.safetensors holds no weights, neither safetensors nor torch's"),
    ):
        with pytest.raises(RecipeError, match=rf"line {line}: model\.init: {said}"):
            plan(f'{text}"model.init" = "{init}"\n', tmp_path)


def test_a_home_is_written_out_before_other_processes_are_told_where_data_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To resolve "~/data" as it is would make "<current folder>/~/data" of it, which no process finds."""
    monkeypatch.setenv("HOME", str(tmp_path))
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MnistSettings.archives:
        (raw / name).write_bytes(b"x")
    text = RECIPE.replace('"digits"\n', '"mnist"\nroot = "~/data"\n').replace("digits_cnn", "lenet5")
    assert list(plan(text + BENCH_NOTHING, tmp_path).places.values()) == [tmp_path / "data"]


@pytest.mark.parametrize("name", ["mnist", "parallel_text"])
def test_a_home_that_is_not_known_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    text = RECIPE.replace('"digits"\n', f'"{name}"\nroot = "~nobody-of-this-name/data"\n')
    said = "recipe, line 5: data.root: '~nobody-of-this-name/data' begins with a home that is not known here; give"
    with pytest.raises(RecipeError, match=f"^{said}"):
        plan(text, tmp_path)


def test_planning_stays_in_a_module_until_its_part_is_done() -> None:
    """2412 returns to a module already left were counted before a stage received just what its key hashes; at most half of it."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "planning_trace.py"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert int(re.search(r"(\d+) returns", done.stdout)[1]) <= 1206
