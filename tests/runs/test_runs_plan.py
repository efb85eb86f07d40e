"""Keys of tasks: what a result depends on is in them."""

from pathlib import Path

import pytest

from tdcompress.artifacts import HashMemory
from tdcompress.errors import RecipeError
from tdcompress.recipes.source import parse_recipe
from tdcompress.runs.plan import RunPlan, plan_run

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


def plan(text: str, tmp_path: Path) -> RunPlan:
    return plan_run(parse_recipe(text), HashMemory(tmp_path / "hashes.json"))


def test_an_analysis_depends_on_everything_that_its_pruning_depends_on(tmp_path: Path) -> None:
    keys = {
        plan(RECIPE + more, tmp_path).analyses[0].key
        for more in ("", 'exclude = ["conv2"]\n', 'evaluation = "plain"\n', "align = 4\n")
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
