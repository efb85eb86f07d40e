"""Files that a kill cannot leave half-written: write beside, flush, fsync, rename, fsync the folder. And their hashes."""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from tdcompress.errors import UserError, naming

StrPath = str | os.PathLike[str]
"""What every public function takes for a path."""


def cache_folder() -> Path:
    """What can be made or fetched again: `$TDCOMPRESS_CACHE`, else the platform's cache folder for the user.

    Raises:
        UserError: the user has no home, as in a container that runs under a number.
    """
    if chosen := os.environ.get("TDCOMPRESS_CACHE"):
        return Path(chosen)
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "tdcompress"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tdcompress"
    except RuntimeError:
        raise UserError("this user has no home folder for what is cached; set TDCOMPRESS_CACHE to a folder") from None


def fsync_folder(folder: Path) -> None:
    """Make a rename in this folder durable, where the system opens folders; on Windows its file system sees to that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make a file's content durable. It is opened for writing: Windows makes no other durable."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def in_the_way(path: Path) -> str | None:
    """What stands where a file is to be written and must not be replaced, in words; None where a file can stand there.

    A link is replaced itself, and what it leads to stays; but a link to a device, such as /dev/stdout, is refused as one.
    """
    if path.is_dir():
        return "is a folder; name the file to write"
    if path.exists() and not path.is_file():
        return "is a device, a pipe or a socket; name an ordinary file to write"
    return None


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; what is written there becomes ``path`` at the end, and nothing if the block fails.

    Raises:
        UserError: the path is a folder, a device, a pipe or a socket, or no file can be made there.
        OSError: what the block raises; where that says of no file, of the path.
    """
    if taken := in_the_way(path):
        raise UserError(f"{path}: {taken}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        with naming(path):
            yield temporary
            temporary.chmod(0o644)
            fsync_file(temporary)
            temporary.replace(path)
            fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def set_aside(folder: Path) -> Path:
    """Where the old folder is while `take_place` puts a new one in its place."""
    return folder.with_name(f".{folder.name}.old")


def take_place(new: Path, folder: Path, replaced: Callable[[Path], Collection[str]]) -> None:
    """Put a new folder in the place of an old one, if there is one; killed at any moment, nothing is lost that was in either.

    What the new one does not replace (a comparison, somebody's notes) is taken over. A link to a folder is replaced itself: what
    it leads to stays as it is, and what is taken over of it are links.

    Args:
        new: beside ``folder``.
        folder: whose place it takes.
        replaced: an old folder -> names of files in it that go with it.
    """
    old = set_aside(folder)
    fsync_folder(new)
    if folder.exists():
        _take_over(old, folder, replaced)  # what a process that was killed below left
        folder.rename(old)
    new.rename(folder)
    fsync_folder(folder.parent)
    _take_over(old, folder, replaced)


def _take_over(old: Path, folder: Path, replaced: Callable[[Path], Collection[str]]) -> None:
    if not old.exists():
        return
    going, linked = replaced(old), old.is_symlink()
    for path in old.iterdir():
        if path.name not in going and not (folder / path.name).exists():
            if linked:
                (folder / path.name).symlink_to(path.resolve())
            else:
                path.rename(folder / path.name)
    if linked:
        old.unlink()
    else:
        shutil.rmtree(old)


def second_name(path: Path, name: Path) -> None:
    """Give a file another name too, for those who replace files and never change them; where that cannot be it is a copy."""
    try:
        name.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, name)


def is_there(path: Path) -> bool:
    """Whether anything has this path: a file, a folder, or a link, wherever that leads."""
    return os.path.lexists(path)


def remove(path: Path) -> None:
    """Remove what has this path, if anything does: a file, a folder with all that is in it, or a link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Publish a file's content at once."""
    with published(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Publish a text, as UTF-8."""
    write_bytes(path, text.encode())


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
