"""What a step frees stays with the process while it trains, and goes back to the system afterwards."""

import ctypes
import json
import mmap
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tdcompress.train import allocation
from tdcompress.train.allocation import keeping_freed_memory

MIB = 1 << 20
PAGE = mmap.PAGESIZE
STEPS = 20
CPU = torch.device("cpu")
glibc = pytest.mark.skipif(allocation._glibc() is None, reason="not glibc: malloc is left as it is")


def use_blocks(count: int = 4, size: int = 16 * MIB) -> None:
    """Fill blocks of memory and free them all, as a step does."""
    blocks = [torch.ones(size, dtype=torch.uint8) for _ in range(count)]
    assert len({block.data_ptr() for block in blocks}) == count


def pages_of_the_steps() -> int:
    """How many pages the system clears for this process during all steps."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(STEPS):
        use_blocks()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of this process that lie in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


@pytest.fixture
def given_back() -> None:
    """Start with nothing kept: what other tests have freed is no memory of these."""
    with keeping_freed_memory(CPU):
        pass


@glibc
def test_steps_need_few_new_pages():
    # in a process of its own: where other tests left the heap in pieces, each step takes another piece and clears that first
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    given_back, kept = json.loads(done.stdout)
    assert kept < given_back // 4


@glibc
@pytest.mark.usefixtures("given_back")
def test_what_was_kept_goes_back():
    before = resident()
    with keeping_freed_memory(CPU):
        use_blocks(count=16)
        assert resident() - before > 128 * MIB
    assert resident() - before < 64 * MIB


@glibc
@pytest.mark.usefixtures("given_back")
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


if __name__ == "__main__":
    allocation._glibc().mallopt(allocation._MMAP_THRESHOLD, 128 << 10)  # glibc's first value: it raises that by itself, or not
    without = pages_of_the_steps()
    with keeping_freed_memory(CPU):
        pages_of_the_steps()  # the heap takes its size
        print(json.dumps([without, pages_of_the_steps()]))
