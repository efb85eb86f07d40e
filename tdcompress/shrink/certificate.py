"""Proof by computation that shrinking changed nothing: both networks in float64 on random inputs."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tdcompress.errors import VerificationError
from tdcompress.shrink.double import in_float64
from tdcompress.shrink.trace import ExampleInputs, as_tuple, unfused

TOLERANCE = 1e-10  # of the largest output; float64 rounding of deep networks stays near 1e-14


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What the comparison measured.

    Attributes:
        max_error: max |masked - shrunk|.
        max_output: max |masked|.
        constant: whether the full network returned the same for two random inputs, so that the comparison proves little.
    """

    max_error: float
    max_output: float
    constant: bool


def certify(masked: nn.Module, shrunk: nn.Module, example_inputs: ExampleInputs, *, seed: int = 0) -> Certificate:
    """Compare two networks in float64, eval mode, on standard normal inputs of the examples' shapes.

    The forward code runs in float64 also where it asks for less. Integer and boolean inputs (token numbers) are taken as they
    are. A bias that took a constant is exact in float64 only: a network that was rounded to float32 after folding agrees to
    about 1e-7 and does not pass.

    Args:
        masked: the full network with its dead channels.
        shrunk: the narrow network.
        example_inputs: tensor or tuple of tensors.
        seed: of the random inputs.

    Raises:
        VerificationError: outputs of different structure or shape, other values beside the tensors, non-finite outputs, or a
            difference above 1e-10 * max |output|.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = _random(example_inputs, generator)
    (expected, others), (actual, found) = _outputs(masked, inputs), _outputs(shrunk, inputs)
    if len(others) != len(found) or not all(map(_same, others, found)):
        raise VerificationError(f"the shrunk network returns {found} beside its tensors, the full one {others}")
    if [item.shape for item in expected] != [item.shape for item in actual]:
        raise VerificationError(
            f"the shrunk network returns {[tuple(item.shape) for item in actual]},"
            f" the full one {[tuple(item.shape) for item in expected]}"
        )
    if not all(bool(item.isfinite().all()) for item in expected):
        raise VerificationError(
            f"{type(masked).__name__} itself returns NaN or infinity on standard normal inputs, before anything is removed,"
            " so that no shrinking can be verified; look for NaN weights"
        )
    max_error = max((float((a - b).abs().max()) for a, b in zip(expected, actual, strict=True) if a.numel()), default=0.0)
    max_output = max((float(a.abs().max()) for a in expected if a.numel()), default=0.0)
    if not max_error <= TOLERANCE * max_output:  # also when either is NaN
        raise VerificationError(
            f"shrinking {type(masked).__name__} changed its outputs: max |difference| {max_error:.3g} at max |output|"
            f" {max_output:.3g} in float64; the limit is {TOLERANCE:g} of the output"
        )
    return Certificate(
        max_error=max_error, max_output=max_output, constant=_is_constant(masked, example_inputs, expected, generator)
    )


def _random(example_inputs: ExampleInputs, generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(
        torch.randn(item.shape, generator=generator, dtype=torch.float64).to(item.device) if item.is_floating_point() else item
        for item in as_tuple(example_inputs)
    )


def _is_constant(masked: nn.Module, example_inputs: ExampleInputs, first: list[Tensor], generator: torch.Generator) -> bool:
    """Whether other inputs give the same; of inputs that are no numbers to draw, only zeros tell."""
    if not any(item.is_floating_point() for item in as_tuple(example_inputs)):
        return not any(bool(item.any()) for item in first)
    second, _ = _outputs(masked, _random(example_inputs, generator))
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _same(a: object, b: object) -> bool:
    return math.isclose(a, b, rel_tol=TOLERANCE) if isinstance(a, float) and isinstance(b, float) else a == b


def _outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[list[Tensor], list[object]]:
    """What a float64 copy returns: its tensors, and everything else (numbers, flags, names)."""
    model = copy.deepcopy(model).double().eval()
    with torch.no_grad(), unfused(), in_float64():
        leaves = pytree.tree_leaves(model(*(item.clone() for item in inputs)))
    tensors = [leaf if leaf.is_complex() else leaf.double() for leaf in leaves if isinstance(leaf, Tensor)]
    return tensors, [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
