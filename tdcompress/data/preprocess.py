"""From stored pixels to what a network reads, as modules that can go inside an exported graph.

A pixel keeps its stored value (0..255, or 0..16 in the digits). No division by 255 comes first, so mean and deviation describe it
completely.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class Preprocess(nn.Module):
    """uint8 (B, H, W, C) -> float32 (B, C, H, W), every image by itself. The result has channels-last strides."""

    @abstractmethod
    def forward(self, pixels_BHWC: Tensor) -> Tensor: ...  # noqa: D102

    @abstractmethod
    def description(self) -> Mapping[str, object]:
        """What this does, as JSON-able data for a file's metadata."""


class Standardize(Preprocess):
    """(pixel - mean) / deviation, with constants for each channel.

    Args:
        mean: of each channel, in stored pixel values.
        deviation: of each channel, in stored pixel values; above 0.
    """

    mean_C: Tensor
    deviation_C: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(deviation) or min(deviation) <= 0:
            raise ValueError("deviation: as many numbers as mean has, each above 0")
        self.register_buffer("mean_C", torch.tensor(mean), persistent=False)
        self.register_buffer("deviation_C", torch.tensor(deviation), persistent=False)

    def forward(self, pixels_BHWC: Tensor) -> Tensor:  # noqa: D102
        values_BHWC = (pixels_BHWC.to(torch.float32) - self.mean_C) / self.deviation_C
        return values_BHWC.permute(0, 3, 1, 2)

    def description(self) -> Mapping[str, object]:  # noqa: D102
        return {
            "input": "uint8 NHWC",
            "output": "float32 NCHW",
            "kind": "standardize",
            "formula": "(pixel - mean) / deviation",
            "mean": [float(value) for value in self.mean_C],
            "deviation": [float(value) for value in self.deviation_C],
        }


class StandardizePerImage(Preprocess):
    """(pixel - its image's mean) / max(its image's deviation, 1/sqrt(n)), n = values of an image, all channels together.

    As in the released code (TensorFlow's per_image_standardization, applied to pixel values 0..255).
    """

    def forward(self, pixels_BHWC: Tensor) -> Tensor:  # noqa: D102
        values_BHWC = pixels_BHWC.to(torch.float32)
        size = values_BHWC.shape[1] * values_BHWC.shape[2] * values_BHWC.shape[3]
        centred_BHWC = values_BHWC - values_BHWC.mean(dim=(1, 2, 3), keepdim=True)
        variance_B111 = (centred_BHWC * centred_BHWC).mean(dim=(1, 2, 3), keepdim=True)
        deviation_B111 = variance_B111.sqrt().clamp(min=size**-0.5)
        return (centred_BHWC / deviation_B111).permute(0, 3, 1, 2)

    def description(self) -> Mapping[str, object]:  # noqa: D102
        return {
            "input": "uint8 NHWC",
            "output": "float32 NCHW",
            "kind": "standardize_per_image",
            "formula": "(pixel - mean) / max(deviation, 1/sqrt(n)); mean and deviation over the n = H*W*C values of each image",
        }


Normalise = Literal["image", "set", "unit"]
"""By what a recipe can have pixels normalised."""


def normalised(by: Normalise, mean: Sequence[float], deviation: Sequence[float], largest: float = 255.0) -> Preprocess:
    """What a recipe's data.normalise asks for.

    Args:
        by: "image", "set" or "unit".
        mean: of each of the C channels over the training set, in stored pixel values.
        deviation: the standard deviation, likewise.
        largest: the largest pixel value; "unit" divides by it.
    """
    if by == "image":
        return StandardizePerImage()
    return Standardize(mean, deviation) if by == "set" else Standardize((0.0,) * len(mean), (largest,) * len(mean))
