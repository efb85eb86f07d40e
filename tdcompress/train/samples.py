"""The order in which an epoch takes its samples."""

import torch
from torch import Tensor

from tdcompress.seeds import derived_seed


def epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    """The permutation of ``size`` samples in one epoch, int64 on the CPU.

    A pure function of seed and epoch, so that a sampler's position is the step alone.

    Args:
        size: of the training set.
        seed: of the training.
        epoch: from 0.

    Returns:
        int64 (size,), each sample's number once.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
    return torch.randperm(size, generator=generator)
