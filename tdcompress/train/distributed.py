"""Several processes, one training: each takes its part of every batch, all hold the same weights and draw the same masks.

``torchrun --nproc-per-node N -m tdcompress run RECIPE`` runs a recipe so (`tdcompress.runs.crew`). In a script of your own
call ``train`` inside ``with joined("cuda") as device``. The result is that of one process up to rounding, with one exception:
BatchNorm sees each process's part by itself and keeps the first process's running statistics, unless ``train.sync_batchnorm``
is set (`batchnorm`). The folder has to be the same for all processes; the first one writes.

Besides the gradients the processes exchange one tensor in a step: loss, right answers, and who was asked to stop.
"""

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from tdcompress.codec import parse_json
from tdcompress.errors import InterruptedRun, OtherProcessError, TdcompressError, TrainingError

SIGNALS = 65  # their numbers are below
_FAILURE = "failure"
# Running statistics are each process's own between steps; torch 2.14 names the option anew, and warns of the old name.
_NAMES = signature(DistributedDataParallel).parameters
_OWN_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False}


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of this training.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @staticmethod
    def current() -> "World":
        """The default process group, or this process alone."""
        if not (dist.is_available() and dist.is_initialized()):
            return World()
        return World(rank=dist.get_rank(), size=dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """This process's part, (B / processes, ...), of a batch (B, ...) whose size all processes divide."""
        return batch.chunk(self.size)[self.rank]

    def total(self, values: Tensor) -> Tensor:
        """The sum of each value over all processes, of the shape of ``values``."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def first_says(self, numbers: tuple[int, ...], device: torch.device) -> tuple[int, ...]:
        """The first process's numbers, in every process; what the others give only tells how many there are."""
        if self.size == 1:
            return numbers
        shared = torch.tensor(numbers, dtype=torch.int64, device=device)
        dist.broadcast(shared, 0)
        return tuple(int(number) for number in shared)

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The first process runs the block, then the others do."""
        if self.size > 1 and not self.first:
            dist.barrier()
        yield
        if self.size > 1 and self.first:
            dist.barrier()

    @torch.no_grad()
    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's tensors (running statistics), of any shape, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network as a backward pass averages its gradients over all processes."""
        if self.size == 1:
            return net
        # Strides along an axis of size 1 mean nothing: a kernel of one input channel has others than its gradient.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return DistributedDataParallel(net, **_OWN_BUFFERS)


def vote(signal_number: int | None, device: torch.device) -> Tensor:
    """What a process says of the signal that asks it to stop, float32 (SIGNALS,): votes of several processes are added."""
    return F.one_hot(torch.tensor(signal_number or 0, device=device), SIGNALS).float()


def elected(votes: Sequence[float]) -> int | None:
    """The signal that any process got, so that all of them stop at the same step; the highest where there are several."""
    return max((number for number, count in enumerate(votes) if number and count), default=None)


def started_by_torchrun() -> bool:
    """Whether this is one of several processes, or torchrun's only one."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


@contextmanager
def joined(kind: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started; without torchrun, do nothing.

    What one process fails of ends all: the others say so, and not that they lost a connection.

    Args:
        kind: "cpu" or "cuda".

    Yields:
        This process's device.

    Raises:
        OtherProcessError: another process failed, so that this one cannot go on; has its message.
        TrainingError: another process is gone without a word.
    """
    if not started_by_torchrun():
        yield torch.device(kind)
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if kind == "cuda" else torch.device(kind)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, size = next(rendezvous("env://"))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=size)
    try:
        with _failing_together(PrefixStore("tdcompress", store), rank):
            yield device
    finally:
        dist.destroy_process_group()


@contextmanager
def _failing_together(store: Store, rank: int) -> Iterator[None]:
    """Leave word of what this process failed of, for those who wait for it; the store outlives every process but torchrun."""
    try:
        yield
    except InterruptedRun:
        raise
    except Exception as error:
        if store.check([_FAILURE]):
            first = parse_json(store.get(_FAILURE))
            raise OtherProcessError(f"process {first['rank']} failed: {first['message']}") from error
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise TrainingError("another process is gone without a word; run the same command again to go on") from error
        message = str(error) if isinstance(error, TdcompressError) else f"{type(error).__name__}: {error}"
        store.set(_FAILURE, json.dumps({"rank": rank, "message": message}))
        raise
