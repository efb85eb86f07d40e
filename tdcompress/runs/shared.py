"""Whether a machine sees the driver's artifacts folder, and its locks: by a file there that the driver holds."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tdcompress.artifacts import Artifact, Store
from tdcompress.errors import ArtifactError, UserError
from tdcompress.locks import hold, holder
from tdcompress.pipeline import Task

SEEN_SECONDS = 90.0  # network file systems show new files late: NFS after up to a minute


@contextmanager
def token(root: Path) -> Iterator[Path]:
    """A new file below ``root`` that this process holds while the block runs."""
    path = root / ".locks" / f"cluster-{uuid.uuid4().hex}"
    with hold(path, str(path)):
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def require_shared(root: Path, held: Path, node: str, patience: float = SEEN_SECONDS) -> None:
    """Check that this machine sees the folder of the driver, and that locks reach from one machine to the other.

    Args:
        root: the artifacts folder.
        held: what the driver's ``token`` gave.
        node: what this machine is called.
        patience: seconds to wait for a file that others just wrote.

    Raises:
        UserError: it does not see the folder, or not its locks.
    """
    # A folder that is not there at all will not come; a fresh file in one that is there may.
    if not root.is_dir() or not appears(held.is_file, patience):
        said = f"node {node} does not see the artifacts folder {root} of this run"
        raise UserError(f"{said}: it has to be on a file system that all nodes share, at the same path")
    if holder(held) is None:
        said = f"node {node} does not see the locks in {root}"
        raise UserError(f"{said}: mount that file system with locks that reach all machines (NFS 4, or Lustre with -o flock)")


def seen(store: Store, task: Task, node: str, patience: float = SEEN_SECONDS) -> Artifact:
    """The artefact of a task that another machine has published.

    Args:
        store: this machine's.
        task: what was made.
        node: what this machine is called.
        patience: seconds to wait for it.

    Raises:
        ArtifactError: it is not there, or damaged.
    """
    found: list[Artifact] = []

    def look() -> bool:
        artifact = store.find_or_set_aside(task.stage.name, task.key)
        found.extend([artifact] if artifact is not None else [])
        return bool(found)

    if not appears(look, patience):
        folder = store.folder(task.stage.name, task.key)
        raise ArtifactError(f"{folder}: missing or damaged on node {node}, though another made it; run the same command again")
    return found[0]


def appears(there: Callable[[], bool], patience: float) -> bool:
    """Whether something is there, or comes within ``patience`` seconds."""
    end = time.monotonic() + patience
    while not there():
        if time.monotonic() >= end:
            return False
        time.sleep(0.5)
    return True
