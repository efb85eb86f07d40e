"""What a data set is to all that do not look into it: settings that know how to load it, and a hash of its content."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self

from tdcompress.errors import DataError
from tdcompress.files import sha256_file

HashFile = Callable[[Path], str]


class Dataset(Protocol):
    """A loaded data set; what else it holds, its task knows (`tdcompress.tasks`)."""

    @property
    def name(self) -> str:
        """The name that a recipe gives it."""


@dataclass(frozen=True, kw_only=True)
class DataSettings(ABC):
    """A data set's keys in a recipe's [data] table, and how it is loaded. The registry maps names to subclasses.

    Attributes:
        name: as a recipe has it.
        task: what is learnt from it, a name of `tdcompress.tasks.registry`.
    """

    name: ClassVar[str]
    task: ClassVar[str]

    def __post_init__(self) -> None:  # noqa: B027 — what subclasses call by super()
        """Keys are checked here; a subclass that checks its own calls this too."""

    @abstractmethod
    def load(self) -> Dataset:
        """The whole data set, checked; or what reads and checks each part of it where it is asked for.

        Raises:
            DataError: missing, truncated, damaged or mislabelled data; says where, and where to get it.
        """

    @abstractmethod
    def content_hash(self, hash_file: HashFile | None = None) -> str:
        """A sha256 over all data that ``load`` reads: the same data, the same hash, wherever it lies.

        Args:
            hash_file: path -> sha256 in hex, for a caller that remembers hashes; None hashes each file anew.
        """

    def for_preparing(self) -> Self:
        """The settings of what is read to prepare it for trainings: keys that this does not use are at their defaults."""
        return self

    def stored(self) -> Self:
        """The settings of what is held in memory, which those share that differ in what `finished` does alone."""
        return self

    def finished(self, loaded: Dataset) -> Dataset:
        """What ``load`` gives, from what ``stored().load()`` gave."""
        return loaded


def check_root(root: str) -> None:
    """Refuse what can be no folder of data.

    Args:
        root: as a recipe has it; ~ stands for a home.

    Raises:
        ValueError: it is empty, or in the home of somebody who has none here; the message names the key.
    """
    if not root:
        raise ValueError("root: the folder that holds the data, not empty")
    try:
        Path(root).expanduser()
    except RuntimeError:
        raise ValueError(f"root: {root!r} begins with a home that is not known here; give the folder's whole path") from None


@dataclass(frozen=True, kw_only=True)
class FileDataSettings(DataSettings):
    """Keys of a data set that lies in files.

    Attributes:
        root: the folder that holds the data; of image sets with a name their own folder, as torchvision lays it out.
        download: fetch what is missing with torchvision's downloader.
    """

    root: str = "data"
    download: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_root(self.root)

    @abstractmethod
    def fetched_files(self) -> list[Path]:
        """Every file that ``load`` reads, in a fixed order; fetched first where that is asked for.

        Raises:
            DataError: a file that is missing.
        """

    def content_hash(self, hash_file: HashFile | None = None) -> str:  # noqa: D102
        digest = hashlib.sha256()
        root = self.root_folder()
        for path in self.fetched_files():
            line = f"{path.relative_to(root).as_posix()}\0{(hash_file or sha256_file)(path)}\n"
            digest.update(line.encode())
        return digest.hexdigest()

    def root_folder(self) -> Path:
        """``root`` as a path, with ~ expanded."""
        return Path(self.root).expanduser()

    def missing(self, title: str, path: Path, layout: str, url: str, form: str = "unpacked") -> DataError:
        """What is said of a published data set's file that is not there.

        Args:
            title: the set's name for people.
            path: the file.
            layout: the folder that ``root`` has to hold.
            url: where it comes from.
            form: in which it is read.
        """
        return DataError(
            f"{title}: {path} is missing; set data.root to the folder that holds {layout}/, or data.download = true to fetch it, "
            f"or put {url} there, {form}"
        )
