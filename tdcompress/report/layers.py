"""How many weights or units each layer keeps: where a budget went, layer by layer, row beside row."""

from collections.abc import Callable, Sequence

from tdcompress.records.report import Report, Row
from tdcompress.records.stages import LayerCount, UnitCount
from tdcompress.report import text
from tdcompress.report.tables import Table, number_columns, text_columns
from tdcompress.report.zeros import prunable_units

ROWS_AT_MOST = 8
"""Beside one another in a table."""

LayerCounts = tuple[LayerCount | UnitCount, ...]


def tables(report: Report) -> tuple[Table, ...]:
    """Of rows whose weights were pruned, and of those whose units were; rows with the same counts share a column."""
    return (
        *_table(report, "weights", lambda row: () if row.granularity == "unit" else row.layers),
        *_table(report, "units", prunable_units),
    )


def _table(report: Report, counted: str, counts_of: Callable[[Row], LayerCounts]) -> tuple[Table, ...]:
    """One table, or none where no such were pruned."""
    rows: dict[LayerCounts, list[Row]] = {}
    for row in report.rows:
        if any(layer.kept < layer.total for layer in counts_of(row)):
            rows.setdefault(counts_of(row), []).append(row)
    if not rows:
        return ()
    shown = _shown(rows, report.selected)
    layers = {layer.name: layer for counts in shown for layer in counts}
    kept = [{layer.name: layer for layer in counts} for counts in shown]
    told = "" if len(shown) == len(rows) else f", {len(shown)} of {len(rows)} different counts: report.json has all"
    return (
        Table(
            title=f"{text.capital(counted)} kept in each layer{told}",
            columns=(
                *text_columns("layer"),
                *number_columns(counted, *(str(number) for number in range(1, len(shown) + 1))),
            ),
            rows=(
                *(
                    (_named(layer), f"{layer.total:,}", *(_cell([own.get(name)]) for own in kept))
                    for name, layer in layers.items()
                ),
                (
                    "all of these",
                    f"{sum(layer.total for layer in layers.values()):,}",
                    *(_cell(list(own.values())) for own in kept),
                ),
            ),
            notes=tuple(_names(rows[counts], report.selected) for counts in shown),
        ),
    )


def _shown(rows: dict[LayerCounts, list[Row]], selected: str | None) -> list[LayerCounts]:
    """The counts that have room, in their order: the selected row's, and those that keep least."""
    first = sorted(
        rows,
        key=lambda counts: (
            all(row.id != selected for row in rows[counts]),
            sum(layer.kept for layer in counts) / sum(layer.total for layer in counts),
        ),
    )
    return [counts for counts in rows if counts in first[:ROWS_AT_MOST]]


def _cell(layers: Sequence[LayerCount | UnitCount | None]) -> str:
    """Kept of all, summed: "480 (10.4 %)"; a dash where a row may not prune the layer."""
    known = [layer for layer in layers if layer is not None]
    if not known:
        return "-"
    kept = sum(layer.kept for layer in known)
    return f"{kept:,} ({text.percent(kept / sum(layer.total for layer in known), 1)} %)"


def _named(layer: LayerCount | UnitCount) -> str:
    """By name, and with the shape of its weights where these are counted."""
    return f"{layer.name}, {' x '.join(map(str, layer.shape))}" if isinstance(layer, LayerCount) else layer.name


def _names(rows: Sequence[Row], selected: str | None) -> str:
    """Rows of one column, the selected one first."""
    ids = sorted((row.id for row in rows), key=lambda name: name != selected)
    return ", ".join(f"{name} (model.onnx)" if name == selected else name for name in ids)
