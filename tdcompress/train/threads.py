"""How many threads a training computes with on a CPU: settled once when it starts, and kept when it goes on.

Sums are split by threads, so bits depend on their number: a training that goes on elsewhere keeps what it began with.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def settle_threads(asked: int, begun: int | None, cores: int) -> int:
    """Threads of a training.

    Args:
        asked: the recipe's number; 0 = what torch takes (OMP_NUM_THREADS says how many), but no more than ``cores``.
        begun: what the training began with, None at its start; it stays.
        cores: of this process and its container.
    """
    if begun is not None:
        return begun
    return asked or max(1, min(torch.get_num_threads(), cores))


@contextmanager
def computing_with(threads: int, device: torch.device) -> Iterator[None]:
    """Compute with so many threads on a CPU, and give torch its own number back; on a GPU nothing changes."""
    if device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
