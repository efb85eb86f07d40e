"""How few bytes a weight can take whose zeros follow a pattern: where they are says less than of single weights.

"2:4": of every four neighbours along the input channels two are kept, zero or not. "1x4": of four neighbouring filters the
same weights are kept.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from tdcompress.onnxfile.tensors import position_bits

GROUP = 4
AXES = 2  # of filters and input channels: which is which, exporters decide
_CHOICES = math.comb(GROUP, GROUP // 2)


def pattern_bounds(kept: NDArray[np.bool_], per_value: float, pattern: str) -> Iterator[float]:
    """Lower bounds of a weight's bytes, of each way in which it follows the pattern; none where it follows none.

    Args:
        kept: which elements are not zero, of the weight's shape.
        per_value: bytes of one.
        pattern: "2:4" or "1x4"; others are no patterns.
    """
    if pattern not in _BOUNDS:
        return
    for axis in range(min(AXES, kept.ndim)):
        if kept.ndim >= AXES and kept.shape[axis] and kept.shape[axis] % GROUP == 0:
            yield from _BOUNDS[pattern](np.moveaxis(kept, axis, -1).reshape(-1, kept.shape[axis] // GROUP, GROUP), per_value)


def _two_of_four(groups: NDArray[np.bool_], per_value: float) -> Iterator[float]:
    """Each of the groups (..., 4) keeps one of six pairs."""
    if groups.sum(-1).max() <= GROUP // 2:
        yield groups.size / 2 * per_value + groups.size / GROUP * math.log2(_CHOICES) / 8


def _blocks(groups: NDArray[np.bool_], per_value: float) -> Iterator[float]:
    """Blocks (..., 4) are kept or not, whole."""
    blocks = groups.any(-1)
    kept = int(blocks.sum())
    yield GROUP * kept * per_value + position_bits(blocks.size, kept) / 8


_BOUNDS: Mapping[str, Callable[[NDArray[np.bool_], float], Iterator[float]]] = {"2:4": _two_of_four, "1x4": _blocks}
