"""What rounding does to weights: how far values move, how many are lost, and when that is too many."""

from dataclasses import dataclass

import numpy as np

from tdcompress.onnxfile.tensors import Array

MOST_LOST = 0.75
"""Share of a weight's values other than 0 that rounding may lose; one that would lose more is not rounded.

Of values with exponential tails, as trained weights have, integers of 4 bits lose about half, of the smallest ones, and networks
stand it. Where it is over three quarters, one value or a few are far out from the others.
"""
LOST_FROM = 0.9
"""A value is lost where rounding moves it by this share of its own size, or by more."""


def lost_share(exact: Array, rounded: Array) -> float:
    """Share (0..1) of values that say nothing any more, see `LOST_FROM`; zeros do not count.

    They became 0 or nearly 0, changed their sign, or about doubled. One huge value can do that to all others, and no error
    relative to the largest shows it.

    Args:
        exact: finite, of any shape.
        rounded: of the same shape.
    """
    kept, becomes = exact[exact != 0], rounded[exact != 0]
    return float(np.mean(np.abs(becomes - kept) >= np.float32(LOST_FROM) * np.abs(kept))) if kept.size else 0.0


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """What rounding did to several weights.

    Attributes:
        error: largest |rounded - exact| / max |exact| of a weight.
        underflows: values that became 0.
        lost: largest `lost_share` of a weight.
    """

    error: float = 0.0
    underflows: int = 0
    lost: float = 0.0

    def with_weight(self, exact: Array, rounded: Array) -> "Rounding":
        """The same, with one weight more: its values before and after rounding, of one shape."""
        largest = float(np.abs(exact).max(initial=0.0))
        error = float(np.abs(rounded - exact).max(initial=0.0)) / largest if largest else 0.0
        zeroed = int(np.count_nonzero((rounded == 0) & (exact != 0)))
        return Rounding(
            error=max(self.error, error),
            underflows=self.underflows + zeroed,
            lost=max(self.lost, lost_share(exact, rounded)),
        )
