"""CIFAR's files packed without loss for a slow connection: 31.0 MB of images become 16.8 MB, and come back byte for byte.

An archive of CIFAR is one array of pixels in a little of everything else. Its images are kept as lossless WebP, in strips that
stand one above the other, and everything else as xz. One piece holds up to 10,000 images: a zip archive with ``pack.json``,
``rest.xz`` (in the first piece of a file) and ``images.000.webp``, ``images.001.webp``, ... What comes out is compared with the
md5 of the published file, so nothing in a piece has to be believed.
"""

import hashlib
import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from tdcompress.codec import VERSION, decode_json, encode
from tdcompress.data.cifar import CifarSettings
from tdcompress.data.cifar_archive import MAX_BYTES, read_archive
from tdcompress.data.registry import DATASETS
from tdcompress.errors import DataError
from tdcompress.files import published, write_bytes

FORMAT = 1
PACKED: Mapping[str, type[CifarSettings]] = {
    name: settings for name, settings in DATASETS.items() if issubclass(settings, CifarSettings)
}
_SIDE, _CHANNELS = 32, 3
_IMAGE_BYTES = _SIDE * _SIDE * _CHANNELS
_PIECE_IMAGES, _STRIP_IMAGES = 10_000, 500  # WebP has at most 16,383 rows
_DESCRIPTION, _REST = "pack.json", "rest.xz"
# what reading a damaged archive or picture raises
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    lzma.LZMAError,
    PillowImage.DecompressionBombError,
    RuntimeError,
    ValueError,
    KeyError,
    EOFError,
    OSError,
)


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a piece says of itself.

    Attributes:
        format: of this file.
        data: name of the data set.
        file: name of the packed file.
        piece: its number, from 0.
        pieces: of that file.
        images: in this piece.
        before: bytes of that file before the pixels.
    """

    format: int = field(default=FORMAT, metadata=VERSION)
    data: str
    file: str
    piece: int
    pieces: int
    images: int
    before: int


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What unpacking came to.

    Attributes:
        written: files.
        there: files that were there already, whole.
        missing: files of these data sets that are neither there nor among the pieces, with all their pieces.
    """

    written: tuple[Path, ...]
    there: tuple[Path, ...]
    missing: tuple[Path, ...]


def known_files(settings: type[CifarSettings]) -> dict[str, str]:
    """md5 by name of every file of a data set."""
    return {**settings.train_files, **settings.test_files, settings.meta_file[0]: settings.meta_file[1]}


