"""What a step frees stays with the process while it trains, and goes back to the system afterwards."""

import ctypes
import sys
from pathlib import Path

import pytest
import torch

from tdcompress.train import allocation
from tdcompress.train.allocation import keeping_freed_memory

MIB = 1 << 20
PAGE = 4096
CPU = torch.device("cpu")
glibc = pytest.mark.skipif(allocation._glibc() is None, reason="not glibc: malloc is left as it is")


def use_blocks(count: int = 4, size: int = 16 * MIB) -> None:
    """Fill blocks of memory and free them all, as a step does."""
    blocks = [torch.ones(size, dtype=torch.uint8) for _ in range(count)]
    assert len({block.data_ptr() for block in blocks}) == count


def new_pages() -> int:
    """How many pages the system has cleared for this process by now."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident() -> int:
    """Bytes of this process that lie in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


@glibc
def test_the_second_step_needs_no_new_pages():
    with keeping_freed_memory(CPU):
        use_blocks()
        before = new_pages()
        for _ in range(10):
            use_blocks()
        assert new_pages() - before < 64 * MIB // PAGE  # not even once the blocks of a step; given back, it were ten times them


@glibc
def test_what_was_kept_goes_back():
    before = resident()
    with keeping_freed_memory(CPU):
        use_blocks(count=16)
        assert resident() - before > 128 * MIB
    assert resident() - before < 64 * MIB


@glibc
def test_memory_goes_back_after_an_error_too():
    before = resident()

    def fail() -> None:
        with keeping_freed_memory(CPU):
            use_blocks(count=16)
            raise RuntimeError("a step failed")

    with pytest.raises(RuntimeError, match="a step failed"):
        fail()
    assert resident() - before < 64 * MIB


@pytest.mark.parametrize(
    ("platform", "device"), [("win32", "cpu"), ("darwin", "cpu"), (sys.platform, "cuda"), (sys.platform, "meta")]
)
def test_elsewhere_nothing_is_asked_of_the_system(monkeypatch, platform, device):
    def refuse(name: str | None) -> ctypes.CDLL:
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    with keeping_freed_memory(torch.device(device)):
        use_blocks(count=1)


def test_another_c_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # musl has no gnu_get_libc_version and no mallopt
    with keeping_freed_memory(CPU):
        use_blocks(count=1)
