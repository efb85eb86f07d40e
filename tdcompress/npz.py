"""Arrays in .npz files: published whole, and read from anyone without pickle and without unpacking a decompression bomb."""

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdcompress.errors import ModelError, one_line
from tdcompress.files import published

Array = NDArray[Any]
MAX_RATIO = 2000  # unpacked / packed; deflate, which `write_npz` uses, reaches 1032 at most


def write_npz(path: Path, arrays: Mapping[str, Array], *, compress: bool = False) -> None:
    """Publish arrays.

    Args:
        path: the .npz file.
        arrays: by name, of any shape; numbers and booleans.
        compress: deflate them.
    """
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with published(path) as temporary, zipfile.ZipFile(temporary, "w", kind) as archive:
        for name, array in arrays.items():  # np.savez takes names as keywords, beside its own "file" and "allow_pickle"
            with archive.open(f"{name}.npy", mode="w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def write_npy(path: Path, array: Array) -> None:
    """Publish one array of any shape, of numbers or booleans, as .npy."""
    with published(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def npz_names(path: Path, what: str) -> frozenset[str]:
    """Names of the arrays in a file, none of which is unpacked.

    Raises:
        ModelError: no such file, or not an .npz.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except Exception as error:
        raise _unreadable(path, what, error) from None


def read_npz(path: Path, what: str, *, at_most: int, names: Collection[str] | None = None) -> dict[str, Array]:
    """Arrays of a file that may be from anyone.

    Args:
        path: the .npz file.
        what: what it should be, for the message: "file of samples".
        at_most: bytes that the whole file may unpack to.
        names: which arrays; None = all.

    Raises:
        ModelError: no such file, not an .npz, an array that is missing or no array, or it unpacks to more than `at_most` bytes or
            to more than any honest file of its size.
    """
    try:
        packed = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > min(at_most, MAX_RATIO * packed):
            raise ModelError(f"{path}: unpacks to {unpacked} bytes from {packed}; refused as a decompression bomb")
        with np.load(path, allow_pickle=False) as arrays:
            missing = sorted(set(names or ()) - set(arrays.files))
            if missing:
                raise ModelError(f"{path}: not a {what}: it lacks the arrays {', '.join(map(repr, missing))}")
            found = {key: arrays[key] for key in names or arrays.files}
    except ModelError:
        raise
    except Exception as error:
        raise _unreadable(path, what, error) from None
    for key, array in found.items():
        if not isinstance(array, np.ndarray):
            raise ModelError(f"{path}: {key!r} is not an array")
    return found


def _unreadable(path: Path, what: str, error: Exception) -> ModelError:
    """For crafted headers numpy and zipfile raise many types, MemoryError and SyntaxError too."""
    if isinstance(error, FileNotFoundError):
        return ModelError(f"{path}: no such file")
    return ModelError(f"{path}: not a readable {what} ({one_line(error)})")
