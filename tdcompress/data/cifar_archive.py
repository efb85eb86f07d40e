"""CIFAR's python archives: md5-checked, then read by an unpickler that can make arrays, bytes, lists, dicts, str and int.

The archives were pickled by Python 2. The pickle does not get to call numpy. Its three numpy names are read by stand-ins that
only keep a shape and bytes. So no function of any package runs on what the file says.
"""

import hashlib
import io
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tdcompress.errors import DataError, one_line

MAX_BYTES = 1 << 30  # no archive of CIFAR holds more than 156 MB


def read_archive(path: Path, md5: str) -> Mapping[str, Any]:
    """The dict that an archive holds, with str keys; pixel arrays are uint8 numpy arrays, read-only.

    Args:
        path: one batch file.
        md5: what the published file's md5 is.

    Raises:
        DataError: another md5, or content other than the plain kinds.
    """
    size = path.stat().st_size
    content = path.read_bytes() if size <= MAX_BYTES else b""
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(
            f"{path} is damaged or another file ({size} bytes, md5 {found}, expected {md5}): delete it and fetch it again"
        )
    return unpickle(content, str(path))


def unpickle(content: bytes, where: str) -> Mapping[str, Any]:
    """The dict of plain values in a pickle.

    Raises:
        DataError: a pickle that is cut off, names anything to import or call beyond a uint8 array, or is no dict.
    """
    try:
        value = _plain(_PlainUnpickler(io.BytesIO(content), fix_imports=False, encoding="bytes").load(), where)
    except DataError:
        raise
    except Exception as error:  # an unpickler raises whatever its opcodes run into
        raise DataError(f"{where} is no archive of plain data: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where} is no archive of plain data: it holds {type(value).__name__}, not a dict")
    return value


class _Shape:
    """Stands in for numpy's ``_reconstruct`` and takes the state that ``ndarray.__setstate__`` would."""

    __slots__ = ("array",)

    def __init__(self, *args: object) -> None:
        self.array: np.ndarray | None = None  # ndarray, (0,), b"b": the state brings the content

    def __setstate__(self, state: object) -> None:
        match state:
            case (1, tuple() as shape, _Type(name="u1"), False, bytes() as data):
                if all(type(length) is int and length >= 0 for length in shape) and math.prod(shape) == len(data):
                    self.array = np.frombuffer(data, np.uint8).reshape(shape)
                    return
        raise pickle.UnpicklingError("an array that is not plain uint8")


class _Type:
    """Stands in for ``numpy.dtype``; keeps the name of the type."""

    __slots__ = ("name",)

    def __init__(self, name: object = None, *args: object) -> None:
        self.name = name.decode("ascii", "replace") if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        pass  # byte order and flags, which one byte does not have


class _Array:
    """Stands in for ``numpy.ndarray`` where a pickle names the class; nothing is made of it."""

    __slots__ = ()


_ADMITTED: Mapping[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Shape,
    ("numpy._core.multiarray", "_reconstruct"): _Shape,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR archive does") from None


def _plain(value: object, where: str) -> Any:
    """The value with stand-ins replaced by their arrays and dict keys as str; anything but a plain kind is refused."""
    match value:
        case _Shape(array=np.ndarray() as array):
            return array
        case dict():
            return {_key(key, where): _plain(item, where) for key, item in value.items()}
        case list():
            return [_plain(item, where) for item in value]
        case bytes() | str() | int():
            return value
    raise DataError(f"{where} is no archive of plain data: it holds a {type(value).__name__}")


def _key(key: object, where: str) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    if isinstance(key, str):
        return key
    raise DataError(f"{where} is no archive of plain data: a key is a {type(key).__name__}")
