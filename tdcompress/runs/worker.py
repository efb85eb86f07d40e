"""The side of a worker: one stage, made as in a single process, for a driver on another machine. Knows no Ray."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from tdcompress.artifacts import Artifact, Store
from tdcompress.bench.host import read_host
from tdcompress.errors import TdcompressError, UserError
from tdcompress.pipeline import Machine, Runner, Stage, Task
from tdcompress.runs.calls import Call, Problem, Reply, rebuild
from tdcompress.runs.run import facts, find_device
from tdcompress.runs.shared import require_shared, seen
from tdcompress.stages import analyse, bench, export, finetune, prune, shrink, store, train

STAGES: Mapping[str, Stage[Any]] = MappingProxyType(
    {each.STAGE.name: each.STAGE for each in (train, prune, finetune, shrink, store, export, bench, analyse)}
)
"""Every stage by its name."""

News = tuple[Any, ...]
"""("started",), ("progress", done, total, text) or ("waiting", what, seconds)."""
Say = Callable[[Sequence[News]], int | None]
"""Tells the driver what is new; gives the number of the signal by which it asks to stop, or None."""

BEAT_SECONDS = 1.0


def make(call: Call, node: str, say: Say) -> Reply:
    """Make a task; what goes wrong is part of the reply, unless it is a fault of ours.

    Args:
        call: the task.
        node: what this machine is called.
        say: to the driver.
    """
    try:
        return _make(call, node, Pulse(say))
    except TdcompressError as error:
        return Reply(problem=Problem.of(error))
    except OSError as error:  # a full disk, a folder that may not be written
        said = f"{error.filename or 'input or output'}: {error.strerror or error} (on node {node})"
        return Reply(problem=Problem.of(TdcompressError(said)))


def _make(call: Call, node: str, pulse: "Pulse") -> Reply:
    root = Path(call.root)
    require_shared_once(root, Path(call.token), node)
    device = find_device(call.device)
    torch.set_num_threads(call.threads)
    try:
        task = rebuild(call.tasks, STAGES)
    except TdcompressError as error:
        raise TdcompressError(f"node {node}: {error}; install the same version on all nodes") from None
    if isinstance(task.settings, bench.Settings) and task.settings.host != (here := read_host().id):
        raise UserError(f"node {node}: is {here} now, and was {task.settings.host} when the run began; run it again")
    watcher = _Told(pulse)
    runner = Runner(
        store=open_store(root),
        watcher=watcher,
        facts=facts(),
        machine=Machine(device=device, places={content: Path(place) for content, place in call.places.items()}),
        should_stop=pulse.asked,
        waiting=lambda what, seconds: pulse.tell(("waiting", what, seconds)),
    )
    for needed in task.inputs.values():  # they were made before: never here, where they are merely not seen yet
        runner.take(needed, seen(runner.store, needed, node))
    artifact = runner.ensure(task)
    return Reply(seconds=watcher.seconds, record=artifact.record, files=dict(artifact.files))


@functools.cache
def require_shared_once(root: Path, token: Path, node: str) -> None:
    """As ``require_shared``; a worker makes many stages of one run."""
    require_shared(root, token, node)


@functools.cache
def open_store(root: Path) -> Store:
    """The artefacts of a folder; a worker remembers the hashes of what it read."""
    return Store(root)


class Pulse:
    """Tells the driver what is new, and hears from it whether to stop: at the start, and then once a second at most.

    A stage asks whether to stop at least every second or two, and that is when it beats: no thread is needed.

    Args:
        say: see ``Say``.
    """

    def __init__(self, say: Say) -> None:
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
