"""Initial weights as the papers' code draws them."""

from torch import nn

from tdcompress.sparsity.units import MATRIX_TYPES


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
