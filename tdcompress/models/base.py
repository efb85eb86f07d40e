"""What a network's settings are: its keys in a recipe's [model] table, and how it is built."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from tdcompress.errors import ModelError, one_line
from tdcompress.functional import evaluating, functional_call

Image = tuple[int, int, int]
"""The shape of one input image: (C, H, W)."""

InterfaceKind = TypeVar("InterfaceKind", bound="NetworkInterface")


@dataclass(frozen=True, kw_only=True)
class NetworkInterface:
    """What a network has to take and give: a task's description of its data, by which networks are built.

    Attributes:
        kind: what it takes, in words, for messages.
    """

    kind: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class ImageClasses(NetworkInterface):
    """float32 images (B, C, H, W) -> float32 logits (B, classes).

    Attributes:
        classes: number of logits.
        image: (C, H, W) of an image.
    """

    kind: ClassVar[str] = "images with classes"
    classes: int
    image: Image

    def __str__(self) -> str:
        return f"{self.classes} classes of images {self.image}"


@dataclass(frozen=True, kw_only=True)
class Translations(NetworkInterface):
    """int64 source (B, S) and target so far (B, T) -> float32 logits (B, T, vocabulary) of each next target piece.

    Attributes:
        vocabulary: number of pieces, of both languages.
    """

    kind: ClassVar[str] = "sentences with translations"
    vocabulary: int


@dataclass(frozen=True, kw_only=True)
class ModelSettings(ABC):
    """A network's keys in a recipe's [model] table, and how it is built. The registry maps names to subclasses.

    What ``build`` returns declares ``unprunable``: the names of the modules that methods and pruning leave alone
    (`tdcompress.sparsity.units.prunable_weights`).
    """

    name: ClassVar[str]

    @abstractmethod
    def build(self, interface: NetworkInterface) -> nn.Module:
        """A new network on the CPU, its weights drawn from torch's default generator.

        Args:
            interface: what it has to take and give.

        Raises:
            ModelError: an interface that this network cannot have (see ``require_interface``).
        """


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(ModelSettings):
    """Keys of a network that classifies images."""

    def build(self, interface: NetworkInterface) -> nn.Module:  # noqa: D102
        needed = require_interface(self.name, interface, ImageClasses)
        return self.classifier(needed.classes, needed.image)

    @abstractmethod
    def classifier(self, classes: int, image: Image) -> nn.Module:
        """A new network on the CPU, its weights drawn from torch's default generator.

        Args:
            classes: number of logits.
            image: (C, H, W) of its input.

        Raises:
            ModelError: images that this network cannot take.
        """


def require_interface(name: str, interface: NetworkInterface, kind: type[InterfaceKind]) -> InterfaceKind:
    """Refuse data of another kind than a network takes.

    Args:
        name: of the network, for the message.
        interface: what the data ask for.
        kind: what the network can have.

    Raises:
        ModelError: they do not fit.
    """
    if not isinstance(interface, kind):
        raise ModelError(f"{name} takes {kind.kind}, and the data are {interface.kind}: choose another model or data set")
    return interface


def require_side(name: str, image: Image, least: int) -> None:
    """Refuse images that the network would shrink to nothing.

    Args:
        name: of the network, for messages.
        image: (C, H, W).
        least: pixels.

    Raises:
        ModelError: a side below ``least``.
    """
    _, height, width = image
    if min(height, width) < least:
        raise ModelError(
            f"{name} takes images of at least {least}x{least}, not {height}x{width}: choose another model or data set"
        )


def require_logits(name: str, model: nn.Module, classes: int, image: Image, device: str) -> None:
    """Refuse a network of others that does not map (B, C, H, W) to (B, classes).

    Args:
        name: for the message.
        model: the network; it stays as it is.
        classes: number of logits wanted.
        image: (C, H, W).
        device: "meta" runs it on shapes alone, which is quick but not every module of others can.

    Raises:
        ModelError: it fails on such images, or its result has another shape.
    """
    batch = 2
    state = {key: value.to(device) for key, value in (*model.named_parameters(), *model.named_buffers())}
    try:
        with torch.no_grad(), evaluating(model):
            logits = functional_call(model, state, (torch.zeros(batch, *image, device=device),))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise ModelError(f"{name} cannot take images of shape {image} (C, H, W): {one_line(error)}") from error
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (batch, classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"{name} gives {found} for {batch} images, not {(batch, classes)} logits")


def require_trainable(name: str, model: nn.Module) -> None:
    """Refuse a network of others that no recipe's optimizer trains, or no file of weights holds, before a training begins.

    Args:
        name: for the message.
        model: the network.

    Raises:
        ModelError: complex numbers that train, or state that is no tensor or of a type that safetensors does not know; it names
            the tensor.
    """
    for key, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.is_complex():
            raise ModelError(f"{name}: {key} is {parameter.dtype}; recipes train real numbers: hold its torch.view_as_real")
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ModelError(f"{name}: {key} of its state_dict is a {type(value).__name__}; files of weights hold tensors alone")
        try:
            save({key: value.new_empty(0)})
        except KeyError:
            raise ModelError(f"{name}: {key} is {value.dtype}, which files of weights (safetensors) do not hold") from None
