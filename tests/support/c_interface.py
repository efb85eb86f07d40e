"""The functions of tdcompress.h, called from Python as another program would call them."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tdcompress.engine.build import library_path

OK, ARGUMENT, FILE, FORMAT, VERSION, CHECKSUM, ISA, MEMORY, INPUT, PLATFORM = range(10)
TYPES = (np.float32, np.uint8, np.int8, np.int32, np.int64, np.float64)


class _Array(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("type", c_int64), ("ndim", c_int64), ("dims", POINTER(c_int64)), ("elements", c_int64)]


@dataclass(frozen=True)
class Shape:
    """tdc_array."""

    name: str
    dtype: np.dtype
    dims: tuple[int, ...]
    elements: int


@functools.cache
def functions() -> ctypes.CDLL:
    """The library of this machine, with the types of its public functions."""
    library = ctypes.CDLL(str(library_path()))
    library.tdc_load.argtypes = [c_char_p, POINTER(c_void_p)]
    library.tdc_load_memory.argtypes = [c_void_p, c_size_t, POINTER(c_void_p)]
    library.tdc_share.argtypes = [c_void_p, POINTER(c_void_p)]
    library.tdc_count.argtypes, library.tdc_count.restype = [c_void_p, c_int], c_int64
    library.tdc_shape.argtypes = [c_void_p, c_int, c_int64, POINTER(_Array)]
    library.tdc_run.argtypes = [c_void_p, POINTER(c_void_p), POINTER(c_void_p), c_int64]
    library.tdc_free.argtypes, library.tdc_free.restype = [c_void_p], None
    library.tdc_message.argtypes, library.tdc_message.restype = [c_int], c_char_p
    library.tdc_best_isa.argtypes, library.tdc_best_isa.restype = [], c_char_p
    return library


class PlanError(Exception):
    """A status that is not TDC_OK."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status}: {functions().tdc_message(status).decode()}")
        self.status = status


def check(status: int) -> None:
    if status != OK:
        raise PlanError(status)


class Model:
    """A handle."""

    def __init__(self, handle: c_void_p, memory: object = None) -> None:
        self.handle, self._memory = handle, memory

    @classmethod
    def from_file(cls, path: Path) -> Model:
        handle = c_void_p(1)
        status = functions().tdc_load(str(path).encode(), byref(handle))
        assert (handle.value is None) == (status != OK)
        check(status)
        return cls(handle)

    @classmethod
    def from_memory(cls, file: bytes) -> Model:
        memory = np.frombuffer(file + bytes(-len(file) % 8), np.int64).copy()  # aligned to 8 bytes
        handle = c_void_p(1)
        status = functions().tdc_load_memory(memory.ctypes.data, len(file), byref(handle))
        assert (handle.value is None) == (status != OK)
        check(status)
        return cls(handle, memory)

    def share(self) -> Model:
        other = c_void_p()
        check(functions().tdc_share(self.handle, byref(other)))
        return Model(other, self._memory)

    def shapes(self, kind: int) -> list[Shape]:
        """Of the inputs (0) or outputs (1)."""
        found = []
        for index in range(functions().tdc_count(self.handle, kind)):
            array = _Array()
            check(functions().tdc_shape(self.handle, kind, index, byref(array)))
            dims = tuple(array.dims[: array.ndim])
            found.append(Shape(array.name.decode(), np.dtype(TYPES[array.type]), dims, array.elements))
        return found

    def run(self, inputs: Sequence[np.ndarray], images: int | None = None) -> list[np.ndarray]:
        """The outputs of a batch."""
        arrays = [
            np.ascontiguousarray(array).view(np.uint8) if array.dtype == bool else np.ascontiguousarray(array) for array in inputs
        ]
        for array, shape in zip(arrays, self.shapes(0), strict=True):
            assert (array.dtype, array.shape[1:]) == (shape.dtype, shape.dims[1:])
        images = len(arrays[0]) if images is None else images
        outputs = [np.full((images, *shape.dims[1:]), np.nan, shape.dtype) for shape in self.shapes(1)]
        given = (c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        made = (c_void_p * len(outputs))(*(array.ctypes.data for array in outputs))
        check(functions().tdc_run(self.handle, given, made, images))
        return outputs

    def free(self) -> None:
        functions().tdc_free(self.handle)
        self.handle = c_void_p()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *error: object) -> None:
        self.free()
