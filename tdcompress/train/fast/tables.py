"""What the host knows of an epoch before it begins, as tensors that go to the device in one piece."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tdcompress.methods.base import Method, TrainStep
from tdcompress.train.fast.drop import Dropping

LR, ALPHA, FROZEN, AVERAGE, EPOCH = range(5)  # columns of a step's numbers


@dataclass(frozen=True, kw_only=True)
class EpochTable:
    """The numbers of each step of an epoch.

    Attributes:
        numbers: float32 (S, 5), columns as above.
        counts: int32 (S, C), candidates.
        order: int64 (S, B), samples.
    """

    numbers: Tensor
    counts: Tensor
    order: Tensor


@dataclass(frozen=True, kw_only=True)
class Course:
    """Where a training's numbers come from.

    Attributes:
        method: gives the drop rate, and whether masks are frozen.
        dropping: gives the numbers of candidates.
        lr: step -> learning rate.
        average: step -> what its parameters weigh in the average.
        order: epoch -> the samples of its steps, int64 (S, B).
        steps: of an epoch.
    """

    method: Method
    dropping: Dropping
    lr: Callable[[int], float]
    average: Callable[[int], float]
    order: Callable[[int], Tensor]
    steps: int

    def table(self, epoch: int) -> EpochTable:
        """All numbers of an epoch."""
        numbers, counts = [], []
        for index in range(self.steps):
            step, moment = epoch * self.steps + index, epoch + index / self.steps
            alpha = self.method.metrics(TrainStep(epoch=moment)).get("alpha", 0.0)
            numbers.append([self.lr(step), alpha, float(self.method.frozen(moment)), self.average(step), epoch])
            counts.append(list(self.dropping.counts(moment)))
        return EpochTable(
            numbers=torch.tensor(numbers),
            counts=torch.tensor(counts, dtype=torch.int32).view(self.steps, -1),
            order=self.order(epoch),
        )
