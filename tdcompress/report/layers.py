"""How many weights each layer keeps: where a budget went, layer by layer."""

from tdcompress.records.report import Report, Row
from tdcompress.records.stages import LayerCount
from tdcompress.report import text
from tdcompress.report.tables import Table, number_columns, text_columns


def tables(report: Report) -> tuple[Table, ...]:
    """One row's layers, weights pruned; every row's are in report.json. Nothing where no weights were pruned."""
    pruned = [row for row in report.rows if row.layers and row.granularity != "unit" and row.sparsity_prunable > 0]
    if not pruned:
        return ()
    row = _shown(report, pruned)
    return (
        Table(
            title=f"Weights kept in each layer of {row.id}",
            columns=(*text_columns("layer", "shape"), *number_columns("weights", "kept", "kept, %")),
            rows=tuple(
                (layer.name, " x ".join(map(str, layer.shape)), f"{layer.total:,}", f"{layer.kept:,}", _percent(layer))
                for layer in row.layers
            ),
        ),
    )


def _percent(layer: LayerCount) -> str:
    return text.percent(layer.kept / layer.total)


def _shown(report: Report, pruned: list[Row]) -> Row:
    """The selected row if weights of it were pruned, else the sparsest."""
    selected = [row for row in pruned if row.id == report.selected]
    return (selected or sorted(pruned, key=lambda row: -row.sparsity_prunable))[0]
