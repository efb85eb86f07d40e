"""Initial weights as the papers' code draws them."""

import math

import torch
from torch import nn

from tdcompress.errors import ModelError
from tdcompress.sparsity.units import MATRIX_TYPES

DIRAC = "dirac"
"""How a recipe names `dirac`."""


def glorot_normal(model: nn.Module, conv_bias: float = 0.0) -> None:
    """Weights of all convolutions and linear layers ~ N(0, 2 / (fan_in + fan_out)); in place.

    Glorot and Bengio (2010), equation 12's variance. TensorFlow cuts the tails off at two deviations; this does not.

    Args:
        model: the network.
        conv_bias: what the convolutions' biases start at; those of linear layers start at 0.
    """
    for module in model.modules():
        if isinstance(module, MATRIX_TYPES):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.constant_(module.bias, 0.0 if isinstance(module, nn.Linear) else conv_bias)


def he_normal(model: nn.Module) -> None:
    """Weights of all convolutions ~ N(0, 2 / fan_out), He et al. (2015); linear layers keep torch's own; in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


@torch.no_grad()
def dirac(model: nn.Module) -> None:
    """Let convolutions begin as the identity: filter i of the first I passes channel i of I on; in place.

    Further filters stay as they were drawn. This is for all convolutions but the first, grouped ones and those of a single pixel
    (Jordan, 2024, arXiv 2404.00498, section 3.3).

    Raises:
        ModelError: the network has no such convolution, or computes the weight of one from other parameters.
    """
    convolutions = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)][1:]
    chosen = {name: conv for name, conv in convolutions if conv.groups == 1 and math.prod(conv.kernel_size) > 1}
    if not chosen:
        raise ModelError(f'model.init: "{DIRAC}" is for convolutions behind the first; this {type(model).__name__} has none')
    for name, conv in chosen.items():
        if conv._parameters.get("weight") is None:
            raise ModelError(
                f'model.init: "{DIRAC}" writes weights, and that of {name} is computed from other parameters (weight_norm, ...)'
            )
        nn.init.dirac_(conv.weight[: conv.in_channels])
