"""Parameters and multiply-accumulates of a network."""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tdcompress.shrinking.duplicate import duplicate
from tdcompress.shrinking.trace import ExampleInputs, as_tuple, unfused


def parameters_and_macs(model: nn.Module, example_inputs: ExampleInputs) -> tuple[int, int]:
    """Count parameters, and multiply-accumulates for one example.

    Args:
        model: any module; tied parameters count once.
        example_inputs: (B, ...), or several; the first axis of the first one counts examples.

    Returns:
        Number of parameters; number of multiply-accumulates of convolutions, matrix products and attention in eval mode
        (half of what torch's FlopCounterMode counts, per example).
    """
    inputs = as_tuple(example_inputs)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    model = duplicate(model).eval()
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, which takes 0.15 s

    counter = FlopCounterMode(display=False)  # which does not know the fused attention of a CPU; written out it is two products
    with torch.no_grad(), unfused(), sdpa_kernel(SDPBackend.MATH), counter:
        model(*inputs)
    return parameters, counter.get_total_flops() // 2 // len(inputs[0])
