"""What is really zero in a network, whatever was asked of its pruning: trainings can leave zeros too.

Masks that a schedule freezes end as zeros of the trained network, so do gates that are shut, and the released evaluation prunes
all candidates. Below that share pruning finds nothing to do.
"""

from collections.abc import Sequence

from tdcompress.records.report import Row
from tdcompress.records.stages import UnitCount

TOLERANCE = 0.005
"""Of a share: what lies so little above what was asked is told as that."""


def pruned_share(row: Row) -> float:
    """Share (0..1) of the prunable weights or units that is pruned: what was asked, or what is zero where that is more.

    Where a count per filter was kept, it is what is zero.
    """
    if row.fraction is None:
        return row.sparsity_prunable
    zero = _zero_share(row)
    return zero if zero > row.fraction + TOLERANCE else row.fraction


def _zero_share(row: Row) -> float:
    """Share of what the row prunes that is zero; of units only where they were counted."""
    if row.granularity != "unit":
        return row.sparsity_prunable
    counted = prunable_units(row)
    total = sum(units.total for units in counted)
    return 1 - sum(units.kept for units in counted) / total if total else 0.0


def prunable_units(row: Row) -> tuple[UnitCount, ...]:
    """Units of the layers that the row may prune; none where they were not counted."""
    prunable = {layer.name.removesuffix(".weight") for layer in row.layers}
    return tuple(units for units in row.units if units.name in prunable)


def trained_zeros(row: Row) -> float:
    """Share of the prunable weights that is zero before anything is pruned; 0 where there are hardly any, or nobody counted."""
    zeros = row.sparsity_trained or 0.0
    return zeros if zeros > TOLERANCE else 0.0


def dense_row(rows: Sequence[Row]) -> Row:
    """A row of the training whose network is dense.onnx: the first untargeted one, else the first."""
    return next((row for row in rows if row.method == "none"), rows[0])
