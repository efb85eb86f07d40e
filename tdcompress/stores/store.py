"""What every store of artefacts does; `tdcompress.stores.folder` and `tdcompress.stores.objects` are the two that do it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from tdcompress.artifacts import Artifact, HashMemory


class Store(Protocol):
    """Artefacts by stage and key: made by one process at a time, published whole or not at all, and never changed in place."""

    @property
    def root(self) -> Path:
        """A folder of this machine: the files of artefacts, unfinished stages and runs lie below it."""

    @property
    def hashes(self) -> HashMemory:
        """Remembers what files of this machine hash to."""

    def exists(self, stage: str, key: str) -> bool:
        """Whether it is published; its files are not looked at."""

    def keys(self, stage: str) -> list[str]:
        """The keys that are published of a stage, sorted; their files are not looked at."""

    def find_or_set_aside(self, stage: str, key: str, record: Any = Any) -> Artifact | None:
        """The artefact, if it is there and whole; a damaged one is set aside, so that it is made again, and a warning says so.

        Args:
            stage: the stage's name.
            key: the content key.
            record: the type of its record; a record of another shape is set aside as damage is.
        """

    def partial(self, stage: str, key: str) -> AbstractContextManager[Path]:
        """The unfinished folder of a key, owned by this process alone; what a lost or interrupted one saved is in it.

        Raises:
            BusyError: another living process is making it.
        """

    def holds(self, stage: str, key: str) -> bool:
        """Whether what ``partial`` gave is still this process's; asked at every step, so it costs nothing."""

    def publish(self, stage: str, key: str, partial: Path, record: Any, description: Mapping[str, Any]) -> Artifact:
        """Turn an unfinished folder into an artefact. Of several that publish one key the first wins, and all get what it made.

        Args:
            stage: the stage's name.
            key: the content key.
            partial: the folder that ``partial`` gave.
            record: the stage's result, a record.
            description: what else the manifest says: ``IDENTITY``, versions, host.

        Raises:
            LostError: it is not this process's any more.
        """

    def claim(self, name: str, what: str) -> AbstractContextManager[None]:
        """Own a name, of a run for example, while the block runs; a dead owner's is taken over.

        Args:
            name: a file name.
            what: what is owned, for the message.

        Raises:
            BusyError: another living process owns it; the message says which.
        """

    def runs(self) -> list[str]:
        """The names of the runs whose folders are kept elsewhere than below ``root``."""

    def bring_run(self, name: str) -> None:
        """See to it that ``root/name`` is the run's folder as it is kept, if it is kept at all."""

    def keep_run(self, name: str) -> None:
        """Keep the run's folder ``root/name`` as it is now, its manifest last; the caller has claimed the run."""
