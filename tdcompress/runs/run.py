"""A whole run: plan a recipe, make its tasks, lay out its folder."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tdcompress.errors import UnsupportedError, UserError
from tdcompress.files import StrPath
from tdcompress.pipeline import Crew, Machine, Runner, Waiting, Watcher, when_free
from tdcompress.recipes.source import Recipe
from tdcompress.records import Report
from tdcompress.runs.checks import check_plan
from tdcompress.runs.folder import earlier_report, finished_report, refuse_another_recipe, renewed
from tdcompress.runs.layout import lay_out
from tdcompress.runs.parts import REPORTING, require_parts
from tdcompress.runs.plan import plan_run
from tdcompress.runs.rows import versions
from tdcompress.runs.unfinished import announced, claim_run
from tdcompress.stores.place import open_store


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


def run_recipe(
    recipe: Recipe,
    *,
    root: StrPath,
    device: str,
    watcher: Watcher,
    should_stop: Callable[[], int | None] = lambda: None,
    replace: bool = False,
    crew: Crew | None = None,
    waiting: Waiting | None = None,
    command: str = "run its recipe again",
) -> Finished:
    """Run a recipe to its report; what is done already is not done again.

    Args:
        recipe: as ``load_recipe`` gives it.
        root: the artifacts folder, or "s3://bucket/prefix": then a folder of this machine is its cache.
        device: see ``find_device``.
        watcher: told about each stage.
        should_stop: the number of a signal that asks the process to end, or None.
        replace: whether a run folder of another recipe with this name may be replaced.
        crew: other processes that help to train; see `tdcompress.runs.crew`.
        waiting: told while another process has the run, or makes a stage of it; None = that is an error.
        command: what starts this run again, for ``tdcompress status``.

    Raises:
        UserError: the folder holds another recipe's run, and ``replace`` is false; or several processes run this on their own.
        BusyError: another process works in the run's folder, or on a stage of it, and ``waiting`` is None.
    """
    refuse_processes(crew)
    require_parts(*REPORTING)
    store = open_store(root)
    folder = store.root / recipe.name
    with when_free(partial(claim_run, store, recipe.name), waiting, should_stop):
        store.bring_run(recipe.name)
        plan = plan_run(recipe, store.hashes)
        store.hashes.save()
        refuse_another_recipe(folder, plan.recipe_key, replace)
        check_plan(plan, store)
        machine = Machine(device=device, places=plan.places)
        runner = Runner(
            store=store,
            watcher=watcher,
            facts=facts(),
            machine=machine,
            should_stop=should_stop,
            crew=crew,
            waiting=waiting,
        )
        tasks = plan.tasks()
        with announced(store.root, recipe.name, tasks, command):
            artifacts = {task.key: runner.ensure(task) for task in tasks}
            store.hashes.save()
            finished = None if runner.made or replace else finished_report(folder, plan.recipe_key)
            if finished is None:
                earlier = earlier_report(folder, plan.recipe_key)
                with renewed(folder) as new:
                    finished = lay_out(plan, artifacts, new, earlier)
            store.keep_run(recipe.name)
        return Finished(report=finished, folder=folder, made=runner.made)


def refuse_processes(crew: Crew | None) -> None:
    """Of several processes one leads; each of them making the run would make it several times.

    Raises:
        UserError: torchrun started several, and none leads.
    """
    if crew is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "started as several processes (torchrun), each of which would make the whole run: "
            "start torchrun -m tdcompress run, or call this in one process"
        )


def facts() -> dict[str, Any]:
    """Versions and host, for manifests."""
    return {"versions": versions(), "host": {"system": platform.platform(), "machine": platform.machine()}}
