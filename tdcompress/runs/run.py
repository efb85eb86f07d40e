"""A whole run: plan a recipe, make its tasks, lay out its folder."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from tdcompress.errors import UnsupportedError, UserError
from tdcompress.pipeline import when_free
from tdcompress.recipes.source import Recipe
from tdcompress.records.report import Report
from tdcompress.runs.blame import blamed
from tdcompress.runs.checks import check_plan
from tdcompress.runs.execution import Execution
from tdcompress.runs.folder import earlier_report, finished_report, refuse_another_recipe, renewed
from tdcompress.runs.layout import lay_out, links
from tdcompress.runs.parts import REPORTING, require_parts
from tdcompress.runs.plan import plan_run
from tdcompress.runs.unfinished import announced, claim_run


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run that is done: its report, its folder, and how many stages had to be made for it."""

    report: Report
    folder: Path
    made: int


def find_device(name: str) -> str:
    """The device of ``--device``: "auto" takes a GPU where there is one.

    Raises:
        UnsupportedError: a GPU is asked for and there is none.
        UserError: another name than auto, cpu or cuda.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError("--device cuda: torch finds no GPU here; use --device cpu, or install a CUDA build of torch")
    if name not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: it is one of auto, cpu, cuda")
    # the accuracy of one network is the same everywhere only if float32 means float32
    torch.backends.cudnn.allow_tf32 = False
    return name


def run_recipe(recipe: Recipe, execution: Execution, *, replace: bool = False) -> Finished:
    """Run a recipe to its report; what is done already is not done again.

    Args:
        recipe: as ``load_recipe`` gives it.
        execution: where, on what device, and who is told.
        replace: whether a run folder of another recipe with this name may be replaced.

    Raises:
        UserError: the folder holds another recipe's run, and ``replace`` is false; or several processes run this on their own.
        BusyError: another process works in the run's folder, or on a stage of it, and ``execution.waiting`` is None.
        ArtifactError: a file of a stage that is whole by its manifest cannot be read; the message says what to remove.
    """
    require_parts(*REPORTING)
    store = execution.open_store()
    folder = store.root / recipe.name
    with when_free(partial(claim_run, store, recipe.name), execution.waiting, execution.should_stop):
        store.bring_run(recipe.name)
        plan = plan_run(recipe, store, execution.workers)
        store.hashes.save()
        refuse_another_recipe(folder, plan.recipe_key, replace)
        runner = execution.runner(store, plan.places)
        check_plan(plan, runner, execution.workers)
        tasks = plan.tasks()
        with announced(store.root, recipe.name, tasks, execution.command), blamed(store.root):
            artifacts = execution.workers.make(recipe.name, tasks, runner)
            store.hashes.save()
            finished = None if runner.made or replace else finished_report(folder, plan.recipe_key, links(plan))
            if finished is None:
                earlier = earlier_report(folder, plan.recipe_key)
                with renewed(folder, plan.recipe_key, replace) as new:
                    finished = lay_out(plan, artifacts, new, earlier)
            store.keep_run(recipe.name)
        return Finished(report=finished, folder=folder, made=runner.made)
