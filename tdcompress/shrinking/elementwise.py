"""The constants of an elementwise operator: computed by the operator itself, unless it hangs on rounding what comes out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from tdcompress.shrinking.calls import OperatorCall, base_name
from tdcompress.shrinking.cells import Cells
from tdcompress.shrinking.channels import Flags
from tdcompress.shrinking.float64 import in_float64

ROUNDING = 1e-6  # a network in float32 may be this far from its constants in float64, of 1 or of the constant; not from a 0
_WHOLE = 2**53  # from here on float64, which cells hold, leaves integers out

# What jumps although its result is a floating-point number.
_STEPPED = "floor ceil round trunc fix frac sign sgn heaviside floor_divide remainder fmod hardshrink threshold copysign"
_STEPS = frozenset(_STEPPED.split())
_SIGN_OF_ZERO = frozenset(["signbit", "copysign", "atan2", "arctan2"])  # which cells do not hold


@dataclass(frozen=True, kw_only=True)
class Operand:
    """Constants of a tensor (cells), in the type that it has in the program."""

    cells: Cells
    kind: torch.dtype

    def tensor(self) -> Tensor:
        """The constants; floating-point ones in float64."""
        value = self.cells["value"]
        if self.kind.is_floating_point:
            return torch.from_numpy(value.copy())
        return torch.from_numpy(np.where(self.cells["known"], value, 1.0)).to(self.kind)  # what is unknown divides by no 0

    def nearby(self, targets: Sequence[float | NDArray[np.float64]]) -> Iterator[Tensor]:
        """What rounding may make of floating-point constants: a little more, less, or a number nearby; a 0 stays 0.

        Args:
            targets: numbers, or arrays of any shape that broadcasts to the constants'.
        """
        value = self.cells["value"]
        slack = np.where(value == 0, 0.0, ROUNDING * np.maximum(1.0, np.abs(value)))
        yield torch.from_numpy(value + slack)
        yield torch.from_numpy(value - slack)
        for target in targets:
            yield torch.from_numpy(np.where(np.abs(value - target) <= slack, target, value))


def kind_of(node: Any) -> torch.dtype:
    """The type of a tensor in the program; what is literal code is as a float32."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dtype if isinstance(value, Tensor) else torch.float32


def kinds(call: OperatorCall) -> Mapping[str, torch.dtype]:
    """Type of each argument, by its name in the schema."""
    node = call.node
    assert isinstance(node.target, torch._ops.OpOverload)
    names = [argument.name for argument in node.target._schema.arguments]
    return {name: kind_of(item) for name, item in (*zip(names, node.args, strict=False), *node.kwargs.items())}


def constants_made(
    call: OperatorCall, function: Callable[..., Tensor], operands: Mapping[str, Operand], known: Flags
) -> tuple[Flags, NDArray[np.float64]]:
    """Which elements of a result are constants, and these.

    A network runs in its own precision, so what jumps at a constant is no constant: a comparison with a number nearby, a
    rounding of a number that is nearly whole.

    Args:
        call: the operator.
        function: computes the result; takes the operands by name.
        operands: by name; floating-point ones are given in float64.
        known: where the constants of all operands that matter are known, of the result's shape or any that it repeats.

    Returns:
        Two arrays of the shape of ``known``.
    """
    result = call.node.meta["val"].dtype
    if not known.any() or result.is_complex or any(operand.kind.is_complex for operand in operands.values()):
        return np.zeros_like(known), np.zeros(known.shape)
    name = base_name(call.node.target)
    function = _in_float64(function)
    made = function(**{key: operand.tensor() for key, operand in operands.items()})
    values = np.broadcast_to(made.double().numpy(), known.shape)
    known = known & np.isfinite(values)
    if not made.is_floating_point() or not result.is_floating_point:
        known &= np.abs(values) < _WHOLE
    if not made.is_floating_point() or name in _STEPS or call.arguments.get("rounding_mode"):
        slack = 1e-5 if made.is_floating_point() else 0.0
        for nearby in _nearby(call, operands):
            known &= np.isclose(function(**nearby).double().numpy(), values, rtol=slack, atol=slack)
    if name in _SIGN_OF_ZERO:
        for operand in operands.values():
            known &= operand.cells["value"] != 0
    return known, np.where(known, values, 0.0)


def _in_float64(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function as the certificate computes it: what it makes of truth values and integers is not rounded to float32."""

    @wraps(function)
    def wide(**operands: Tensor) -> Tensor:
        with in_float64():
            return function(**operands)

    return wide


def _nearby(call: OperatorCall, operands: Mapping[str, Operand]) -> Iterator[dict[str, Tensor]]:
    """The operands, one of them rounded: also to 0, to a number that the operator takes, or to another operand."""
    exact = {key: operand.tensor() for key, operand in operands.items()}
    numbers = [0.0, *(value for value in call.arguments.values() if isinstance(value, float | int))]
    for key, operand in operands.items():
        others = [item.cells["value"] for other, item in operands.items() if other != key]
        for moved in operand.nearby([*numbers, *others]) if operand.kind.is_floating_point else ():
            yield {**exact, key: moved}
