"""The side of a worker: one stage, made as in a single process, for a driver on another machine. Knows no Ray."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tdcompress.artifacts import Artifact
from tdcompress.bench.host import read_host
from tdcompress.cluster.calls import Problem, Reply, StageCall, rebuild
from tdcompress.cluster.sight import seen, sighted
from tdcompress.errors import InterruptedRun, TdcompressError, UserError, of_system
from tdcompress.pipeline import Task
from tdcompress.runs.blame import blamed
from tdcompress.runs.execution import Execution
from tdcompress.runs.run import find_device
from tdcompress.stages import STAGES, bench

News = tuple[Any, ...]
"""("started",), ("progress", done, total, text) or ("waiting", what, seconds)."""
Exchange = Callable[[Sequence[News]], int | None]
"""Tells the driver what is new; gives the number of the signal by which it asks to stop, or None."""

BEAT_SECONDS = 1.0
sighted_once = functools.cache(sighted)  # a worker makes many stages of one run, and remembers what files hash to


def make(call: StageCall, node: str, say: Exchange) -> Reply:
    """Make a task; what goes wrong is part of the reply, with the node's name, unless it is a fault of ours.

    Args:
        call: the task.
        node: what this machine is called.
        say: to the driver.
    """
    try:
        return _make(call, Pulse(say))
    except InterruptedRun as stop:
        return Reply(problem=Problem.of(stop))
    except TdcompressError as error:
        problem = Problem.of(error)
    except OSError as error:  # a full disk, a folder that may not be written
        problem = Problem.of(of_system(error))
    return Reply(problem=replace(problem, message=f"node {node}: {problem.message}"))  # what lacks there may be here


def _make(call: StageCall, pulse: "Pulse") -> Reply:
    store = sighted_once(call.place, call.run)
    try:
        task = rebuild(call.tasks, STAGES)
    except TdcompressError as error:
        raise TdcompressError(f"{error}; install the same version on all nodes") from None
    if isinstance(task.settings, bench.Settings) and task.settings.host != (here := read_host().id):
        raise UserError(f"the machine is {here} now, and was {task.settings.host} when the run began; run it again")
    device = find_device(call.device)
    torch.set_num_threads(call.threads)
    watcher = _Told(pulse)
    execution = Execution(
        root=call.place,
        device=device,
        watcher=watcher,
        should_stop=pulse.asked,
        waiting=lambda what, seconds: pulse.tell(("waiting", what, seconds)),
    )
    runner = execution.runner(store, {content: Path(place) for content, place in call.places.items()})
    for needed in task.inputs.values():  # they were made before: never here, where they are merely not seen yet
        runner.take(needed, seen(store, needed))
    with blamed(store.root):
        artifact = runner.ensure(task)
    return Reply(seconds=watcher.seconds, record=artifact.record, files=dict(artifact.files))


class Pulse:
    """Tells the driver what is new, and hears from it whether to stop: at the start, and then once a second at most.

    A stage asks whether to stop at least every second or two, and that is when it beats: no thread is needed.

    Args:
        say: see ``Exchange``.
    """

    def __init__(self, say: Exchange) -> None:
        self._say = say
        self._news: list[News] = []
        self._asked: int | None = None
        self._beat = time.monotonic()
        self._exchange()

    def asked(self) -> int | None:
        """The number of the signal by which the driver asks to stop, or None."""
        if self._asked is None and time.monotonic() - self._beat >= BEAT_SECONDS:
            self._exchange()
        return self._asked

    def tell(self, news: News) -> None:
        """Say this with the next beat, but at once that a stage begins; of what is said of progress the last counts."""
        if self._news and self._news[-1][0] == news[0] == "progress":
            self._news.pop()
        self._news.append(news)
        if news[0] == "started" or time.monotonic() - self._beat >= BEAT_SECONDS:
            self._exchange()

    def _exchange(self) -> None:
        news, self._news = self._news, []
        asked = self._say(news)
        self._asked = self._asked or asked
        self._beat = time.monotonic()


class _Told:
    """What a runner says of the one stage that is made here."""

    def __init__(self, pulse: Pulse) -> None:
        self.seconds: float | None = None
        self._pulse = pulse

    def started(self, task: Task) -> "_Told":
        self._pulse.tell(("started",))
        return self

    def update(self, done: float, total: float, text: str) -> None:
        self._pulse.tell(("progress", done, total, text))

    def finished(self, task: Task, artifact: Artifact, seconds: float) -> None:
        self.seconds = seconds

    def reused(self, task: Task, artifact: Artifact) -> None:
        pass  # the driver knows

    def left(self, task: Task) -> None:
        pass  # the reply says so
