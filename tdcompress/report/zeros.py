"""What is really zero in a network, whatever was asked of its pruning: trainings can leave zeros too.

Masks that a schedule freezes end as zeros of the trained network, so do gates that are shut, and the released evaluation prunes
all candidates. Below that share pruning finds nothing to do.
"""

from collections.abc import Sequence

from tdcompress.records.report import Row
from tdcompress.records.stages import UnitCount

TOLERANCE = 0.005
"""Of a share: what lies so little above or below what was asked is told as that."""

STAYS_AT_MOST = 1.25
"""How many times what was to stay may stay, for the share to be told as it was asked."""


def pruned_share(row: Row) -> float:
    """Share (0..1) of the prunable weights or units that is pruned: what was asked, or went where that is less, or is zero.

    What is zero is told where it is more. Where a count per filter was kept, it is what is zero.
    """
    if row.fraction is None:
        return row.sparsity_prunable
    zero, gone = _zero_share(row), _gone_share(row, row.fraction)
    return zero if zero > gone + TOLERANCE else gone


def _gone_share(row: Row, fraction: float) -> float:
    """The fraction as it was asked, however a filter's floor rounds it; where much had to stay beyond that, what went."""
    counted = row.pruned
    if counted is None:
        return fraction
    little = counted.asked - counted.gone <= TOLERANCE * counted.total
    stays, meant = counted.total - counted.gone, counted.total - counted.asked
    return fraction if little and stays <= STAYS_AT_MOST * meant else min(fraction, counted.gone / counted.total)


def _zero_share(row: Row) -> float:
    """Share of what the row prunes that is zero; of units only where they were counted.

    Layers that pruning left whole do not count: some streams cannot be narrowed. Where zeros are in more than it may take, all of
    their layers do.
    """
    if row.granularity != "unit":
        return row.sparsity_prunable
    counted = prunable_units(row)
    if row.pruned is None:
        total = sum(units.total for units in counted)
    else:
        total = max(row.pruned.total, sum(units.total for units in counted if units.kept < units.total))
    return sum(units.total - units.kept for units in counted) / total if total else 0.0


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
