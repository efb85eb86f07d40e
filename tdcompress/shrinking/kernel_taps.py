"""A layer's weight by group, output, input and tap of the kernel, and what constant inputs add to its outputs."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdcompress.shrinking.channels import Flags, Matrix


def by_tap(weight: Tensor, matrix: Matrix) -> Tensor:
    """The weight as (groups, outputs per group, inputs per group, taps)."""
    weight = weight.detach()
    groups, outputs = matrix.outputs.shape
    inputs = matrix.inputs.shape[1]
    if matrix.out_axis == 0:
        return weight.reshape(groups, outputs, inputs, -1)
    return weight.reshape(groups, inputs, outputs, -1).transpose(1, 2)


def shifts(weight: Tensor, matrix: Matrix, values: NDArray[np.float64], which: Flags) -> NDArray[np.float64]:
    """What constant inputs add to each output: the sum over ``which`` inputs of taps times value, (groups, outputs per group).

    Args:
        weight: of the layer, (O, I / groups, *kernel) or transposed, (I, O / groups, *kernel).
        matrix: its channels.
        values: constants, (groups, inputs per group).
        which: inputs to sum over, of the same shape.
    """
    result = np.zeros(matrix.outputs.shape)
    spread = by_tap(weight, matrix)
    for group in np.flatnonzero(which.any(1)):
        columns = np.flatnonzero(which[group])
        totals = spread[group][:, torch.from_numpy(columns).to(weight.device)].double().sum(-1).cpu().numpy()
        result[group] = totals @ values[group, columns]
    return result
