"""Tasks that depend on one another, each made once and kept. Knows no torch.

A ``Task`` is one stage with its settings, its inputs and the work that makes it. Its key is a hash of everything the result
depends on, so a task that is done is never done again, a changed setting redoes only what depends on it, and one training feeds
many prunings.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from tdcompress.artifacts import Artifact, Store, content_key
from tdcompress.codec import encode
from tdcompress.errors import InterruptedRun


class Progress(Protocol):
    """Where a running stage says how far it is."""

    def update(self, done: float, total: float, text: str) -> None:
        """``done`` of ``total`` steps, and what can be read beside the bar."""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """What a stage gets to work with.

    Attributes:
        folder: where it writes its files; unfinished work of a killed run is still in it.
        inputs: the artefacts it depends on, by role.
        progress: for anything over two seconds.
        should_stop: the number of a signal that asks the process to end, or None; asked at least every second or two.
    """

    folder: Path
    inputs: Mapping[str, Artifact]
    progress: Progress
    should_stop: Callable[[], int | None] = lambda: None

    def stop_if_asked(self) -> None:
        """Leave the stage when a signal asks for it; what it wrote so far is unfinished and is made again.

        Raises:
            InterruptedRun: a signal arrived.
        """
        signal_number = self.should_stop()
        if signal_number is not None:
            raise InterruptedRun("stopped; what was finished is kept: run the same command again to go on", signal_number)


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One stage to be run with certain settings on certain inputs.

    Attributes:
        stage: the stage's name: the folder below ``stages/``.
        version: raised when the stage's code changes what it makes.
        settings: all that the result depends on besides the inputs: resolved settings with defaults, the seed, the data's hash.
        inputs: tasks that come first, by role.
        work: makes the files and returns the record.
        title: what people read: "train targeted(gamma=0.75, alpha=0.66)".
    """

    stage: str
    version: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, "Task"] = field(default_factory=dict)
    work: Callable[[Workspace], Any]
    title: str

    @cached_property
    def key(self) -> str:
        """Content key (design: Stages on disk)."""
        return content_key(
            {
                "stage": self.stage,
                "version": self.version,
                "settings": encode(self.settings),
                "inputs": {role: task.key for role, task in self.inputs.items()},
            }
        )


class Watcher(Protocol):
    """Who is told about the stages of a run."""

    def started(self, task: Task) -> Progress:
        """A stage begins; returns where its progress goes."""

    def finished(self, task: Task, artifact: Artifact, seconds: float) -> None:
        """A stage was made."""

    def reused(self, task: Task, artifact: Artifact) -> None:
        """A stage was there already."""


@dataclass(kw_only=True)
class Runner:
    """Makes tasks, inputs first, and remembers within one run what it has made or found.

    Attributes:
        store: where artefacts are kept.
        watcher: told about each stage.
        facts: versions and host, written into each manifest.
        should_stop: see ``Workspace``.
        made: number of stages that had to be made.
    """

    store: Store
    watcher: Watcher
    facts: Mapping[str, Any]
    should_stop: Callable[[], int | None] = lambda: None
    made: int = 0
    _done: dict[str, Artifact] = field(default_factory=dict)

    def ensure(self, task: Task) -> Artifact:
        """The task's artefact: found if it is there and whole, made otherwise."""
        if task.key not in self._done:
            found = self.store.find(task.stage, task.key)
            if found is not None:
                self.watcher.reused(task, found)
            self._done[task.key] = found or self._make(task)
        return self._done[task.key]

    def _make(self, task: Task) -> Artifact:
        inputs = {role: self.ensure(needed) for role, needed in task.inputs.items()}
        with self.store.partial(task.stage, task.key) as folder:
            found = self.store.find(task.stage, task.key)  # another process may have made it while this one waited
            if found is not None:
                return found
            progress = self.watcher.started(task)
            start = time.monotonic()
            workspace = Workspace(folder=folder, inputs=inputs, progress=progress, should_stop=self.should_stop)
            workspace.stop_if_asked()
            record = task.work(workspace)
            description = {
                "version": task.version,
                "settings": task.settings,
                "inputs": {role: needed.key for role, needed in task.inputs.items()},
                **self.facts,
            }
            artifact = self.store.publish(task.stage, task.key, folder, record, description)
            self.made += 1
            self.watcher.finished(task, artifact, time.monotonic() - start)
            return artifact
