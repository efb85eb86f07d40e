"""A data set's images as stages use them."""

import copy

import torch
from torch import Tensor

from tdcompress.data.base import Dataset
from tdcompress.seeds import derived_seed
from tdcompress.train.samples import TrainData, first_sides

BATCH = 500


def train_samples(data: Dataset, seed: int) -> TrainData:
    """Training samples with their augmentation.

    Args:
        data: the data set.
        seed: of the training: says which side of each image comes first where sides alternate.
    """
    return TrainData(
        pixels=data.train.pixels,
        labels=data.train.labels,
        preprocess=data.preprocess,
        augment=data.augmentation,
        sides=first_sides(len(data.train), seed) if data.augmentation.flip == "alternating" else None,
    )


def plain_batches(data: Dataset, seed: int, count: int, device: torch.device) -> list[Tensor]:
    """Preprocessed training images, not augmented, drawn without replacement; all where there are no more.

    Args:
        data: the data set.
        seed: of the training; the draw follows from it.
        count: how many images.
        device: where the batches lie.

    Returns:
        Batches of float32 (B, C, H, W).
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "recalibrate"))
    chosen = torch.randperm(len(data.train), generator=generator)[:count]
    preprocess = copy.deepcopy(data.preprocess).to(device)
    with torch.no_grad():
        return [preprocess(data.train.pixels[part].to(device)) for part in torch.split(chosen, BATCH)]


def test_samples(data: Dataset) -> TrainData:
    """Test samples: what every accuracy is measured on."""
    return TrainData(pixels=data.test.pixels, labels=data.test.labels, preprocess=data.preprocess)


def example_inputs(data: Dataset, count: int = 2) -> Tensor:
    """Some preprocessed test images, float32 (B, C, H, W) on the CPU."""
    with torch.inference_mode():
        images: Tensor = data.preprocess(data.test.pixels[:count])
    return images.clone().contiguous()
