"""How far rounding alone may move an output, where large numbers cancel in it: by a computation that is rounded at random.

The network runs in float64 with an error of one rounding step of its own type put on every operation, of random sign and size:
Monte Carlo arithmetic (Parker, 1997, "Monte Carlo Arithmetic"). The error of a sum is relative to the sizes of its terms, not to
the sum (Higham, 2002, "Accuracy and Stability of Numerical Algorithms", section 4.2), so an operation that sums is computed once
more, of absolute values. What outputs differ by then is the scale of what two correct runtimes may differ by.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tdcompress.export.outputs import named_outputs

RUNS = 4
STEPS = 8
"""Times the largest change seen: an order of summation may be worse than a random one."""
_SUMS = frozenset(
    {
        *("mean", "sum", "cumsum", "mm", "bmm", "addmm", "baddbmm", "addmv", "mv", "dot", "convolution"),
        *("avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
    }
)
"""Operations of ATen that are linear in each argument and sum."""


def rounding_limits(model: nn.Module, inputs: Sequence[Tensor], outputs: int) -> list[float]:
    """How far each output may be off by rounding, in its own unit and in order; all 0 where the network does not run in float64.

    Args:
        model: in eval mode; it is not changed.
        inputs: as it takes them, of any shape.
        outputs: how many it has.
    """
    types = {tensor.dtype for tensor in (*model.parameters(), *model.buffers(), *inputs) if tensor.is_floating_point()}
    step = max((torch.finfo(kind).eps for kind in types), default=torch.finfo(torch.float32).eps)
    limits = [0.0] * outputs
    try:
        wide = copy.deepcopy(model).double()
        rows = [item.double() if item.is_floating_point() else item for item in inputs]
        with torch.no_grad():
            exact = list(named_outputs(wide(*rows)).values())
            for run in range(RUNS):
                with _Rounded(step, torch.Generator().manual_seed(run)):
                    rounded = named_outputs(wide(*rows)).values()
                changes = [_largest_change(*pair) for pair in zip(rounded, exact, strict=True)]
                limits = [max(limit, STEPS * change) for limit, change in zip(limits, changes, strict=True)]
    except Exception:  # user code raises anything; some asks for float32
        return [0.0] * outputs
    return limits


def _largest_change(output: Tensor, exact: Tensor) -> float:
    return float((output - exact).abs().max()) if exact.is_floating_point() and exact.numel() else 0.0


class _Rounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation that makes new numbers is off by up to one step."""

    def __init__(self, step: float, generator: torch.Generator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.step, self.generator = step, generator

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
        return result + (self.step * noise * size).nan_to_num(0.0, 0.0, 0.0)


def _is_float(item: Any) -> bool:
    return isinstance(item, Tensor) and item.is_floating_point()
