"""Proof by computation that shrinking changed nothing: both networks in float64 on random inputs."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tdcompress.errors import VerificationError
from tdcompress.shrinking.duplicate import duplicate
from tdcompress.shrinking.float64 import in_float64
from tdcompress.shrinking.other_sizes import other_batches, other_lengths
from tdcompress.shrinking.returned import as_tree
from tdcompress.shrinking.trace import ExampleInputs, as_tuple, unfused

Outputs = tuple[list[Tensor], list[object]]
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


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Inputs of other shapes than the examples', for which two networks differ, and how."""

    inputs: tuple[Tensor, ...]
    reason: str


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
    full, narrow = _exact(masked), _exact(shrunk)
    inputs = _random(as_tuple(example_inputs), generator)
    expected = _outputs(full, inputs)
    if not _finite(expected):
        raise VerificationError(
            f"{type(masked).__name__} itself returns NaN or infinity on standard normal inputs, before anything is removed,"
            " so that no shrinking can be verified; look for NaN weights"
        )
    max_error, max_output = _compare(type(masked).__name__, expected, _outputs(narrow, inputs))
    return Certificate(
        max_error=max_error, max_output=max_output, constant=_is_constant(full, example_inputs, expected[0], generator)
    )


def differs_at(masked: nn.Module, shrunk: nn.Module, example_inputs: ExampleInputs, *, seed: int = 0) -> Elsewhere | None:
    """Compare two networks as ``certify`` does, at another batch size and at other heights, widths or lengths.

    A size that the full network refuses, or where it returns no finite numbers, says nothing.

    Args:
        masked: the full network with its dead channels.
        shrunk: the narrow network.
        example_inputs: tensor or tuple of tensors.
        seed: of the random inputs.

    Returns:
        The first inputs for which they differ; None where they agree.
    """
    generator = torch.Generator().manual_seed(seed)
    full, narrow = _exact(masked), _exact(shrunk)
    examples = as_tuple(example_inputs)
    for sizes in (other_batches(examples), *other_lengths(examples)):
        for resized in sizes:
            inputs = _random(resized, generator)
            try:
                expected = _outputs(full, inputs)
            except Exception:  # user code raises anything at a size that it does not take
                continue
            if not _finite(expected):
                continue
            try:
                _compare(type(masked).__name__, expected, _outputs(narrow, inputs))
            except Exception as error:
                return Elsewhere(inputs=resized, reason=str(error))
            break
    return None


def _compare(name: str, full: Outputs, narrow: Outputs) -> tuple[float, float]:
    """(largest difference, largest output) of two networks that agree.

    Raises:
        VerificationError: they do not.
    """
    (expected, others), (actual, found) = full, narrow
    if len(others) != len(found) or not all(map(_same, others, found)):
        raise VerificationError(f"the shrunk network returns {found} beside its tensors, the full one {others}")
    if [item.shape for item in expected] != [item.shape for item in actual]:
        raise VerificationError(
            f"the shrunk network returns {[tuple(item.shape) for item in actual]},"
            f" the full one {[tuple(item.shape) for item in expected]}"
        )
    max_error = max((float((a - b).abs().max()) for a, b in zip(expected, actual, strict=True) if a.numel()), default=0.0)
    max_output = max((float(a.abs().max()) for a in expected if a.numel()), default=0.0)
    if not max_error <= TOLERANCE * max_output:  # also when either is NaN
        raise VerificationError(
            f"shrinking {name} changed its outputs: max |difference| {max_error:.3g} at max |output|"
            f" {max_output:.3g} in float64; the limit is {TOLERANCE:g} of the output"
        )
    return max_error, max_output


def _finite(outputs: Outputs) -> bool:
    return all(bool(item.isfinite().all()) for item in outputs[0])


def _random(inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(
        torch.randn(item.shape, generator=generator, dtype=torch.float64).to(item.device) if item.is_floating_point() else item
        for item in inputs
    )


def _is_constant(full: nn.Module, example_inputs: ExampleInputs, first: list[Tensor], generator: torch.Generator) -> bool:
    """Whether other inputs give the same; of inputs that are no numbers to draw, only zeros tell."""
    if not any(item.is_floating_point() for item in as_tuple(example_inputs)):
        return not any(bool(item.any()) for item in first)
    second, _ = _outputs(full, _random(as_tuple(example_inputs), generator))
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _same(a: object, b: object) -> bool:
    return math.isclose(a, b, rel_tol=TOLERANCE) if isinstance(a, float) and isinstance(b, float) else a == b


def _exact(model: nn.Module) -> nn.Module:
    """A float64 copy in eval mode."""
    return duplicate(model).double().eval()


def _outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> Outputs:
    """What a float64 network returns: its tensors, and everything else (numbers, flags, names)."""
    with torch.no_grad(), unfused(), in_float64():
        leaves = pytree.tree_leaves(as_tree(model(*(item.clone() for item in inputs))))
    tensors = [leaf if leaf.is_complex() else leaf.double() for leaf in leaves if isinstance(leaf, Tensor)]
    return tensors, [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
