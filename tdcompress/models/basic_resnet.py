"""Residual networks as first published (He et al., 2015): the norm after each convolution, ReLU after the sum."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from tdcompress.models.stages import residual_stages

Shortcut = Literal["pad", "projection"]


class PadShortcut(nn.Module):
    """Every ``stride``-th pixel, with zero channels added half before and half after: option A, no parameters.

    Args:
        inputs: channels.
        outputs: channels, no fewer.
        stride: in pixels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x_BCHW: Tensor) -> Tensor:  # noqa: D102
        return F.pad(x_BCHW[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicUnit(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN plus a shortcut, then ReLU.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: of the first convolution and the shortcut.
        shortcut: where size or channels change, "pad" (option A) or "projection" (option B: conv1x1-BN).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()
        elif shortcut == "pad":
            self.shortcut = PadShortcut(inputs, outputs, stride)
        else:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x_BCHW: Tensor) -> Tensor:  # noqa: D102
        inner_BCHW = self.relu(self.norm1(self.conv1(x_BCHW)))
        out_BCHW: Tensor = self.relu(self.norm2(self.conv2(inner_BCHW)) + self.shortcut(x_BCHW))
        return out_BCHW


class BasicResNet(nn.Module):
    """A 3x3 stem with BN and ReLU, stages of `BasicUnit`, global mean, logits: the form for images of about 32x32.

    Args:
        classes: number of logits.
        channels: of the input image.
        filters: of each stage, the first also the stem's; every stage but the first halves height and width.
        units: residual units in each stage.
        shortcut: where size or channels change, "pad" or "projection".
        prune_stem: whether methods and pruning may touch the first convolution.
    """

    def __init__(
        self, *, classes: int, channels: int, filters: Sequence[int], units: int, shortcut: Shortcut, prune_stem: bool
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, filters[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(filters[0])
        self.relu = nn.ReLU()
        self.stages = residual_stages(filters[0], filters, units, partial(BasicUnit, shortcut=shortcut))
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(filters[-1], classes)
        self.unprunable = ("head",) if prune_stem else ("stem", "head")

    def forward(self, x_BCHW: Tensor) -> Tensor:  # noqa: D102
        x_BCHW = self.stages(self.relu(self.norm(self.stem(x_BCHW))))
        logits: Tensor = self.head(self.flatten(self.mean(x_BCHW)))
        return logits
