"""The stages that residual networks are made of."""

from collections.abc import Callable, Sequence

from torch import nn


def residual_stages(inputs: int, filters: Sequence[int], units: int, unit: Callable[[int, int, int], nn.Module]) -> nn.Sequential:
    """Stages of equally many units; every stage but the first halves height and width in its first unit.

    Args:
        inputs: channels that come in.
        filters: channels of each stage in turn.
        units: residual units in each stage.
        unit: makes one from (channels in, channels out, stride).
    """
    stages: list[nn.Module] = []
    for stage, outputs in enumerate(filters):
        first = unit(inputs, outputs, 2 if stage > 0 else 1)
        stages.append(nn.Sequential(first, *(unit(outputs, outputs, 1) for _ in range(units - 1))))
        inputs = outputs
    return nn.Sequential(*stages)
