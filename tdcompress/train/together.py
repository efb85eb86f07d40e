"""Several trainings at the same time in one process, a thread each: what only one of them may do at a time.

torch's global random generators, its compiler and the capture of a CUDA graph belong to the process, not to a thread. A training
that needs them has its turn (`alone`) until its block ends, or until it says that it needs them no more (`share`). The reference
step seeds a global generator, so such a training keeps its turn to its end; a step that draws from generators of its own lets the
others go on as soon as its loop starts.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_process = threading.Lock()
_thread = threading.local()


@contextmanager
def alone(device: torch.device) -> Iterator[None]:
    """This thread's turn: no other thread is in such a block, and torch's global generators are given back as they were.

    Inside a block of the same thread this is a part of it; after `share` it is a new turn.

    Args:
        device: whose generators are given back, besides the CPU's.
    """
    if getattr(_thread, "turn", None) is not None:
        yield
        return
    with ExitStack() as turn:
        turn.enter_context(_process)
        turn.callback(setattr, _thread, "turn", None)
        turn.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        _thread.turn = turn
        yield


def share() -> None:
    """End this thread's turn before its block ends: from here on it draws from no global generator and compiles nothing.

    Generators are given back here already. Without a turn nothing happens.
    """
    turn: ExitStack | None = getattr(_thread, "turn", None)
    if turn is not None:
        turn.close()


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Kernels of this thread run in a CUDA stream of their own, beside those of other threads; on a CPU nothing happens."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()
