"""What is said where pruning finds nothing to do: a dense.onnx that is pruned already, and rows that are one network."""

import json

from tdcompress.records.report import Report, Row
from tdcompress.report import text
from tdcompress.report.series import as_trained, group, one_file_each, training_identity
from tdcompress.report.zeros import dense_row, trained_zeros


def explanations(report: Report) -> tuple[str, ...]:
    """What of this there is to say, a paragraph each."""
    return tuple(filter(None, (_not_dense(report), _alike(report))))


def _not_dense(report: Report) -> str:
    """Why dense.onnx is no network to compare with, and what to do; the empty word where it is one."""
    if not report.rows or not (zeros := trained_zeros(row := dense_row(report.rows))):
        return ""
    (series,) = group([as_trained(row)])
    return (
        f"dense.onnx is not dense: training with {series.label} left {text.short_percent(zeros)} of its prunable weights at "
        "zero. Whatever is compared with it is compared with that network. "
        'For an unpruned one add a combination with sparsity.method = "none" to the recipe.'
    )


def _alike(report: Report) -> str:
    """Which rows are the same network under several names; the empty word where none are.

    They are prunings of one training that keep as much of each layer, answer alike, and were not trained on differently. Rows of
    several series can be: what was not pruned is the same by weights and by units.
    """
    same: dict[object, list[Row]] = {}
    for row in one_file_each(report.rows):
        same.setdefault(_network(row), []).append(row)
    told = [", ".join(row.id for row in rows) for rows in same.values() if len(rows) > 1]
    return f"Rows that are one network: {'; '.join(told)}." if told else ""


def _network(row: Row) -> tuple[object, ...]:
    """What rows agree in that are one network, as far as a report knows."""
    tuned = [row.finetune_epochs, row.finetune_after, _keys(row, "finetune.")]
    found = (row.layers, row.units, row.sparsity_prunable, row.accuracy_masked, row.accuracy_onnx)
    return (*training_identity(row), *found, json.dumps([_way(row), tuned], sort_keys=True), row.values)


def _way(row: Row) -> list[object]:
    """How it was pruned, where that took something: what is left of two ways can be as many weights, and as bad."""
    took = row.sparsity_prunable > (row.sparsity_trained or 0.0)
    return [row.granularity, row.scope, row.unit, row.shares, _keys(row, "prune.")] if took else []


def _keys(row: Row, table: str) -> dict[str, object]:
    return {key: value for key, value in row.differs.items() if key.startswith(table)}
