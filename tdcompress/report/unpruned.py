"""Why a network that was trained to be pruned can be worse unpruned: said where a report shows such a number."""

from collections.abc import Iterable

from tdcompress.records.report import Report, Row
from tdcompress.report import text
from tdcompress.report.headline import HEADLINE_DROP
from tdcompress.report.series import as_trained, group
from tdcompress.report.zeros import TOLERANCE


def explanation(report: Report) -> str | None:
    """Why accuracy at 0 % is low, for a report in which it is; else None.

    It is low if, unpruned, a network trained with targeted dropout is more than ``HEADLINE_DROP`` below the best untargeted one
    of the report, and below itself pruned: one whose masks were frozen is the same network either way, and what fine-tuning or
    new statistics gave it says nothing. A report without an untargeted one compares with the network's own prunings.
    """
    untargeted = [row.accuracy_dense for row in report.rows if row.method == "none"]
    found: list[tuple[float, str, float]] = []
    for series in group(as_trained(row) for row in report.rows if row.method == "targeted"):
        if not (prunings := [row for row in series.rows if _took_something(row)]):
            continue
        unpruned = _mean(row.accuracy_dense for row in series.rows)
        pruned = max(map(_as_pruned, prunings))
        bar = max(untargeted) if untargeted else pruned
        if unpruned < min(bar, pruned) - HEADLINE_DROP:
            found.append((unpruned, series.label, bar))
    if not found:
        return None
    unpruned, label, bar = min(found)
    beside = "the untargeted network has" if untargeted else "the same network has when it is pruned"
    measure = report.measure
    return (
        f"{text.capital(measure.name)} at 0 % pruned is low by design: {label} has {text.figure(unpruned, measure)} there, "
        f"and {beside} {text.figure(bar, measure)}. "
        "Targeted dropout trains a network with its smallest weights or units dropped most of the time. "
        "The weights that stay, and the statistics of BatchNorm where there is any, belong to that thinned network. "
        "The whole one hardly ever ran. Judge it near the share that it was trained for, gamma."
    )


def _took_something(row: Row) -> bool:
    """Whether pruning found weights that the training had not left at zero."""
    return row.sparsity_prunable > (row.sparsity_trained or 0.0) + TOLERANCE


def _as_pruned(row: Row) -> float:
    """Accuracy with the training's own statistics, and before fine-tuning."""
    return row.accuracy_masked if row.accuracy_before is None else row.accuracy_before


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
