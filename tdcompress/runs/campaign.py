"""A campaign: the trainings of several recipes alone, one after the other, or several at the same time in threads."""

import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NoReturn

import torch

from tdcompress.errors import BusyError, InterruptedRun, TdcompressError, TrainingError, UserError, of_system, one_line
from tdcompress.pipeline import Runner, Task, when_free
from tdcompress.recipes.source import Recipe
from tdcompress.runs.blame import blamed
from tdcompress.runs.checks import check_trainings, check_writable
from tdcompress.runs.execution import Execution
from tdcompress.runs.plan import RunPlan, plan_run
from tdcompress.runs.unfinished import announce, claim_run, forget
from tdcompress.train.together import own_stream


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """A campaign that is done: how many trainings it has, and how many of them had to be made."""

    trainings: int
    made: int


def run_campaign(recipes: Sequence[Recipe], execution: Execution, *, together: int = 1) -> Campaign:
    """Make every training that the recipes need, in their order but teachers first; a run of a recipe then goes on from these.

    A recipe or a training that fails does not keep the others from being made.

    Args:
        recipes: as ``load_recipe`` gives them, each with a name of its own.
        execution: where, on what device, and who is told.
        together: trainings at the same time. What each comes to does not depend on it.

    Raises:
        InterruptedRun: ``execution.should_stop`` gave a signal; every training that ran is saved.
        UserError: two recipes of one name; several processes that nobody leads; or all that failed could not be run as it is, for
            want of data for example.
        TdcompressError: some failed. What alone was to be made and failed is raised as it is.

    Of each that failed the error raised has a note (``__notes__``), with its message.
    """
    if execution.crew is not None and together > 1:
        raise UserError(f"--together {together}: several processes share one training at a time")
    _refuse_one_name(recipes)
    store = execution.open_store()
    check_writable(store.root)
    failed: dict[str, TdcompressError] = {}
    planned: dict[str, list[Task]] = {}
    places: dict[str, Path] = {}
    runner = execution.runner(store, places)
    with ExitStack() as held:
        for name in sorted(recipe.name for recipe in recipes):  # by name, so that two campaigns do not wait for each other
            try:
                held.enter_context(when_free(partial(claim_run, store, name), execution.waiting, execution.should_stop))
            except BusyError as error:
                failed[name] = error
        for recipe in (recipe for recipe in recipes if recipe.name not in failed):
            try:
                plan = plan_run(recipe, store)
                places |= plan.places
                check_trainings(plan, runner)
            except InterruptedRun:
                raise
            except (TdcompressError, OSError) as error:
                failed[recipe.name] = of_system(error) if isinstance(error, OSError) else error
            else:
                planned[recipe.name] = training_tasks(plan)
                announce(store.root, recipe.name, planned[recipe.name], execution.command)
        store.hashes.save()
        tasks = list({task.key: task for named in planned.values() for task in named}.values())
        pool = _Pool(runner, torch.device(execution.device))
        levels = _levels(tasks)
        for level in levels:
            pool.run(level, together)
        store.hashes.save()
        for name, named in planned.items():
            if pool.done.issuperset(task.key for task in named):
                forget(store.root, name)
    problems = {**failed, **pool.failed}
    if pool.stopped is not None:
        done = sum(task.key in pool.done for task in tasks)
        failures = f", {len(problems)} failed," if problems else ""
        said = f"{done} of {len(tasks)} trainings are done{failures} and what was begun is saved: run the same command again"
        raise _noted(InterruptedRun(said, pool.stopped), problems)
    if problems:
        _fail(problems, of=sum(map(len, levels)) + len(failed))
    return Campaign(trainings=len(tasks), made=runner.made)


def training_tasks(plan: RunPlan) -> list[Task]:
    """The trainings of a run in the order in which it makes them, each once."""
    made = [*(row.train for row in plan.rows), plan.dense_train]
    teachers = [task.inputs["teacher"] for task in made if "teacher" in task.inputs]
    return list({task.key: task for task in (*teachers, *made)}.values())


def _levels(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks and all that they need, each once: first what needs nothing, then what needs these alone, and so on."""
    depths: dict[str, int] = {}
    needed: dict[str, Task] = {}

    def depth(task: Task) -> int:
        if task.key not in depths:
            depths[task.key] = 1 + max(map(depth, task.inputs.values()), default=-1)
            needed[task.key] = task
        return depths[task.key]

    deepest = max(map(depth, tasks), default=-1)
    return [[task for key, task in needed.items() if depths[key] == level] for level in range(deepest + 1)]


class _Pool:
    """Trainings and what they need, made by threads, and what became of each.

    Attributes:
        done: keys.
        failed: error by title and key.
        stopped: the signal that stopped a training, or None; after one no other begins.
    """

    def __init__(self, runner: Runner, device: torch.device) -> None:
        self.done: set[str] = set()
        self.failed: dict[str, TdcompressError] = {}
        self.stopped: int | None = None
        self._runner, self._device = runner, device
        self._waiting: SimpleQueue[Task] = SimpleQueue()

    def run(self, tasks: Sequence[Task], count: int) -> None:
        """Make all tasks, ``count`` at a time; one at a time in this very thread. What they need has to be made already."""
        for task in tasks:
            self._waiting.put(task)
        if count == 1:
            self._work()
            return
        threads = [Thread(target=self._work, daemon=True) for _ in range(min(count, self._waiting.qsize()))]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # not in one go: signals are heard by this thread, and a second Ctrl-C leaves at once
                thread.join(timeout=0.2)

    def _work(self) -> None:
        with own_stream(self._device):
            while self.stopped is None:
                try:
                    task = self._waiting.get_nowait()
                except Empty:
                    return
                self._make(task)

    def _make(self, task: Task) -> None:
        lacking = [needed for needed in task.inputs.values() if needed.key not in self.done]
        if lacking:
            kind = UserError if isinstance(self.failed.get(lacking[0].name), UserError) else TrainingError
            self.failed[task.name] = kind(f"it needs {lacking[0].title}, which failed")
            return
        try:
            with blamed(self._runner.store.root):
                self._runner.ensure(task)
        except InterruptedRun as stop:
            self.stopped = stop.signal_number
        except (TdcompressError, OSError) as error:
            if self._runner.crew is not None:
                raise  # the other processes have ended too
            self.failed[task.name] = of_system(error) if isinstance(error, OSError) else error
        except Exception as error:  # a fault of ours: the others go on, and all is told
            traceback.print_exc()
            self.failed[task.name] = TrainingError(f"{type(error).__name__}: {one_line(error)}")
        else:
            self.done.add(task.key)


def _refuse_one_name(recipes: Sequence[Recipe]) -> None:
    for name, count in Counter(recipe.name for recipe in recipes).items():
        if count > 1:
            raise UserError(f"{count} recipes are named {name!r}: give each a name of its own, or train them one by one")


def _fail(problems: Mapping[str, TdcompressError], of: int) -> NoReturn:
    if of == 1:
        raise next(iter(problems.values()))
    kind = UserError if all(isinstance(error, UserError) for error in problems.values()) else TdcompressError
    others = "" if len(problems) == of else "; the others are done"
    raise _noted(kind(f"{len(problems)} of {of} failed: {', '.join(problems)}{others}"), problems)


def _noted(error: TdcompressError, problems: Mapping[str, TdcompressError]) -> TdcompressError:
    for name, problem in problems.items():
        named = str(problem).startswith(name)  # as `named_failures` does
        error.add_note(str(problem) if named else f"{name}: {problem}")
    return error
