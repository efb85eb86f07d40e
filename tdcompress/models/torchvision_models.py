"""torchvision's classifiers by name: "torchvision/resnet18", and ResNet-50 and -101 as networks of this project."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from tdcompress.errors import ModelError, one_line
from tdcompress.models.base import ClassifierSettings, Image, require_logits
from tdcompress.sparsity.units import MATRIX_TYPES

PREFIX = "torchvision/"

# one result instead of three, and initial weights asked for by name, which silences a warning about future defaults
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
_RESNETS = ("resnet", "resnext", "wide_resnet")  # the families that begin with a 7x7 convolution "conv1"


@dataclass(frozen=True, kw_only=True)
class TorchvisionSettings(ClassifierSettings):
    """A classifier of torchvision with new weights; no keys of its own. The logits layer stays dense."""

    architecture: ClassVar[str]

    def classifier(self, classes: int, image: Image) -> nn.Module:  # noqa: D102
        from torchvision import models  # slow to import, and most runs do without

        channels, height, width = image
        if channels != 3:
            raise ModelError(f"{self.name} takes images of 3 channels, not {channels}")
        options = dict(_OPTIONS.get(self.architecture, {}))
        if self.architecture.startswith("vit_"):
            options["image_size"] = height  # its position codes have a fixed number
        try:
            model: nn.Module = models.get_model(self.architecture, weights=None, num_classes=classes, **options)
        except (AssertionError, ValueError) as error:
            raise ModelError(f"{self.name} cannot be built for {height}x{width} images: {one_line(error)}") from error
        model.unprunable = self.spared(model, classes)  # type: ignore[assignment]
        require_logits(self.name, model, classes, image, device="meta")
        return model

    def spared(self, model: nn.Module, classes: int) -> tuple[str, ...]:
        """The modules that stay dense: the head, which is the last matrix in every classifier of torchvision.

        Raises:
            ModelError: the last matrix gives no logits, so that it is no head.
        """
        name, head = [(name, module) for name, module in model.named_modules() if isinstance(module, MATRIX_TYPES)][-1]
        outputs = head.out_features if isinstance(head, nn.Linear) else head.out_channels
        if outputs != classes:
            raise ModelError(
                f"{self.name}: its last layer {name} has {outputs} outputs, not {classes}; this torchvision is not known"
            )
        return (name,)


@dataclass(frozen=True, kw_only=True)
class TorchvisionResNetSettings(TorchvisionSettings):
    """A ResNet, ResNeXt or Wide ResNet of torchvision.

    Attributes:
        prune_stem: let methods and pruning touch the 7x7 stem, which the papers' released code leaves out.
    """

    prune_stem: bool = False

    def spared(self, model: nn.Module, classes: int) -> tuple[str, ...]:  # noqa: D102
        head = super().spared(model, classes)
        return head if self.prune_stem else ("conv1", *head)


@dataclass(frozen=True, kw_only=True)
class ResNet50Settings(TorchvisionResNetSettings):
    """``name = "resnet50"``: bottlenecks [3, 4, 6, 3]; 25,557,032 parameters with 1,000 classes."""

    name: ClassVar[str] = "resnet50"
    architecture: ClassVar[str] = "resnet50"


@dataclass(frozen=True, kw_only=True)
class ResNet101Settings(TorchvisionResNetSettings):
    """``name = "resnet101"``: bottlenecks [3, 4, 23, 3]; 44,549,160 parameters with 1,000 classes.

    The papers call this network ResNet-102.
    """

    name: ClassVar[str] = "resnet101"
    architecture: ClassVar[str] = "resnet101"


def architectures() -> list[str]:
    """The names of all classifiers of the installed torchvision, without the prefix."""
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


@functools.cache
def torchvision_settings_type(architecture: str) -> type[TorchvisionSettings]:
    """The settings class of one classifier."""
    base = TorchvisionResNetSettings if architecture.startswith(_RESNETS) else TorchvisionSettings
    return type(f"{base.__name__}_{architecture}", (base,), {"name": PREFIX + architecture, "architecture": architecture})
