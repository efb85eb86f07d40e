"""Labels that would touch, moved as little as possible."""

from collections.abc import Sequence

import numpy as np


def space_out(wanted: Sequence[float], needed: Sequence[float]) -> list[float]:
    """Centres as near to the wanted ones as can be (least squares), in the same order, each with the room it needs.

    Subtract from each centre its offset in the tightest packing. What is left has to be non-decreasing. The nearest such sequence
    is its isotonic regression: neighbours that would touch form a block, at the mean of what its members want.

    Args:
        wanted: N centres, in the units of the axis.
        needed: the room of each, N sizes in the same units.
    """
    from scipy.optimize import isotonic_regression  # slow to import, and only where something is drawn

    if not len(wanted):
        return []
    order = np.argsort(wanted, kind="stable")
    sizes = np.asarray(needed, dtype=float)[order]
    offsets = np.concatenate([[0.0], np.cumsum((sizes[:-1] + sizes[1:]) / 2)])
    centres = np.empty(len(wanted))
    centres[order] = isotonic_regression(np.asarray(wanted, dtype=float)[order] - offsets).x + offsets
    return [float(centre) for centre in centres]