def pack_data(name: str, root: Path, target: Path, say: Callable[[str], None] = lambda line: None) -> list[Path]:
    """Pack a data set's files.

    Args:
        name: of the data set, one of ``PACKED``.
        root: the data root.
        target: the folder that gets the pieces.
        say: told about each file, which takes several seconds.

    Returns:
        The pieces.

    Raises:
        DataError: a file that is missing, or not the published one.
    """
    settings = PACKED[name]
    written = []
    for file, md5 in known_files(settings).items():
        path = root / settings.folder / file
        if not path.is_file():
            raise settings(root=str(root)).missing(settings.title, path, settings.folder, settings.url)
        say(f"packing {path}")
        pixels = read_archive(path, md5).get("data", np.empty((0, _IMAGE_BYTES), np.uint8))
        content = path.read_bytes()
        before = content.index(pixels.tobytes())
        rest = content[:before] + content[before + pixels.nbytes :]
        pieces = max(1, -(-len(pixels) // _PIECE_IMAGES))
        for piece in range(pieces):
            own = pixels[piece * _PIECE_IMAGES :][:_PIECE_IMAGES]
            described = Description(data=name, file=file, piece=piece, pieces=pieces, images=len(own), before=before)
            place = target / f"{name}.{file}.{piece}.zip"
            with published(place) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(_DESCRIPTION, json.dumps(encode(described)))
                if piece == 0:
                    archive.writestr(_REST, lzma.compress(rest, preset=9))
                for number, strip in enumerate(_strips(own)):
                    archive.writestr(f"images.{number:03d}.webp", strip)
            written.append(place)
    return written


def unpack_data(folder: Path, root: Path, say: Callable[[str], None] = lambda line: None) -> Unpacked:
    """Write the files of which a folder holds all pieces, byte for byte as they were published.

    Args:
        folder: with pieces of one data set or several; pieces may also come in several folders, one after the other.
        root: the data root.
        say: told about each file.

    Raises:
        DataError: no piece at all, or one that is damaged or of another format.
    """
    found: dict[tuple[str, str], dict[int, tuple[Path, Description]]] = {}
    for path in sorted(folder.glob("[!.]*.zip")):  # macOS leaves "._a.zip" beside a file that it copies
        described = _describe(path)
        found.setdefault((described.data, described.file), {})[described.piece] = (path, described)
    if not found:
        raise DataError(f"{folder}: no pieces from `tdcompress data pack` (*.zip)")
    written, there, missing = [], [], []
    for name in dict.fromkeys(name for name, _ in found):
        for file, md5 in known_files(PACKED[name]).items():
            target = root / PACKED[name].folder / file
            pieces = found.get((name, file), {})
            if target.is_file() and hashlib.md5(target.read_bytes(), usedforsecurity=False).hexdigest() == md5:
                there.append(target)
            elif not pieces or set(pieces) != set(range(next(iter(pieces.values()))[1].pieces)):
                missing.append(target)
            else:
                say(f"unpacking {target}")
                write_bytes(target, _restored([pieces[number] for number in sorted(pieces)], md5))
                written.append(target)
    return Unpacked(written=tuple(written), there=tuple(there), missing=tuple(missing))


def _strips(rows: np.ndarray) -> Iterable[bytes]:
    """Lossless WebP of up to 500 images each, from rows of red, green and blue planes."""
    for start in range(0, len(rows), _STRIP_IMAGES):
        planes = rows[start : start + _STRIP_IMAGES].reshape(-1, _CHANNELS, _SIDE, _SIDE)
        strip = np.ascontiguousarray(planes.transpose(0, 2, 3, 1)).reshape(-1, _SIDE, _CHANNELS)
        packed = io.BytesIO()
        PillowImage.fromarray(strip).save(packed, "WEBP", lossless=True, quality=80, method=4)
        yield packed.getvalue()


def _rows(strip: bytes, images: int) -> bytes:
    """What `_strips` packed.

    Raises:
        ValueError: a picture of another size or kind.
    """
    with PillowImage.open(io.BytesIO(strip), formats=["WEBP"]) as picture:
        if picture.size != (_SIDE, images * _SIDE) or picture.mode != "RGB":
            raise ValueError(f"a picture of {picture.size} {picture.mode}")
        pixels = np.asarray(picture)
    return pixels.reshape(images, _SIDE, _SIDE, _CHANNELS).transpose(0, 3, 1, 2).tobytes()


def _restored(pieces: list[tuple[Path, Description]], md5: str) -> bytes:
    rest, rows = b"", []
    for path, described in pieces:
        try:
            with zipfile.ZipFile(path) as archive:
                if described.piece == 0:
                    rest = lzma.LZMADecompressor().decompress(archive.read(_REST), MAX_BYTES)
                for number, start in enumerate(range(0, described.images, _STRIP_IMAGES)):
                    images = min(_STRIP_IMAGES, described.images - start)
                    rows.append(_rows(archive.read(f"images.{number:03d}.webp"), images))
        except _UNREADABLE as error:
            raise DataError(f"{path}: is damaged ({error}); copy it again") from None
    before = pieces[0][1].before
    content = b"".join([rest[:before], *rows, rest[before:]])
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        names = ", ".join(path.name for path, _ in pieces)
        raise DataError(f"{pieces[0][0].parent}: {names} do not make up the published file (md5 {md5}); copy them again")
    return content


def _describe(path: Path) -> Description:
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(_DESCRIPTION)
            if info.file_size > 10_000:
                raise ValueError(f"{_DESCRIPTION} is too large")
            described = decode_json(Description, archive.read(info))
    except _UNREADABLE as error:
        raise DataError(f"{path}: is damaged, or not from `tdcompress data pack` ({error})") from None
    if described.data not in PACKED or described.file not in known_files(PACKED[described.data]):
        raise DataError(f"{path}: says that it is {described.file!r} of {described.data!r}, which is no file of a known data set")
    within = 0 <= described.images <= _PIECE_IMAGES and 0 <= described.piece < described.pieces <= 100
    if not within or described.before < 0:
        raise DataError(f"{path}: says that it is piece {described.piece} of {described.pieces}, with {described.images} images")
    return described
