"""Tasks that depend on one another, each made once and kept. Knows no torch.

A ``Task`` is one stage with its settings and its inputs. Its key is the hash of just these, and just these are what the stage
gets. So a task that is done is never done again. A changed setting redoes only what depends on it, and one training feeds many
prunings.
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tdcompress.artifacts import SCRATCH, Artifact, canonical, content_key
from tdcompress.codec import encode
from tdcompress.errors import BusyError, InterruptedRun, LostError, TrainingError, VerificationError
from tdcompress.files import write_text
from tdcompress.limits import available_cores
from tdcompress.processor import Processor, read_processor
from tdcompress.stores.store import Store

TASK = "task.json"  # in the scratch of an unfinished folder: what its key is a hash of

S = TypeVar("S")
T = TypeVar("T")
Waiting = Callable[[str, float], None]

_LOOK_AGAIN_SECONDS = 1.0


class Progress(Protocol):
    """Where a running stage says how far it is."""

    def update(self, done: float, total: float, text: str) -> None:
        """Say how far the stage is.

        Args:
            done: of ``total`` steps.
            total: steps of the stage, in any unit.
            text: what can be read beside the bar.
        """


@dataclass(frozen=True, kw_only=True)
class Machine:
    """All that a stage may use and no key hashes: what it runs on, and where things lie that keys know by content.

    Attributes:
        device: "cpu" or "cuda". By it and the next two a training settles its precision and threads where its settings leave
            them open.
        processor: of this machine.
        cores: that this process may use.
        places: hash of a data set's content -> its root folder; sha256 of a file of initial weights -> the file.
    """

    device: str = "cpu"
    processor: Processor = field(default_factory=read_processor)
    cores: int = field(default_factory=available_cores)
    places: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """What a stage gets to work with, besides its settings.

    Attributes:
        folder: where it writes its files; unfinished work of a killed run is still in it.
        inputs: the artefacts it depends on, by role; in the order of the roles' names, since keys know no other.
        machine: what no key hashes.
        progress: for anything over two seconds.
        should_stop: the number of a signal that asks the process to end, or None; asked at least every second or two.
    """

    folder: Path
    inputs: Mapping[str, Artifact]
    machine: Machine
    progress: Progress
    should_stop: Callable[[], int | None] = lambda: None

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", dict(sorted(self.inputs.items())))

    def stop_if_asked(self) -> None:
        """Leave the stage when a signal asks for it; what it wrote so far is unfinished and is made again.

        Raises:
            InterruptedRun: a signal arrived.
        """
        stop_if_asked(self.should_stop)


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[S]):
    """One kind of work.

    Attributes:
        name: the folder below ``stages/``.
        version: raised when the stage's code changes what it makes.
        settings: the type of its settings.
        run: makes the files and returns the record.
        record: the type of the record. One of another shape is an older version's: what has it is made again.
        joint: where several processes share a run, all of them run this stage on the same folder, and the first one writes; other
            stages are the first one's alone.
    """

    name: str
    version: int
    settings: type[S]
    run: Callable[[S, Workspace], Any]
    record: Any = Any
    joint: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One stage to be run with certain settings on certain inputs.

    Attributes:
        stage: what is done.
        settings: all that the result depends on besides the inputs, of the stage's own type: hashed, and handed to the stage.
        inputs: tasks that come first, by role.
        title: what people read: "train targeted(gamma=0.75, alpha=0.66)".

    Raises:
        TypeError: settings of another type than the stage's.
    """

    stage: Stage[Any]
    settings: Any
    inputs: Mapping[str, "Task"] = field(default_factory=dict)
    title: str

    def __post_init__(self) -> None:
        if type(self.settings) is not self.stage.settings:
            raise TypeError(f"stage {self.stage.name}: settings of type {type(self.settings).__name__} are another stage's")

    @property
    def identity(self) -> dict[str, Any]:
        """All that the key is a hash of, as JSON."""
        return {
            "stage": self.stage.name,
            "version": self.stage.version,
            "settings": encode(self.settings),
            "inputs": {role: task.key for role, task in self.inputs.items()},
        }

    @cached_property
    def key(self) -> str:
        """Content key (design: Stages on disk)."""
        return content_key(self.identity)

    @property
    def name(self) -> str:
        """Title and key: of a sweep's trainings some may have one title."""
        return f"{self.title} ({self.key})"


class Crew(Protocol):
    """The other processes of a run."""

    def call(self, task: Task, folder: Path, inputs: Mapping[str, Artifact], places: Mapping[str, Path]) -> None:
        """Ask them to make a joint stage too, now.

        Args:
            task: what this process is about to make.
            folder: its unfinished folder.
            inputs: what it is made from.
            places: see ``Machine``.
        """


class Watcher(Protocol):
    """Who is told about the stages of a run."""

    def started(self, task: Task) -> Progress:
        """A stage begins; returns where its progress goes."""

    def finished(self, task: Task, artifact: Artifact, seconds: float) -> None:
        """A stage was made.

        Args:
            task: the stage, its settings and inputs.
            artifact: what it made.
            seconds: that it took.
        """

    def reused(self, task: Task, artifact: Artifact) -> None:
        """A stage was there already."""

    def left(self, task: Task) -> None:
        """A stage ended without a result: it failed, or was stopped."""


