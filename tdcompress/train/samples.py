"""Samples that live on the device, and the order in which an epoch takes them."""

import copy
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from tdcompress.seeds import derived_seed


class Augment(Protocol):
    """A random change of a uint8 (B, H, W, C) batch; ``mirrored_B`` names the images to mirror where flips alternate."""

    def __call__(self, pixels_BHWC: Tensor, generator: torch.Generator, mirrored_B: Tensor | None = None, /) -> Tensor:
        """A changed copy of the batch."""


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """Labelled images on the device that trains or evaluates.

    Attributes:
        pixels: uint8 (N, H, W, C).
        labels: int64 (N,).
        preprocess: uint8 (B, H, W, C) -> float32 (B, C, H, W): standardisation; deterministic.
        augment: a random change of a batch, drawn from the generator; training only.
        sides: bool (N,), the images that even epochs mirror and odd ones do not, where flips alternate.
    """

    pixels: Tensor
    labels: Tensor
    preprocess: nn.Module
    augment: Augment | None = None
    sides: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "TrainData":
        """The same samples on ``device``."""
        moved = copy.deepcopy(self.preprocess).to(device)  # a module moves in place, under those that share it
        sides = None if self.sides is None else self.sides.to(device)
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device), preprocess=moved, sides=sides)

    def mirrored(self, batch: Tensor, odd: bool | Tensor) -> Tensor | None:
        """Which samples of a batch are mirrored, bool (B,); None where flips do not alternate.

        Each sample's first side is drawn, and every epoch shows the other one (Jordan, 2024, arXiv 2404.00498, section 3.6).

        Args:
            batch: int64 (B,), the samples.
            odd: whether the epoch's number, from 0, is odd.
        """
        return None if self.sides is None else self.sides.index_select(0, batch) ^ odd

    def every(self, stride: int, first: int) -> "TrainData":
        """Each ``stride``-th sample from ``first`` on, without copying."""
        sides = None if self.sides is None else self.sides[first::stride]
        return replace(self, pixels=self.pixels[first::stride], labels=self.labels[first::stride], sides=sides)


def epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    """The permutation of ``size`` samples in one epoch, int64 on the CPU.

    A pure function of seed and epoch, so that a sampler's position is the step alone.

    Args:
        size: of the training set.
        seed: of the training.
        epoch: from 0.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
    return torch.randperm(size, generator=generator)


def first_sides(size: int, seed: int) -> Tensor:
    """Which of ``size`` samples alternating flips mirror in the first epoch: half of them at random, bool on the CPU."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "sides"))
    return torch.rand(size, generator=generator) < 0.5
