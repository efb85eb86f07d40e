"""Residual networks with the norm and ReLU before each convolution (He et al., 2016, "Identity mappings")."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from tdcompress.models.stages import residual_stages


class PreActivationUnit(nn.Module):
    """BN-ReLU-conv3x3-BN-ReLU-conv3x3 plus a shortcut.

    The shortcut is the input itself, or, where size or channels change, a 1x1 convolution of the pre-activated input.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: of the first convolution and the shortcut.
        norm_momentum: how much of a batch's statistics a BatchNorm takes over.
        norm_epsilon: what a BatchNorm adds to the variance.
    """

    projection: nn.Conv2d | None

    def __init__(self, inputs: int, outputs: int, stride: int, norm_momentum: float, norm_epsilon: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs, eps=norm_epsilon, momentum=norm_momentum)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs, eps=norm_epsilon, momentum=norm_momentum)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        same = stride == 1 and inputs == outputs
        self.projection = None if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:  # noqa: D102
        active_BCHW = self.relu(self.norm1(x_BCHW))
        shortcut_BCHW = x_BCHW if self.projection is None else self.projection(active_BCHW)
        inner_BCHW = self.relu(self.norm2(self.conv1(active_BCHW)))
        out_BCHW: Tensor = self.conv2(inner_BCHW) + shortcut_BCHW
        return out_BCHW


class PreActivationResNet(nn.Module):
    """A stem convolution, stages of `PreActivationUnit`, BN-ReLU, global mean, logits.

    Args:
        classes: number of logits.
        channels: of the input image.
        stem_filters: of the first convolution.
        stem_kernel: its side.
        filters: of each stage; every stage but the first halves height and width.
        units: residual units in each stage.
        norm_momentum: how much of a batch's statistics a BatchNorm takes over.
        norm_epsilon: what a BatchNorm adds to the variance.
        prune_stem: whether methods and pruning may touch the first convolution.
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        stem_filters: int,
        stem_kernel: int,
        filters: Sequence[int],
        units: int,
        norm_momentum: float,
        norm_epsilon: float,
        prune_stem: bool,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, stem_filters, stem_kernel, padding=stem_kernel // 2, bias=False)
        unit = partial(PreActivationUnit, norm_momentum=norm_momentum, norm_epsilon=norm_epsilon)
        self.stages = residual_stages(stem_filters, filters, units, unit)
        self.norm = nn.BatchNorm2d(filters[-1], eps=norm_epsilon, momentum=norm_momentum)
        self.relu = nn.ReLU()
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(filters[-1], classes)
        self.unprunable = ("head",) if prune_stem else ("stem", "head")

    def forward(self, x_BCHW: Tensor) -> Tensor:  # noqa: D102
        x_BCHW = self.relu(self.norm(self.stages(self.stem(x_BCHW))))
        logits: Tensor = self.head(self.flatten(self.mean(x_BCHW)))
        return logits
