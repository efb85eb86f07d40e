"""What the training loop asks of the data: batches that know their loss, and samples whose right answers are counted.

A task (`tdcompress.tasks`) implements these. Images, labels, sentences and tokens are known there and nowhere here.

A **unit** is what a task counts: its answers are right or wrong, and throughput is units a second. Of images a unit is an
image, of translations a target token.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from tdcompress.train.distill import Lesson
from tdcompress.train.distributed import World
from tdcompress.train.settings import TrainSettings

Forward = Callable[..., Tensor]
"""A network's inputs -> its outputs in float32, as it trains or is evaluated, whatever precision it computes in."""


class TrainBatch(Protocol):
    """The samples of one forward and backward pass: a micro-batch of one process, on the training's device."""

    @property
    def parts(self) -> float:
        """How many batches of this weight make the mean of the step: the gradient is that of ``loss / parts``.

        Where all samples weigh the same and batches are equally large, these are the micro-batches of a process. Else it is
        U / (u * W), for u of the step's U units in this batch, and W processes, which average their gradients.
        """

    def loss(self, network: Forward, lesson: Lesson | None) -> tuple[Tensor, Tensor]:
        """The mean loss of this batch, and how many of its units the network answers rightly.

        Nothing in here may wait for the host: the fast path records it as a CUDA graph.

        Args:
            network: as it trains.
            lesson: what it also learns from, or None: mix its outputs for the same inputs into the loss.

        Returns:
            Two scalars on the device: the loss with its gradient, and a count without.
        """


class DeviceBatches(Protocol):
    """Batches of one size whose samples lie on the device, so that the device can take them by itself (`train.fast`)."""

    def order(self, epoch: int) -> Tensor:
        """The samples of an epoch's steps, int64 (S, B) on the CPU."""

    def batch(self, chosen_B: Tensor, epoch: int | Tensor, generator: torch.Generator) -> TrainBatch:
        """A whole step's batch, made by operations on the device alone.

        Args:
            chosen_B: int64 (B,), the samples.
            epoch: from 0; a number, or a float32 scalar on the device.
            generator: what chance draws from, on the device.
        """


class Loader(Protocol):
    """The steps of one training in one process. All it tells follows from data, settings and seed.

    What is in a step is a function of its number alone, so that a training which is taken up needs no state of the loader.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of every epoch, one or more; the same in each, also where batches are made by length."""

    @property
    def table(self) -> DeviceBatches | None:
        """The same batches as the fast path takes them; None where they differ in size or do not lie on the device."""

    def units(self, epoch: int, first: int, last: int) -> int:
        """How many units some steps of an epoch have, in all processes together.

        Args:
            epoch: from 0.
            first: the first of the steps, from 0.
            last: one more than the last one.
        """

    def step(self, epoch: int, index: int, generator: torch.Generator) -> Sequence[TrainBatch]:
        """This process's micro-batches of one step, ``train.accumulate`` or fewer of them, at least one.

        Args:
            epoch: from 0.
            index: of the step in its epoch.
            generator: what chance (augmentation) draws from; seeded for this step, on the training's device, the same in
                every process.
        """


class TrainSet(Protocol):
    """Training samples."""

    @property
    def unit(self) -> str:
        """What is counted, in the plural: "images", "tokens"; metrics have ``<unit>_per_second``."""

    def __len__(self) -> int:
        """Number of samples; methods divide their penalty by it, and a checkpoint of another number is refused."""

    def to(self, device: torch.device) -> Self:
        """The same samples as they are best held for a training on ``device``."""

    def loader(self, settings: TrainSettings, *, seed: int, world: World) -> Loader:
        """The batches that the settings ask for.

        Args:
            settings: the recipe's [train].
            seed: of the training: order, and all that is drawn once.
            world: the processes that share each step.

        Raises:
            UserError: fewer samples than one batch, a batch that micro-batches and processes do not divide, or keys of [train]
                that this kind of data does not have.
        """

    def first(self, settings: TrainSettings, world: World) -> TrainBatch:
        """A micro-batch of the usual size, as it is stored: what a step costs is measured on it (train.precision)."""


class TestSet(Protocol):
    """Samples that a training is watched by; each process counts its part of them, and the sums are added."""

    def to(self, device: torch.device) -> Self:
        """The same samples for evaluation on ``device``."""

    @property
    def units(self) -> int:
        """How many units all of it has."""

    def every(self, stride: int, first: int) -> Self:
        """Each ``stride``-th sample from ``first`` on: the part of one of ``stride`` processes."""

    def count_right(self, network: Forward, device: torch.device, *, between: Callable[[], None] | None = None) -> int:
        """How many units the network answers rightly, in float32.

        Args:
            network: as it is deployed; any callable.
            device: where it runs.
            between: called before each batch; may raise to leave early.

        Raises:
            VerificationError: an output that is not finite.
        """
