"""A report shows where a budget of weights went."""

from dataclasses import replace

from tdcompress.records.stages import LayerCount
from tdcompress.report.layers import tables

LAYERS = (
    LayerCount(name="a.weight", shape=(4, 3, 3, 3), total=108, kept=27),
    LayerCount(name="b.weight", shape=(10, 4), total=40, kept=4),
)


def test_layers_of_the_selected_row_else_of_the_sparsest(report) -> None:
    assert tables(report) == ()  # as written by an earlier version: no layers
    rows = tuple(replace(row, layers=LAYERS, granularity="weight") for row in report.rows)
    (table,) = tables(replace(report, rows=rows, selected=rows[3].id))
    assert table.title == f"Weights kept in each layer of {rows[3].id}"
    assert table.rows == (("a.weight", "4 x 3 x 3 x 3", "108", "27", "25.00"), ("b.weight", "10 x 4", "40", "4", "10.00"))
    (table,) = tables(replace(report, rows=rows, selected=None))
    sparsest = max(rows, key=lambda row: row.sparsity_prunable)
    assert table.title.endswith(sparsest.id)


def test_rows_that_lost_no_weights_have_no_such_table(report) -> None:
    dense = tuple(replace(row, layers=LAYERS, granularity="weight", sparsity_prunable=0.0) for row in report.rows)
    units = tuple(replace(row, layers=LAYERS, granularity="unit") for row in report.rows)
    assert tables(replace(report, rows=dense)) == tables(replace(report, rows=units)) == ()
