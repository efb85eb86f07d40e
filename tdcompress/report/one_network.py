"""What is said where pruning finds nothing to do: a dense.onnx that is pruned already, and rows that are one network."""

from tdcompress.records.report import Report, Row
from tdcompress.report import text
from tdcompress.report.series import as_trained, group, networks
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
    """Which rows are the same network under several names; the empty word where none are."""
    series, _ = networks(report.rows)
    same: dict[object, list[Row]] = {}
    for index, line in enumerate(series):
        for row in line.rows:
            same.setdefault((index, row.seed, row.layers, row.sparsity_prunable, row.accuracy_masked), []).append(row)
    told = [", ".join(row.id for row in rows) for rows in same.values() if len(rows) > 1]
    return f"Rows that are one network: {'; '.join(told)}." if told else ""
