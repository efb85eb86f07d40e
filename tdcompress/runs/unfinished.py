"""Runs that are not finished: what each set out to make is kept beside its lock until it is done, so that ``status`` can tell.

``root/.locks/run-<name>.json`` is written when a run has been planned and removed when its folder is laid out. What is left is a
run that goes on, or one that was stopped, killed, or ended with an error.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tdcompress.artifacts import KEY, STAGE
from tdcompress.codec import decode_file, encode
from tdcompress.errors import ArtifactError
from tdcompress.files import is_there, write_text
from tdcompress.lineage.versions import is_usable
from tdcompress.locks import holder
from tdcompress.pipeline import Task
from tdcompress.stores.store import Store


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What a run set out to make.

    Attributes:
        run: its name.
        command: what starts it again.
        tasks: (stage, key) of all that it needs.
    """

    run: str
    command: str
    tasks: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        for stage, key in self.tasks:
            if not STAGE.fullmatch(stage) or not KEY.fullmatch(key):
                raise ValueError(f"tasks: {stage!r} {key!r} names no artefact")


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """How far an unfinished run is.

    Attributes:
        done: tasks whose artefact is there, as `tdcompress.lineage.versions.is_usable` has it.
        touched: when anything of it was last written, in seconds since the epoch; None where there is nothing yet.
        owner: the process that works on it now, or None.
        path: the file that says so; without it the run is forgotten, and what it made stays.
    """

    intent: Intent
    done: int
    touched: float | None
    owner: str | None
    path: Path

    @property
    def run(self) -> str:
        """Its name."""
        return self.intent.run


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An unfinished run of which nothing is known but its name: what it set out to make is damaged, or of another version.

    Attributes:
        run: its name, by that of the file.
        owner: as of `Unfinished`.
        path: as of `Unfinished`.
    """

    run: str
    owner: str | None
    path: Path


def run_lock(root: Path, name: str) -> Path:
    """The lock file of a run."""
    return root / ".locks" / _lock_name(name)


def claim_run(store: Store, name: str) -> AbstractContextManager[None]:
    """Own a run while the block runs.

    Raises:
        BusyError: another process does.
    """
    return store.claim(_lock_name(name), f"the run {name}")


@contextmanager
def announced(root: Path, name: str, tasks: Sequence[Task], command: str) -> Iterator[None]:
    """As `announce`, and `forget` when the block is done; a block that fails leaves what is kept."""
    announce(root, name, tasks, command)
    yield
    forget(root, name)


def announce(root: Path, name: str, tasks: Sequence[Task], command: str) -> None:
    """Keep what a run sets out to make, until `forget`.

    Args:
        root: the artifacts folder.
        name: the run's.
        tasks: all whose result it needs; what these need is added.
        command: what starts it again.
    """
    needed = dict.fromkeys((task.stage.name, task.key) for task in _with_inputs(tasks))
    write_text(_intent_path(root, name), json.dumps(encode(Intent(run=name, command=command, tasks=tuple(needed)))))


def forget(root: Path, name: str) -> None:
    """A run is done: what it set out to make is not kept any more."""
    _intent_path(root, name).unlink(missing_ok=True)


def unfinished_runs(root: Path) -> list[Unfinished | Unreadable]:
    """All of an artifacts folder, by name."""
    found: list[Unfinished | Unreadable] = []
    for path in sorted((root / ".locks").glob("run-*.json")):
        try:
            found.append(_unfinished(root, decode_file(Intent, path), path))
        except ArtifactError:
            if is_there(path):  # else it is finished this moment
                run = path.stem.removeprefix(_lock_name(""))
                found.append(Unreadable(run=run, owner=holder(run_lock(root, run)), path=path))
    return found


def _unfinished(root: Path, intent: Intent, path: Path) -> Unfinished:
    folders = [root / "stages" / stage / key for stage, key in intent.tasks]
    done = [folder for folder in folders if is_usable(folder)]
    partial = [folder.with_name(f"{folder.name}.partial") for folder in folders]
    written = [*done, *(file for folder in partial if folder.is_dir() for file in (folder, *folder.rglob("*")))]
    times = [time for file in written if (time := _modified(file)) is not None]
    return Unfinished(
        intent=intent,
        done=len(done),
        touched=max(times, default=None),
        owner=holder(run_lock(root, intent.run)),
        path=path,
    )


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:  # a temporary file that is gone by now
        return None


def _with_inputs(tasks: Sequence[Task]) -> Iterator[Task]:
    for task in tasks:
        yield from _with_inputs(tuple(task.inputs.values()))
        yield task


def _lock_name(name: str) -> str:
    return f"run-{name}"


def _intent_path(root: Path, name: str) -> Path:
    lock = run_lock(root, name)
    return lock.with_name(f"{lock.name}.json")
