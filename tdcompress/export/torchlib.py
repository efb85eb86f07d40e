"""torch's table of ONNX functions, made once for all exports of a process.

torch.onnx.export makes it anew each time: it parses the source of some 500 functions, which takes longer than all the rest of
a small network's export. A run exports many. The table depends on the opset and on the operators that are registered, and on
nothing of the network. The place is private to torch: where it is not as known here, exports are as slow as torch makes them.
"""

import copy
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

LATE = ("torchvision::", "quantized_decomposed::")
"""Operators that the table names and that packages register when they are imported: perhaps between two exports."""

_made: dict[Hashable, Any] = {}


@contextmanager
def table_made_once() -> Iterator[None]:
    """Within the block, exports share the tables that earlier ones made; each gets a copy that it may add to."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        own = vars(ONNXRegistry)["from_torchlib"]
        make, operators = own.__func__, torch._C._dispatch_get_all_op_names
    except (ImportError, AttributeError, KeyError):
        yield
        return

    def remembered(cls: type[Any], *arguments: Any, **options: Any) -> Any:
        late = frozenset(name for name in operators() if name.startswith(LATE))
        key = (arguments, tuple(sorted(options.items())), late)
        if key not in _made:
            _made[key] = make(cls, *arguments, **options)
        table = copy.copy(_made[key])
        table.functions = {target: list(functions) for target, functions in table.functions.items()}
        return table

    ONNXRegistry.from_torchlib = classmethod(remembered)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = own  # type: ignore[method-assign]
