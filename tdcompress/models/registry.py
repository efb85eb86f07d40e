"""The networks that a recipe can name, and how one is built from its name."""

from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import nn

from tdcompress.arguments import checked, require_range, require_types
from tdcompress.errors import ModelError, TdcompressError, UserError, did_you_mean, one_line
from tdcompress.models.base import Image, ImageClasses, ModelSettings, NetworkInterface
from tdcompress.models.cifar_resnet import CifarResNet20Settings, CifarResNet32Settings, CifarResNet56Settings
from tdcompress.models.digits_cnn import DigitsCnnSettings
from tdcompress.models.lenet5 import LeNet5Settings
from tdcompress.models.mlp import MlpSettings
from tdcompress.models.resnet18 import ResNet18Settings
from tdcompress.models.resnet32 import ResNet32Settings
from tdcompress.models.torchvision_models import (
    PREFIX,
    ResNet50Settings,
    ResNet101Settings,
    architectures,
    torchvision_settings_type,
)
from tdcompress.models.transformer_settings import TransformerSettings
from tdcompress.models.user_models import user_names, user_settings_type
from tdcompress.models.vgg16 import Vgg16Settings
from tdcompress.models.wide_resnet import WideResNetSettings

MODELS: Mapping[str, type[ModelSettings]] = {
    settings.name: settings
    for settings in (
        MlpSettings,
        DigitsCnnSettings,
        LeNet5Settings,
        ResNet18Settings,
        ResNet32Settings,
        CifarResNet20Settings,
        CifarResNet32Settings,
        CifarResNet56Settings,
        WideResNetSettings,
        Vgg16Settings,
        ResNet50Settings,
        ResNet101Settings,
        TransformerSettings,
    )
}


def settings_type(name: str) -> type[ModelSettings]:
    """The settings class behind a network's name, whose fields are the keys that a recipe may give it.

    This project's own names win over a package's entry point of the same name.

    Raises:
        UserError: no network of this name.
    """
    if name in MODELS:
        return MODELS[name]
    if name.startswith(PREFIX):
        architecture = name.removeprefix(PREFIX)
        if architecture in (known := architectures()):
            return torchvision_settings_type(architecture)
        raise UserError(f"torchvision has no classifier {architecture!r}{did_you_mean(architecture, known)}")
    if name in (users := user_names()):
        return user_settings_type(name)
    known = [*MODELS, *users]
    raise UserError(f"no model {name!r}{did_you_mean(name, known)} (there are {', '.join(known)}, and {PREFIX}<classifier>)")


def instantiate(settings: ModelSettings, *, interface: NetworkInterface, seed: int) -> nn.Module:
    """A new network on the CPU; the same seed gives the same weights, and torch's own generator stays as it was.

    Args:
        settings: its keys.
        interface: what it has to take and give.
        seed: of its initial weights.

    Raises:
        ModelError: data that this network cannot take, or a network that cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which would seed the GPUs' too
        try:
            return settings.build(interface)
        except TdcompressError:
            raise
        except Exception as error:  # a network that does not fit into memory, or somebody else's code
            raise ModelError(f"model {settings.name} cannot be built for {interface}: {one_line(error)}") from error


@checked
def build_model(name: str, *, classes: int, image: Image = (3, 32, 32), seed: int = 0, **options: object) -> nn.Module:
    """A new network by any name that a recipe knows.

    Args:
        name: "resnet32", "torchvision/resnet18", or a name of the entry point group ``tdcompress.models``.
        classes: number of logits.
        image: (C, H, W) of its input.
        seed: of its initial weights.
        options: the network's own keys.

    Returns:
        A module that takes float32 (B, C, H, W) and gives logits, float32 (B, classes); in train mode, on the CPU.

    Raises:
        UserError: no such network, a key that it does not own, or a value out of range.
        ModelError: images that this network cannot take.
    """
    kind = settings_type(name)
    known = [field.name for field in fields(kind)]
    for key in options:
        if key not in known:
            owned = f"it has {', '.join(known)}" if known else "it has no keys of its own"
            raise UserError(f"model {name} has no key {key!r}{did_you_mean(key, known)} ({owned})")
    require_types(f"model {name}", kind, options)
    require_range("build_model: seed", seed, 0, 2**63 - 1)
    for where, count in (("classes", classes), *((f"image[{index}]", size) for index, size in enumerate(image))):
        require_range(f"build_model: {where}", count, 1, 2**31 - 1)
    try:
        settings = kind(**options)
    except ValueError as error:
        raise UserError(f"model {name}: {error}") from error
    return instantiate(settings, interface=ImageClasses(classes=classes, image=image), seed=seed)
