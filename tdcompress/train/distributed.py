"""Several processes, one training: each takes its part of every batch, all hold the same weights and draw the same masks.

Start a script with ``torchrun --nproc-per-node N script.py`` and call ``train`` inside ``with joined("cuda") as device``. The
result is that of one process up to rounding, except that BatchNorm sees each process's part by itself and keeps the first
process's running statistics. The folder has to be the same for all processes; the first one writes.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


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
        """This process's part of a batch whose size all processes divide."""
        return batch.chunk(self.size)[self.rank]

    def total(self, values: Tensor) -> Tensor:
        """The sum of each value over all processes."""
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

    def agree(self, signal_number: int | None, device: torch.device) -> int | None:
        """The signal that any process got, so that all of them stop at the same step."""
        if self.size == 1:
            return signal_number
        seen = torch.tensor(signal_number or 0, device=device)
        dist.all_reduce(seen, dist.ReduceOp.MAX)
        return int(seen) or None

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
        """Give every process the first one's tensors (running statistics), in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network as a backward pass averages its gradients over all processes."""
        return DistributedDataParallel(net) if self.size > 1 else net


@contextmanager
def joined(kind: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started; without torchrun, do nothing.

    Args:
        kind: "cpu" or "cuda".

    Yields:
        This process's device.
    """
    if "WORLD_SIZE" not in os.environ:
        yield torch.device(kind)
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if kind == "cuda" else torch.device(kind)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()
