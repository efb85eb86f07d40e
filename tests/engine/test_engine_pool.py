"""Where descriptors and tables lie."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tdcompress.engine import pool
from tdcompress.engine.pool import MemoryPool


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(pool, "BLOCK_BYTES", 8192)


def read(address: int, nbytes: int) -> bytes:
    return ctypes.string_at(address, nbytes)


def test_arrays_are_copied_to_whole_cache_lines_one_after_the_other():
    made = MemoryPool()
    first = made.reserve(40)
    second = made.array(np.arange(20, dtype=np.float32)[::2])
    third = made.array(np.array([7], np.uint8))
    assert (first % 64, second - first, third - second) == (0, 64, 64)
    assert read(first, 64) == bytes(64)
    assert np.frombuffer(read(second, 40), np.float32).tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert made.nbytes == 40 + 40 + 1
    assert len(made.blocks) == 1


def test_equal_small_arrays_share_their_memory_and_large_ones_stay():
    made = MemoryPool()
    assert made.array(np.ones(4, np.float32)) == made.array(np.ones(4, np.float32))
    assert made.nbytes == 16
    large = np.ones(10000, np.uint8)
    assert made.array(large) == large.ctypes.data
    assert made.blocks[-1] is large


def test_a_full_block_is_followed_by_another():
    made = MemoryPool()
    addresses = [made.array(np.full(5000, value, np.uint8)) for value in range(3)]
    assert len(made.blocks) == 3
    assert [read(address, 5000) for address in addresses] == [bytes([value]) * 5000 for value in range(3)]


def test_an_empty_array_has_an_address():
    assert MemoryPool().array(np.empty(0, np.float32)) % 64 == 0
