"""Which kernel runs a layer: a count of the work that each would do, in the measured cost of its inner loop.

The sparse kernel pays per kept weight, the dense one per weight; per multiplication the dense kernel is cheaper because several filters
share each loaded row. docs/engine.md has the measurements behind the constants.
"""

from __future__ import annotations

from dataclasses import dataclass

CONV_DENSE_ADVANTAGE = 1.0
"""Cost of one sparse multiplication over that of a dense one, convolutions."""
LINEAR_DENSE_ADVANTAGE = 4.0
"""The same for fully connected layers, where the dense kernel uses whole vectors and the sparse one single numbers."""
FILTER_OVERHEAD = 2.0
"""What finishing one filter costs in the sparse kernel, in kept weights."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A kernel ("sparse" or "dense") and the reason, for people."""

    kernel: str
    why: str


def choose_conv(*, weights: int, zeros: int, filters: int, groups: int, filter_block: int) -> Choice:
    """For a convolution with `filters` filters in `groups` groups; the dense kernel works on `filter_block` filters at a time."""
    kept = weights - zeros
    per_group = filters // groups
    padded = -(-per_group // filter_block) * filter_block
    sparse = (kept + FILTER_OVERHEAD * filters) * CONV_DENSE_ADVANTAGE
    dense = weights * padded / per_group
    return _choice(sparse, dense, zeros, weights)


def choose_linear(*, weights: int, zeros: int, outputs: int) -> Choice:
    """For a fully connected layer with `outputs` rows."""
    return _choice((weights - zeros + FILTER_OVERHEAD * outputs) * LINEAR_DENSE_ADVANTAGE, weights, zeros, weights)


def _choice(sparse: float, dense: float, zeros: int, weights: int) -> Choice:
    share = f"{100 * zeros / weights:.1f} % zeros"
    if sparse < dense:
        return Choice(kernel="sparse", why=f"{share}: the kept weights alone cost {sparse / dense:.2f} of the dense kernel")
    return Choice(kernel="dense", why=f"{share}: skipping zeros would cost {sparse / dense:.2f} of the dense kernel")
