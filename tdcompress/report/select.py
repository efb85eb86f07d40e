"""Which row becomes model.onnx."""

from collections.abc import Callable, Mapping, Sequence

from tdcompress.errors import UserError
from tdcompress.records.measures import ACCURACY, Measure
from tdcompress.records.report import Row
from tdcompress.report import text
from tdcompress.report.tables import latency_under, main_setting

_TOLERANCE = 1e-9  # accuracies are counts / samples: 0.98 - 0.01 must not lose to 0.97 by a rounding


def select_row(
    rows: Sequence[Row], *, max_accuracy_drop: float, smallest: str, reference_accuracy: float, measure: Measure = ACCURACY
) -> tuple[str | None, str]:
    """Choose the smallest row that is accurate enough.

    Args:
        rows: all of a run.
        max_accuracy_drop: how far (0..1) the deployed accuracy may lie below the reference.
        smallest: "onnx_bytes", "parameters_nonzero", or "latency": the ratio to dense under the setting that most rows were
            measured in, where a ratio without a claim counts as 1.
        reference_accuracy: of the dense network (0..1).
        measure: what an accuracy is.

    Returns:
        The row's id and a sentence that says why; None with the reason if no row will do. On a tie the more accurate row
        wins, then the earlier.

    Raises:
        UserError: `smallest` is none of the three.
    """
    if smallest not in _MEASURES:
        raise UserError(f"export.select.smallest is {smallest!r}; it is one of {', '.join(_MEASURES)}")
    limit = (
        f"{text.number(max_accuracy_drop, measure)} points of the {text.dense(rows)} {text.figure(reference_accuracy, measure)}"
    )
    enough = [row for row in rows if row.accuracy_onnx >= reference_accuracy - max_accuracy_drop - _TOLERANCE]
    if not enough:
        best = max(rows, key=lambda row: row.accuracy_onnx, default=None)
        nearest = f"; the best is {best.id} with {text.figure(best.accuracy_onnx, measure)}" if best else "; there is none"
        return None, f"No row became model.onnx: none is within {limit}{nearest}."
    measured = [(row, value) for row in enough if (value := _MEASURES[smallest](rows, row)) is not None]
    if not measured:
        return None, f"No row became model.onnx: none of those within {limit} has a measured latency."
    row, value = min(measured, key=lambda item: (item[1], -item[0].accuracy_onnx))
    which = "" if len(measured) == len(enough) else " with a measured latency"
    others = "is the only row" if len(measured) == 1 else f"has the smallest {smallest} of the {len(measured)} rows"
    return row.id, f"{row.id} became model.onnx: it {others}{which} within {limit} ({_WORDS[smallest](value)})."


def _claimed_ratio(rows: Sequence[Row], row: Row) -> float | None:
    latency = latency_under(row, main_setting(rows))
    if latency is None:
        return None
    return 1.0 if latency.claim == "none" else latency.ratio_to_dense


_MEASURES: Mapping[str, Callable[[Sequence[Row], Row], float | None]] = {
    "onnx_bytes": lambda _, row: row.onnx_bytes,
    "latency": _claimed_ratio,
    "parameters_nonzero": lambda _, row: row.parameters_nonzero,
}
_WORDS: Mapping[str, Callable[[float], str]] = {
    "onnx_bytes": text.size,
    "latency": lambda value: "no difference in latency is claimed" if value == 1 else f"{text.ratio(value)} of the dense time",
    "parameters_nonzero": lambda value: f"{value:,.0f}",
}
