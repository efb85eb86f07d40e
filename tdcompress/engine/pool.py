"""Memory of descriptors and tables: side by side, in the order in which the calls read them.

A call that follows another program's finds its tables in main memory. Neighbours then come with fewer page-table walks,
and the processor, which fetches what follows what was read, fetches the right thing.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tdcompress.engine.read import Array

BLOCK_BYTES = 1 << 20
"""Memory is taken in blocks of this size; larger arrays stay where they are."""
_LINE_BYTES = 64
_SHARED_BYTES = 4096


class MemoryPool:
    """What a plan's kernels read besides tensors.

    `blocks` are to be kept alive as long as the plan; `sizes` has the bytes of each array by its address.
    """

    def __init__(self) -> None:
        self.blocks: list[Array] = []
        self.sizes: dict[int, int] = {}
        self._current: Array = np.empty(0, np.uint8)
        self._shared: dict[bytes, int] = {}
        self.nbytes = 0

    def reserve(self, nbytes: int) -> int:
        """The address of zeroed memory of whole cache lines."""
        size = -(-max(1, nbytes) // _LINE_BYTES) * _LINE_BYTES
        self.nbytes += nbytes
        if size > len(self._current):
            block = np.zeros(max(BLOCK_BYTES, size) + _LINE_BYTES, np.uint8)
            self.blocks.append(block)
            self._current = block[-block.ctypes.data % _LINE_BYTES :]
        address = int(self._current.ctypes.data)
        self._current = self._current[size:]
        return address

    def array(self, array: Array) -> int:
        """The address of a constant array of any shape; equal small arrays (the masks of all layers of one size) share theirs."""
        array = np.ascontiguousarray(array)
        if array.nbytes > BLOCK_BYTES:
            self.blocks.append(array)
            self.nbytes += array.nbytes
            self.sizes[int(array.ctypes.data)] = array.nbytes
            return int(array.ctypes.data)
        data = array.tobytes()
        if data in self._shared:
            return self._shared[data]
        address = self.reserve(len(data))
        ctypes.memmove(address, data, len(data))
        self.sizes[address] = len(data)
        if len(data) <= _SHARED_BYTES:
            self._shared[data] = address
        return address


class SharedTables(MemoryPool):
    """Tables that all plans of one model read: each is there once, whatever plan wanted it first."""

    def __init__(self) -> None:
        super().__init__()
        self._addresses: dict[bytes, int] = {}
        self._made: dict[tuple[int, str], tuple[Array, Any]] = {}

    def array(self, array: Array) -> int:
        """As `MemoryPool.array`; equal arrays share one address, however large they are."""
        array = np.ascontiguousarray(array)
        key = hashlib.blake2b(array.reshape(-1).view(np.uint8).data, digest_size=32).digest()
        if key not in self._addresses:
            self._addresses[key] = super().array(array)
        return self._addresses[key]

    def once(self, array: Array, kind: str, make: Callable[[], Any]) -> Any:
        """What `make` gives of an array; of the same object it is asked once.

        Args:
            array: of any shape; it is kept.
            kind: what is made of it; tells results of one array apart.
            make: gives it.
        """
        key = (id(array), kind)
        if key not in self._made:
            self._made[key] = (array, make())  # the array is kept, so that its id is not another's
        return self._made[key][1]
