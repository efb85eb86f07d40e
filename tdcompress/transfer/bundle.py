"""Several items in one file: a zip archive, not compressed, whose first member lists all others with size and sha256."""

import hashlib
import json
import re
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tdcompress.artifacts import KEY, STAGE
from tdcompress.codec import VERSION, FormatError, decode_json, encode
from tdcompress.errors import ArtifactError
from tdcompress.files import fsync_file
from tdcompress.transfer.items import File, Item
from tdcompress.transfer.parts import ANOTHER, UNREADABLE

FORMAT = 1
LIST = "bundle.json"
_MEMBER_BYTES = 200  # headers of a member at most, besides twice its name
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*){0,5}")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The first member."""

    format: int = field(default=FORMAT, metadata=VERSION)
    items: tuple[Item, ...]


def write_bundle(items: Sequence[Item], root: Path, target: Path) -> None:
    """Pack items.

    Args:
        items: as `read_item` gives them; their folders must not change meanwhile.
        root: the artifacts folder.
        target: gets the archive.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(LIST, json.dumps(encode(Bundle(items=tuple(items)))))
        for item in items:
            for name in item.files:
                archive.write(root / item.folder / name, f"{item.folder}/{name}")


def bundle_bytes(item: Item) -> int:
    """How much larger an item makes a bundle, at most; its lines in the list included."""
    listed = len(json.dumps(encode(item)))
    return listed + sum(file.bytes + _MEMBER_BYTES + 2 * len(f"{item.folder}/{name}") for name, file in item.files.items())


def read_bundle(source: Path, folder: Path, where: Path) -> list[Item]:
    """Write a bundle's items below an empty folder, checked: nothing is written outside it, and nothing that is not listed.

    Args:
        source: the archive.
        folder: gets ``stages/<stage>/<key>``.
        where: the file that messages name.

    Raises:
        ArtifactError: anything that `write_bundle` does not write.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if len(members) != len(archive.infolist()) or any(not _plain(info) for info in members.values()):
                raise ValueError("a member that is there twice, compressed, encrypted, or no plain file")
            items = _listed(archive.read(LIST))
            wanted = {f"{item.folder}/{name}": file for item in items for name, file in item.files.items()}
            if {LIST, *wanted} != set(members):
                raise ValueError(f"its members are not those of its list: {sorted({LIST, *wanted} ^ set(members))[0]}")
            for name, file in wanted.items():
                _write(archive, members[name], file, folder / name)
    except FormatError as error:
        raise ArtifactError(f"{where}: {error}; {ANOTHER}") from None
    except UNREADABLE as error:
        raise ArtifactError(f"{where}: is damaged, or not from `tdcompress artifacts export` ({error})") from None
    return items


def _listed(content: bytes) -> list[Item]:
    items = decode_json(Bundle, content).items
    for item in items:
        if not STAGE.fullmatch(item.stage) or not KEY.fullmatch(item.key):
            raise ValueError(f"{item.stage!r} {item.key!r} names no artefact")
        for name in item.files:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a file inside an artefact's folder")
    if len({(item.stage, item.key) for item in items}) != len(items):
        raise ValueError("an artefact that is there twice")
    return list(items)


def _plain(info: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(info.external_attr >> 16)
    stored = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
    return stored and kind in (0, stat.S_IFREG) and not info.is_dir() and not info.flag_bits & 1


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: File, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with archive.open(info) as source, path.open("xb") as target:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            target.write(chunk)
    if (size, digest.hexdigest()) != (file.bytes, file.sha256):
        raise ValueError(f"{info.filename} is not what is listed")
    fsync_file(path)
