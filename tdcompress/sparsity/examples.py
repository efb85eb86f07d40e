"""Example inputs: real tensors that a network takes, with at least one example in them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tdcompress.errors import ModelError


def example_tensors(example_inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The positional inputs of a network.

    Args:
        example_inputs: a tensor (B, ...), or several.

    Raises:
        ModelError: no tensors; one without values, or stored sparsely; or a first one without examples.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else example_inputs
    if not isinstance(inputs, Sequence) or not inputs or not all(isinstance(item, Tensor) for item in inputs):
        raise ModelError("example_inputs must be a tensor or a tuple of tensors")
    for index, item in enumerate(inputs):
        where = f"example_inputs[{index}]" if len(inputs) > 1 else "example_inputs"
        if item.is_meta:
            raise ModelError(f"{where} is on the meta device and has no values: give real samples")
        if item.layout != torch.strided:
            raise ModelError(f"{where} is stored as {item.layout}: give it dense, {where}.to_dense()")
    first = inputs[0]
    if not first.ndim or not first.numel():
        raise ModelError(
            f"example_inputs: the first has shape {tuple(first.shape)}, which holds no example: give a batch (B, ...)"
        )
    return tuple(inputs)
