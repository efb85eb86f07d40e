"""The tasks of small recipes, made by the runner as a run makes them."""

from typing import Any

import pytest
from short_trainings import short_recipe

from tdcompress.pipeline import Runner, Task
from tdcompress.recipes.source import parse_recipe
from tdcompress.runs.plan import plan_run
from tdcompress.stores.folder import FolderStore


@pytest.fixture(scope="module")
def runner(tmp_path_factory, make_recorder):
    return Runner(store=FolderStore(tmp_path_factory.mktemp("stages")), watcher=make_recorder(), facts={})


@pytest.fixture(scope="module")
def plan(runner):
    """``plan("targeted", "fraction = 0.5", **changes)``: the plan of a short training."""

    def make(method="none", prune="fraction = 0.5", **changes):
        return plan_run(parse_recipe(short_recipe(method, prune), "stages.toml", changes), runner.store)

    return make


@pytest.fixture(scope="module")
def row(plan):
    """The first row of such a plan."""
    return lambda *args, **changes: plan(*args, **changes).rows[0]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``tasks(text, **changes)``: those of a recipe by their stage, without the dense file's."""
    store = FolderStore(tmp_path_factory.mktemp("keys"))

    def make(text: str, **changes: Any) -> dict[str, Task]:
        plan = plan_run(parse_recipe(text, "keys.toml", changes), store)
        return {task.stage.name: task for task in plan.tasks() if task is not plan.dense}

    return make
