"""The numbers among an operator's arguments: which of them values are computed with."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx
from torch.utils import _pytree as pytree

from tdcompress.shrinking.calls import FRESH, SIZED, base_name

# Operators whose numbers say which elements are taken, or in which shape.
_NORMS = frozenset(["group_norm", "layer_norm", "native_group_norm", "native_layer_norm"])
_REPEATS = frozenset(["repeat", "tile", "repeat_interleave"])
_PLACED = SIZED | _NORMS | _REPEATS | frozenset(["as_strided", "slice", "select", "narrow", "roll", "arange"])
_PICKING = frozenset(["slice", "select", "narrow"])
_WINDOWS = ("upsample", "adaptive", "avg_pool", "max_pool")
_BORDERED = frozenset(("pad", "constant_pad_nd"))
_CREATING = frozenset(("full", "zeros", "ones", "empty", "rand", "randn"))


def written_sizes(node: fx.Node) -> list[object]:
    """Arguments that are numbers but no sizes: scales, epsilons, strides, bounds of slices."""
    name = base_name(node.target)
    if name in SIZED or name in ("group_norm", "layer_norm") or "conv" in name:
        return []
    return _numbers((node.args, node.kwargs))


def computing_numbers(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], *, places: bool = False) -> list[object]:
    """The numbers that values are computed with: not shapes, places, windows and widths of borders, which make no constant.

    Args:
        target: an operator.
        args: its arguments; tensors, or nodes in their place.
        kwargs: likewise.
        places: take places for such numbers all the same.
    """
    name = base_name(target)
    if not places and (name in _PLACED or name.lstrip("_").startswith(_WINDOWS) or "conv" in name):
        return []
    shape = 0 if name in _CREATING else 1 if name in FRESH | _BORDERED else None  # or widths of borders
    kept = [item for index, item in enumerate(args) if index != shape]
    return _numbers((kept, {key: value for key, value in kwargs.items() if key not in ("size", "pad")}))


def zeros_taken(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[bool]:
    """Which whole numbers among an operator's arguments are 0: where one is, there may be no border, or nothing that is added."""
    return [item == 0 for item in _numbers((args, kwargs)) if isinstance(item, int)]


def picks(target: Any) -> bool:
    """Whether an operator takes the elements at some places of a tensor."""
    return base_name(target) in _PICKING


def _numbers(arguments: object) -> list[object]:
    return [item for item in pytree.tree_leaves(arguments) if not isinstance(item, Tensor | fx.Node)]
