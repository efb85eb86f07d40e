"""Artefacts in a folder: published by a rename, owned by lock files that the system frees when their owner dies.

An artefact is made as ``root/stages/<stage>/<key>.partial/`` and renamed to ``<key>/``: a folder that is there is whole.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tdcompress.artifacts import KEY, REBUILD, Artifact, HashMemory, load_artifact, read_artifact, seal
from tdcompress.errors import ArtifactError
from tdcompress.files import fsync_folder, is_there, remove
from tdcompress.locks import hold

_log = logging.getLogger(__name__)


class FolderStore:
    """The artefacts below one root folder, as `tdcompress.stores.store.Store`.

    Args:
        root: ``artifacts/`` in the design; made if it is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hashes = HashMemory(root / ".hashes.json")

    def folder(self, stage: str, key: str) -> Path:
        """Where the artefact of this key lies, or would lie."""
        return self.root / "stages" / stage / key

    def exists(self, stage: str, key: str) -> bool:
        """Whether it is published; its files are not looked at."""
        return self.folder(stage, key).is_dir()

    def keys(self, stage: str) -> list[str]:
        """The keys that are published of a stage, sorted; their files are not looked at."""
        return sorted(path.name for path in self.folder(stage, "").glob("*") if path.is_dir() and KEY.fullmatch(path.name))

    def find_or_set_aside(self, stage: str, key: str, record: Any = Any) -> Artifact | None:
        """See `Store.find_or_set_aside`.

        A folder whose manifest does not verify is renamed to ``<key>.damaged``, as is what is no folder; nothing is lost and
        nothing is trusted.
        """
        folder = self.folder(stage, key)
        if not folder.is_dir():
            _clear(folder)
            return None
        try:
            artifact = load_artifact(folder, self.hashes.sha256)
            artifact.recorded(record)
        except ArtifactError as error:
            aside = self.set_aside(stage, key)
            _log.warning("%s; it is kept as %s", str(error).replace(REBUILD, "it is made again"), aside)
            return None
        return artifact

    def set_aside(self, stage: str, key: str) -> str:
        """Rename the artefact of this key to ``<key>.damaged``, if there is one; returns that name."""
        return _set_aside(self.folder(stage, key))

    @contextmanager
    def partial(self, stage: str, key: str) -> Iterator[Path]:
        """The unfinished folder of a key, held by this process alone; what an interrupted run left there is still there.

        Raises:
            BusyError: another living process is making it.
        """
        with self.claim(f"{stage}-{key}", f"{stage} {key}"):
            folder = self.folder(stage, key).with_name(f"{key}.partial")
            _clear(folder)
            folder.mkdir(parents=True, exist_ok=True)
            yield folder

    def holds(self, stage: str, key: str) -> bool:
        """True: the system frees a lock when its owner is gone, not before."""
        return True

    def publish(self, stage: str, key: str, partial: Path, record: Any, description: Mapping[str, Any]) -> Artifact:
        """See `Store.publish`: scratch is dropped, files are hashed, the manifest is written last, and the folder renamed."""
        seal(partial, stage, key, record, description)
        return self.take_in(stage, key, partial)

    def take_in(self, stage: str, key: str, whole: Path) -> Artifact:
        """Rename a sealed folder to its final name.

        Args:
            stage: the stage's name.
            key: the content key.
            whole: the folder, with a manifest.
        """
        final = self.folder(stage, key)
        whole.rename(final)
        fsync_folder(final.parent)
        return read_artifact(final)

    def claim(self, name: str, what: str) -> AbstractContextManager[None]:
        """Own a name by its lock file; see `tdcompress.locks.hold`."""
        return hold(self.root / ".locks" / name, what)

    def runs(self) -> list[str]:
        """None: all runs lie below the root."""
        return []

    def bring_run(self, name: str) -> None:
        """Nothing to do: it is there."""

    def keep_run(self, name: str) -> None:
        """Nothing to do: it is there."""


def _clear(folder: Path) -> None:
    """Set aside what is in a folder's place and is none: a file, or a link that leads to no folder."""
    if is_there(folder) and not folder.is_dir():
        _log.warning("%s: is no folder; it is kept as %s", folder, _set_aside(folder))


def _set_aside(path: Path) -> str:
    """Rename what has this path, if anything does, to the same name with ``.damaged`` appended; returns that name."""
    damaged = path.with_name(f"{path.name}.damaged")
    if is_there(path):
        remove(damaged)
        path.rename(damaged)
    return damaged.name
