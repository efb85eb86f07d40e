"""How far rounding alone may move an output, where large numbers cancel in it: by a computation that is rounded at random.

The network runs in float64 with a small error put on every operation, of random sign and size:
Monte Carlo arithmetic (Parker, 1997, "Monte Carlo Arithmetic"). The error of a sum is relative to the sizes of its terms, not to
the sum (Higham, 2002, "Accuracy and Stability of Numerical Algorithms", section 4.2), so an operation that sums is computed once
more, of absolute values. What outputs differ by then, for an error of one rounding step of the network's type, is the scale of
what two correct runtimes may differ by.

Rounding moves an output in proportion to the error. What a `floor`, a comparison or a `topk` makes of a number on its boundary
does not shrink with the error: it is a jump, as large as an error of the file may be, and allows nothing.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tdcompress.export.outputs import named_outputs

RUNS = 4
STEPS = 8
"""Times the largest change seen: an order of summation may be worse than a random one."""
FINE, COARSE = 2.0**-37, 2.0**-23
"""The errors put on an operation, as shares of its result: well above float64's own rounding, and float32's step."""
_PROPORTIONAL = 4
"""The change at the fine error, in proportion, is at most this often the one at the coarse error: a jump's is 2^14 times it."""
_SUMS = frozenset(
    {
        *("mean", "sum", "cumsum", "mm", "bmm", "addmm", "baddbmm", "addmv", "mv", "dot", "convolution"),
        *("avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
    }
)
"""Operations of ATen that are linear in each argument and sum."""


def rounding_limits(model: nn.Module, inputs: Sequence[Tensor], outputs: int) -> list[float]:
    """How far each output may be off by rounding, in its own unit and in order.

    It is 0 where an output jumps, and everywhere if the network does not run in float64.

    Args:
        model: in eval mode; it is not changed.
        inputs: as it takes them, of any shape.
        outputs: how many it has.
    """
    types = {tensor.dtype for tensor in (*model.parameters(), *model.buffers(), *inputs) if tensor.is_floating_point()}
    step = max((torch.finfo(kind).eps for kind in types), default=torch.finfo(torch.float32).eps)
    slopes = [0.0] * outputs
    try:
        wide = copy.deepcopy(model).double()
        rows = [item.double() if item.is_floating_point() else item for item in inputs]
        with torch.no_grad():
            exact = list(named_outputs(wide(*rows)).values())
            for run in range(RUNS):
                fine, coarse = (_changes(wide, rows, exact, error, run) for error in (FINE, COARSE))
                slopes = [max(slope, new) for slope, new in zip(slopes, map(_slope, fine, coarse), strict=True)]
    except Exception:  # user code raises anything; some asks for float32
        return [0.0] * outputs
    return [STEPS * step * slope for slope in slopes]


def _changes(model: nn.Module, rows: Sequence[Tensor], exact: Sequence[Tensor], error: float, seed: int) -> list[float]:
    """How far each output moves where every operation is off by up to an error; a seed gives the same signs for every error."""
    with _Rounded(error, torch.Generator().manual_seed(seed)):
        rounded = named_outputs(model(*rows)).values()
    return [_largest_change(*pair) for pair in zip(rounded, exact, strict=True)]


def _slope(fine: float, coarse: float) -> float:
    """Change for each error, from the fine one: the coarse may cross a jump that is near; 0 where the fine one crosses it too."""
    slope = fine / FINE
    return slope if slope <= _PROPORTIONAL * coarse / COARSE < math.inf else 0.0


def _largest_change(output: Tensor, exact: Tensor) -> float:
    return float((output - exact).abs().max()) if exact.is_floating_point() and exact.numel() else 0.0


class _Rounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation that makes new numbers is off by up to a share of them."""

    def __init__(self, error: float, generator: torch.Generator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.error, self.generator = error, generator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        result = func(*args, **options)
        if func._schema.is_mutable or any(made.alias_info for made in func._schema.returns):
            return result
        if isinstance(result, tuple | list):
            return type(result)(self._off(item, item) for item in result) if type(result) in (tuple, list) else result
        if isinstance(result, Tensor) and func._schema.name.removeprefix("aten::") in _SUMS:
            return self._off(result, func(*(item.abs() if _is_float(item) else item for item in args), **options))
        return self._off(result, result)

    def _off(self, result: Any, size: Any) -> Any:
        if not _is_float(result):
            return result
        noise = 2 * torch.rand(result.shape, generator=self.generator, dtype=result.dtype) - 1
        return result + (self.error * noise * size).nan_to_num(0.0, 0.0, 0.0)


def _is_float(item: Any) -> bool:
    return isinstance(item, Tensor) and item.is_floating_point()
