"""One file as numbered parts of a largest size, and back: ``NAME.000.tdca``, ``NAME.001.tdca``, ...

A part is a zip archive, not compressed, with two members: ``part.json`` says which part of which whole it is, ``content`` is that
part's bytes. The whole is named by its sha256.
"""

import hashlib
import json
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tdcompress.codec import VERSION, FormatError, decode_json, encode
from tdcompress.errors import ArtifactError, UserError
from tdcompress.files import published, sha256_file

FORMAT = 1
SUFFIX = ".tdca"
OVERHEAD = 1024  # bytes of a part at most that are not content
_LABEL, _CONTENT = "part.json", "content"
_CHUNK_BYTES = 1 << 20
ANOTHER = "export and import with the same version of tdcompress"
# what reading a damaged archive raises, besides errors of ours
UNREADABLE = (zipfile.BadZipFile, struct.error, RuntimeError, ValueError, KeyError, EOFError, OSError)


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a part says of itself.

    Attributes:
        format: of this file.
        whole: sha256 of all parts' content together.
        part: its number, from 0.
        parts: how many there are.
        bytes: of its content.
        sha256: of its content.
    """

    format: int = field(default=FORMAT, metadata=VERSION)
    whole: str
    part: int
    parts: int
    bytes: int
    sha256: str


def write_parts(source: Path, target: Path, part_bytes: int) -> list[Path]:
    """Cut a file into parts.

    Args:
        source: the file.
        target: the parts are ``target`` with .000.tdca, .001.tdca, ... appended.
        part_bytes: the most that one of them may have, above ``OVERHEAD``.

    Raises:
        UserError: parts of that name are there already, or would be too many.
    """
    room = part_bytes - OVERHEAD
    count = max(1, -(-source.stat().st_size // room))
    if count > 1000:
        raise UserError(f"{count} parts are needed, 1,000 are the most: raise --part-size")
    there = sorted(target.parent.glob(f"{target.name}.*{SUFFIX}"))
    if there:
        raise UserError(f"{there[0]} is there already; remove it, or name another place with --to")
    whole = sha256_file(source)
    written = []
    with source.open("rb") as file:
        for number in range(count):
            content = file.read(room)
            digest = hashlib.sha256(content).hexdigest()
            label = Label(whole=whole, part=number, parts=count, bytes=len(content), sha256=digest)
            path = target.with_name(f"{target.name}.{number:03d}{SUFFIX}")
            with published(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(_LABEL, json.dumps(encode(label)))
                archive.writestr(_CONTENT, content)
            written.append(path)
    return written


def group_parts(paths: Sequence[Path]) -> list[list[Path]]:
    """The parts of each whole in their order, as far as their labels tell.

    Raises:
        ArtifactError: a file that is no part, a part that is missing, or two that contradict each other.
    """
    found: dict[str, dict[int, tuple[Path, Label]]] = {}
    for path in paths:
        label = read_label(path)
        twin = found.setdefault(label.whole, {}).setdefault(label.part, (path, label))
        if twin[1] != label:
            raise ArtifactError(f"{path} and {twin[0]} both say that they are part {label.part} of one export, and differ")
    for parts in found.values():
        path, label = next(iter(parts.values()))
        missing = [str(number) for number in range(label.parts) if number not in parts]
        if missing or any(other.parts != label.parts for _, other in parts.values()):
            raise ArtifactError(
                f"{path} is part {label.part} of {label.parts} (counted from 0), and part {', '.join(missing)} is not among the "
                "files that were named; name all of one export"
            )
    return [[parts[number][0] for number in sorted(parts)] for parts in found.values()]


def join_parts(paths: Sequence[Path], target: Path) -> None:
    """Write the whole that parts are cut from.

    Args:
        paths: one group of `group_parts`.
        target: gets the whole.

    Raises:
        ArtifactError: a part whose sha256 is not its label's, or a whole whose sha256 is not that of its name.
    """
    whole = hashlib.sha256()
    with target.open("wb") as file:
        for path in paths:
            label = read_label(path)
            digest, size = hashlib.sha256(), 0
            for chunk in _content(path):
                digest.update(chunk)
                whole.update(chunk)
                size += len(chunk)
                file.write(chunk)
            if (size, digest.hexdigest()) != (label.bytes, label.sha256):
                raise ArtifactError(f"{path}: is damaged (its sha256 is not what it was written with); copy it again")
    if whole.hexdigest() != label.whole:
        raise ArtifactError(f"{paths[0]} and the parts after it are not of one export; copy them again")


def read_label(path: Path) -> Label:
    """What a part says of itself.

    Raises:
        UserError: no such file.
        ArtifactError: not a part, or one of another format.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with _opened(path, _LABEL, at_most=OVERHEAD) as file:
            label = decode_json(Label, file.read())
    except FormatError as error:
        raise ArtifactError(f"{path}: {error}; {ANOTHER}") from None
    except UNREADABLE as error:
        raise ArtifactError(f"{path}: is damaged, or not from `tdcompress artifacts export` ({error})") from None
    if not 0 <= label.part < label.parts <= 1000:
        raise ArtifactError(f"{path}: says that it is part {label.part} of {label.parts}")
    return label


def _content(path: Path) -> Iterator[bytes]:
    try:
        with _opened(path, _CONTENT, at_most=path.stat().st_size) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except UNREADABLE as error:
        raise ArtifactError(f"{path}: is damaged ({error}); copy it again") from None


def _opened(path: Path, member: str, at_most: int) -> IO[bytes]:
    """A member of a part; the file closes with it."""
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    if [info.filename for info in members] != [_LABEL, _CONTENT]:
        raise ValueError("it does not have the two members of a part")
    info = archive.getinfo(member)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > at_most:
        raise ValueError("a member that is compressed or too large")
    return archive.open(info)