@dataclass(kw_only=True)
class Runner:
    """Makes tasks, inputs first, and remembers within one run what it has made or found.

    Threads may make tasks at the same time if these share no task that is still to be made.

    Attributes:
        store: where artefacts are kept.
        watcher: told about each stage.
        facts: versions and host, written into each manifest.
        machine: see ``Machine``.
        should_stop: see ``Workspace``.
        crew: the other processes; None = this one is alone.
        waiting: told while another process makes what is needed here; None = that is an error.
    """

    store: Store
    watcher: Watcher
    facts: Mapping[str, Any]
    machine: Machine = field(default_factory=Machine)
    should_stop: Callable[[], int | None] = lambda: None
    crew: Crew | None = None
    waiting: Waiting | None = None
    _done: dict[str, Artifact] = field(default_factory=dict)
    _made: list[str] = field(default_factory=list)

    @property
    def made(self) -> int:
        """Number of stages that had to be made."""
        return len(self._made)

    def ensure(self, task: Task) -> Artifact:
        """The task's artefact: found if it is there and whole, made otherwise.

        Raises:
            BusyError: another process makes it, or took it over, and ``waiting`` is None.
            InterruptedRun: a signal arrived before it began, or while it was waited for.
        """
        return self.find(task) or self._make_or_wait(task)

    def find(self, task: Task) -> Artifact | None:
        """The task's artefact if it is there and whole, or None."""
        if task.key not in self._done:
            found = self.store.find_or_set_aside(task.stage.name, task.key, task.stage.record)
            if found is None:
                return None
            self.take(task, found)
        return self._done[task.key]

    def take(self, task: Task, artifact: Artifact, seconds: float | None = None) -> None:
        """Note what a task came to, wherever it was made.

        Args:
            task: the stage, its settings and inputs.
            artifact: what it made.
            seconds: that it took just now; None = it was there already.
        """
        self._done[task.key] = artifact
        if seconds is None:
            self.watcher.reused(task, artifact)
        else:
            self._made.append(task.key)
            self.watcher.finished(task, artifact, seconds)

    def _make_or_wait(self, task: Task) -> Artifact:
        while True:
            try:
                return self._make(task)
            except LostError:
                if self.waiting is None:
                    raise

    def _make(self, task: Task) -> Artifact:
        inputs = {role: self.ensure(needed) for role, needed in task.inputs.items()}
        stop_if_asked(self.should_stop)
        stage = task.stage
        with when_free(lambda: self.store.partial(stage.name, task.key), self.waiting, self.should_stop) as folder:
            # another process may have made it in the meantime
            found = self.store.find_or_set_aside(stage.name, task.key, stage.record)
            if found is not None:
                self.take(task, found)
                return found
            write_text(folder / SCRATCH / TASK, canonical(task.identity))
            progress = self.watcher.started(task)
            start = time.monotonic()
            workspace = Workspace(
                folder=folder,
                inputs=inputs,
                machine=self.machine,
                progress=progress,
                should_stop=lambda: self.should_stop() if self.store.holds(stage.name, task.key) else signal.SIGTERM,
            )
            try:
                if stage.joint and self.crew is not None:
                    self.crew.call(task, folder, inputs, self.machine.places)
                with named_failures(task.name):
                    record = stage.run(task.settings, workspace)
                artifact = self.store.publish(stage.name, task.key, folder, record, {**task.identity, **self.facts})
            except BaseException as error:
                self.watcher.left(task)
                if isinstance(error, InterruptedRun) and not self.store.holds(stage.name, task.key):
                    raise LostError(f"{task.title}: another process took it over; run the same command again") from None
                raise
            self.take(task, artifact, time.monotonic() - start)
            return artifact


@contextmanager
def named_failures(name: str) -> Iterator[None]:
    """Say which of a run's many stages cannot go on, or failed its own checks, where the block raises that.

    Args:
        name: see ``Task``.
    """
    try:
        yield
    except (TrainingError, VerificationError) as error:
        raise type(error)(f"{name}: {error}") from error


@contextmanager
def when_free(
    own: Callable[[], AbstractContextManager[T]], waiting: Waiting | None, should_stop: Callable[[], int | None]
) -> Iterator[T]:
    """Own what another process may have: at once, or when that is done with it.

    Args:
        own: a new attempt to own it.
        waiting: told each second who has it, and for how many seconds it has been waited for; None = not waited for.
        should_stop: see ``Workspace``.

    Raises:
        BusyError: another process has it, and ``waiting`` is None.
        InterruptedRun: a signal arrived.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        while True:
            try:
                owned = stack.enter_context(own())
                break
            except BusyError as busy:
                if waiting is None:
                    raise
                waiting(str(busy).partition(";")[0], time.monotonic() - began)
            stop_if_asked(should_stop)
            time.sleep(_LOOK_AGAIN_SECONDS)
        yield owned


def stop_if_asked(should_stop: Callable[[], int | None]) -> None:
    """End here when a signal asks for it.

    Args:
        should_stop: see ``Workspace``.

    Raises:
        InterruptedRun: a signal arrived.
    """
    signal_number = should_stop()
    if signal_number is not None:
        raise InterruptedRun("stopped; what was finished is kept: run the same command again to go on", signal_number)
