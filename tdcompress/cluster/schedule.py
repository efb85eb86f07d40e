"""Tasks that are made at the same time somewhere else: each once, as soon as its inputs are there. Knows no Ray and no torch."""

import signal
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Protocol

from tdcompress.artifacts import Artifact
from tdcompress.errors import InterruptedRun, TdcompressError
from tdcompress.pipeline import Runner, Task, stop_if_asked

LOSSES = 3  # a task that takes so many workers down with it is at fault itself


@dataclass(frozen=True, kw_only=True)
class Done:
    """A task was made.

    Attributes:
        artifact: what it made.
        seconds: that it took; None = another run had made it in the meantime.
    """

    artifact: Artifact
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Lost:
    """Who made a task is gone, without a word of it; what it saved is still there. ``why`` says what happened."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A task ended without a result: stopped (`InterruptedRun`), or at fault. To make it again would not help."""

    error: Exception


Ending = Done | Lost | Failed


class Executor(Protocol):
    """Makes tasks somewhere else, several at the same time."""

    def submit(self, task: Task) -> None:
        """Make a task whose inputs are there, when there is room for it."""

    def ended(self) -> Sequence[tuple[Task, Ending]]:
        """What ended since the last call; waits for it, but not for longer than a moment."""

    def stop(self, signal_number: int) -> None:
        """Ask all tasks to save and end; each still becomes one of ``ended``, those that have not begun at once."""


def make_all(tasks: Iterable[Task], runner: Runner, executor: Executor, lost: Callable[[Task, str], None]) -> None:
    """Make tasks and what they need; ``runner`` then has the artefact of each.

    A task whose worker is lost is given out again. After one that fails, or a signal, nothing more is given out; what is being
    made is asked to stop, and waited for.

    Args:
        tasks: whose results are needed.
        runner: finds what is there, is told what is made, and says when to stop.
        executor: makes them.
        lost: told of each task whose worker is gone, and why.

    Raises:
        InterruptedRun: a signal arrived.
        TdcompressError: the first task that failed; or one whose worker was lost ``LOSSES`` times.
    """
    order = _missing(tasks, runner)
    ready: list[Task] = []
    losses: Counter[str] = Counter()
    out = 0
    error: Exception | None = None
    while True:
        if error is None:
            error = _asked(runner, executor)
        if error is None:
            ready += order.get_ready()
            for task in ready:
                executor.submit(task)
            out += len(ready)
            ready.clear()
        if not out:
            break
        for task, ending in executor.ended():
            out -= 1
            match ending:
                case Done():
                    runner.take(task, ending.artifact, ending.seconds)
                    order.done(task)
                    continue
                case Lost():
                    lost(task, ending.why)
                    losses[task.key] += 1
                    if losses[task.key] < LOSSES:
                        ready.append(task)
                        continue
                    problem: Exception = TdcompressError(f"{task.title}: lost {LOSSES} workers, the last by: {ending.why}")
                case Failed():
                    problem = ending.error
            if error is None:
                error = problem
                executor.stop(signal.SIGTERM)
    if error is not None:
        raise error


def _asked(runner: Runner, executor: Executor) -> InterruptedRun | None:
    try:
        stop_if_asked(runner.should_stop)
    except InterruptedRun as stop:
        executor.stop(stop.signal_number)
        return stop
    return None


def _missing(tasks: Iterable[Task], runner: Runner) -> TopologicalSorter[Task]:
    """The tasks that have to be made, each key once. Those that are there need no inputs."""
    known: dict[str, Task | None] = {}  # None = there
    order: TopologicalSorter[Task] = TopologicalSorter()

    def visit(task: Task) -> Task | None:
        if task.key not in known:
            known[task.key] = None if runner.find(task) is not None else task
            if known[task.key] is not None:
                inputs = [visit(needed) for needed in task.inputs.values()]
                order.add(task, *(needed for needed in inputs if needed is not None))
        return known[task.key]

    for task in tasks:
        visit(task)
    order.prepare()
    return order
