"""Whether a machine sees the driver's store, and its claims: the driver owns the run there, so nobody else may. Knows no Ray."""

import time
from pathlib import Path

from tdcompress.artifacts import Artifact
from tdcompress.errors import ArtifactError, BusyError, StoreError, UserError
from tdcompress.pipeline import Task
from tdcompress.runs.unfinished import claim_run
from tdcompress.stores.place import is_url, open_store
from tdcompress.stores.store import Store

_FOLDER = "the folder has to be on a file system that all nodes share, at the same path, with locks that reach all of them"
_OBJECTS = "Ray has to be started there with the same server and credentials"
SEEN_SECONDS = 90.0  # network file systems show new files late: NFS after up to a minute
_LOOK_AGAIN_SECONDS = 0.5


def sighted(place: str, run: str) -> Store:
    """The driver's store, once it is known that this machine sees it, and that claims reach from one machine to the other.

    Args:
        place: a folder, absolute, or an URL.
        run: the name of the run, which the driver has claimed there.

    Raises:
        UserError: it does not see the store; or it could have the run too, so it is another one, or claims do not reach.
    """
    said = f"the store {place} of this run is not seen here"
    advice = _OBJECTS if is_url(place) else _FOLDER
    if not is_url(place) and not Path(place).is_dir():
        raise UserError(f"{said}: {advice}")
    try:
        store = open_store(place)
        with claim_run(store, run):
            problem = ", or its locks are not"
    except BusyError:
        return store
    except (StoreError, UserError) as error:
        problem = f" ({error})"
    raise UserError(f"{said}{problem}: {advice}")


def seen(store: Store, task: Task, patience: float = SEEN_SECONDS) -> Artifact:
    """The artefact of a task that another machine has published.

    Args:
        store: this machine's.
        task: what was made.
        patience: seconds to wait for it.

    Raises:
        ArtifactError: it is not there, or damaged.
    """
    end = time.monotonic() + patience
    while (found := store.find_or_set_aside(task.stage.name, task.key, task.stage.record)) is None:
        if time.monotonic() >= end:
            said = f"{task.title} ({task.key}): missing or damaged on this machine, though another made it"
            raise ArtifactError(f"{said}; run the same command again")
        time.sleep(_LOOK_AGAIN_SECONDS)
    return found
