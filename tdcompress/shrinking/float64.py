"""Float64 throughout: a forward pass in which no cast, default or literal tensor falls back to fewer bits."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_WIDE: Mapping[torch.dtype, torch.dtype] = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}


class _Widened(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operator in float64: ``x.float()`` casts to float64, and a float32 literal that meets it is widened."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        aliases = any(result.alias_info is not None for result in func._schema.returns)  # whose operand must stay that tensor

        def wide(item: Any) -> Any:
            if isinstance(item, torch.dtype):
                return _WIDE.get(item, item)
            if isinstance(item, Tensor) and not aliases:
                return item.to(_WIDE.get(item.dtype, item.dtype))
            return item

        if func is not torch.ops.aten.view.dtype:  # which reads bits, and computes nothing
            args, kwargs = pytree.tree_map(wide, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Run what follows in float64, whatever precision the forward code asks for (autocast leaves float64 alone)."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widened():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.set_default_dtype(default)
