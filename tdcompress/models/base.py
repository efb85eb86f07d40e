"""What a network's settings are: its keys in a recipe's [model] table, and how it is built."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tdcompress.errors import ModelError

Image = tuple[int, int, int]
"""The shape of one input image: (C, H, W)."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings(ABC):
    """A network's keys in a recipe's [model] table, and how it is built. The registry maps names to subclasses.

    What ``build`` returns declares ``unprunable``: the names of the modules that methods and pruning leave alone
    (`tdcompress.sparsity.units.prunable_weights`).
    """

    name: ClassVar[str]

    @abstractmethod
    def build(self, classes: int, image: Image) -> nn.Module:
        """A new network on the CPU, its weights drawn from torch's default generator.

        Args:
            classes: number of logits.
            image: (C, H, W) of its input.

        Raises:
            ModelError: images that this network cannot take.
        """


def require_side(name: str, image: Image, least: int) -> None:
    """Refuse images that the network would shrink to nothing.

    Raises:
        ModelError: a side below ``least``.
    """
    _, height, width = image
    if min(height, width) < least:
        raise ModelError(
            f"{name} takes images of at least {least}x{least}, not {height}x{width}: choose another model or data set"
        )
