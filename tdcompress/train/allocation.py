"""What a step frees, the next one takes again: glibc is told to keep it instead of giving it back to the system.

Each step allocates and frees the same activations. By default glibc gives large blocks back at once, and the system clears every
page anew for the next step. Keeping them takes no more memory at the peak, and changes no bit of a result.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# of glibc's malloc.h; see mallopt(3)
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc takes no larger one; smaller blocks come from the heap, which is kept
_KEEP_ALL = 2**31 - 1
_USUAL_TRIM_THRESHOLD = 2 * _LARGEST_MMAP_THRESHOLD  # what glibc itself arrives at when it frees blocks of that size


@contextmanager
def keeping_freed_memory(device: torch.device) -> Iterator[None]:
    """Keep freed memory for the next allocation while training on a CPU, then give it back; elsewhere than on glibc, nothing."""
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    libc.mallopt(_TRIM_THRESHOLD, _KEEP_ALL)
    try:
        yield
    finally:
        libc.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM_THRESHOLD)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
