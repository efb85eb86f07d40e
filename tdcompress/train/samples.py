"""Samples that live on the device, and the order in which an epoch takes them."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """Labelled images on the device that trains or evaluates.

    Attributes:
        pixels: uint8 (N, H, W, C).
        labels: int64 (N,).
        preprocess: uint8 (B, H, W, C) -> float32 (B, C, H, W): standardisation; deterministic.
        augment: a random change of a uint8 (B, H, W, C) batch, drawn from the generator; training only.
    """

    pixels: Tensor
    labels: Tensor
    preprocess: nn.Module
    augment: Augment | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "TrainData":
        """The same samples on ``device``."""
        moved = copy.deepcopy(self.preprocess).to(device)  # a module moves in place, under those that share it
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device), preprocess=moved)

    def every(self, stride: int, first: int) -> "TrainData":
        """Each ``stride``-th sample from ``first`` on, without copying."""
        return replace(self, pixels=self.pixels[first::stride], labels=self.labels[first::stride])


def derived_seed(seed: int, *stream: str | int) -> int:
    """A seed for one named stream of random numbers; streams of one run are independent of each other."""
    text = "/".join(str(part) for part in (seed, *stream))
    # torch's CPU generator uses the low 32 bits, so a mixed hash and not seed + i
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    """The permutation of ``size`` samples in one epoch, int64 on the CPU.

    A pure function of seed and epoch, so that a sampler's position is the step alone.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
    return torch.randperm(size, generator=generator)
