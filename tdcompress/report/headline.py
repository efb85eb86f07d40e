"""The paragraph a report begins with: only what its rows support."""

from collections.abc import Sequence
from typing import Literal

from tdcompress.records.measures import Measure
from tdcompress.records.report import Report, Row
from tdcompress.report import text
from tdcompress.report.series import Point, Series, dense_accuracies, dense_accuracy, networks
from tdcompress.report.tables import selected_row
from tdcompress.report.zeros import TOLERANCE, dense_row, trained_zeros

# The headline speaks of the largest share at which some network stays within this of the dense one. If none does at any share,
# the best pruned network takes the place of the dense one: the smallest share would only show how badly it begins.
HEADLINE_DROP = 0.02
_NAMES_AT_MOST = 6


def sentences(report: Report) -> tuple[str, ...]:
    """What was kept at which pruned share, or why that says nothing; what was chosen, and what may be said about latency."""
    if not report.rows:
        return ("No network was deployed.",)
    chosen = selected_row(report)
    told = [report.warning] if report.warning else list(_accuracy(report.rows, report.measure, report.test_samples))
    if chosen is None:
        told.append("No row became model.onnx.")
    else:
        told += [_selection(chosen, report.measure), *_latency(chosen)]
    return tuple(told)


def _accuracy(rows: Sequence[Row], measure: Measure, test_samples: int) -> tuple[str, ...]:
    series, _ = networks(rows)  # number formats of one network would fill the list
    dense = f"{text.dense(rows)} {text.mean_of_seeds(dense_accuracies(rows), measure)}"
    at = _telling_share(series, None if trained_zeros(dense_row(rows)) else dense_accuracy(rows))
    if at is None:
        return (f"Nothing was pruned; {dense}.",)
    share, reference = at
    found = [(line, point) for line in series if (point := _point_at(line, share))]
    found.sort(key=lambda item: -item[1].accuracy)
    more = any(point.share > share + TOLERANCE for _, point in found)
    told = [f"{line.label} {text.mean_of_seeds(point.accuracies, measure, _beyond(point, share))}" for line, point in found]
    if len(told) > _NAMES_AT_MOST:  # the best ones, and the worst so that the list does not flatter
        told[_NAMES_AT_MOST - 1 : -1] = [f"{len(told) - _NAMES_AT_MOST} more"]
    names = ", ".join(told)
    drop = _points(HEADLINE_DROP, measure)
    rule = f"{text.short_percent(share)} is the largest share {'asked for ' * more}here at which a network "
    if reference == "dense":
        rule += f"loses at most {drop}"
    else:
        rule += f"has at most {drop} less than the best pruned one"
    if reference == "too far":
        rule = f"Every pruned network here loses more than {drop}. {rule}"
    one_sample = (
        f"; one of the {test_samples:,} test samples is {_points(1 / test_samples, measure)}" if measure.counts_samples else ""
    )
    return (
        f"At {text.short_percent(share)} pruned{' or more' * more}: {names}; {dense}.",
        f"{rule}{one_sample}.",
    )


def _beyond(point: Point, share: float) -> str:
    """What is pruned of a network whose training left more zeros than pruning was asked for."""
    return f"{text.short_percent(point.share)} pruned" if point.share > share + TOLERANCE else ""


def _telling_share(series: Sequence[Series], dense: float | None) -> tuple[float, Literal["dense", "too far", "none"]] | None:
    """The pruned share to speak of, and what it is measured by; None if nothing was pruned.

    Args:
        series: what was pruned.
        dense: accuracy of the unpruned network; None where there is no such.

    Returns:
        With the share "dense" where a network is within the drop of that one, "too far" where none is, "none" without one.
    """
    best: dict[float, float] = {}
    for line in series:
        for point in line.points:
            if (share := _compared_at(line, point)) > 0:
                best[share] = max(point.accuracy, best.get(share, 0.0))
    if not best:
        return None
    most = max(best.values())
    within = dense is not None and most >= dense - HEADLINE_DROP - 1e-9
    least = (dense if dense is not None and within else most) - HEADLINE_DROP - 1e-9
    share = max(share for share in best if best[share] >= least)
    return share, "none" if dense is None else "dense" if within else "too far"


def _point_at(line: Series, share: float) -> Point | None:
    """The point of a line that is compared there; of several the one that has most pruned."""
    return next((point for point in reversed(line.points) if _compared_at(line, point) == share), None)


def _compared_at(line: Series, point: Point) -> float:
    """Where a point stands beside those of other lines: at the share that was asked for, for real zeros would match no other.

    At what is pruned where that is less, or where none of the line was asked for.
    """
    asked = any(other.asked != 0 for other in line.points)
    share = point.share if point.asked is None or not asked else min(point.asked, point.share)
    return round(share, 4)


def _points(share: float, measure: Measure) -> str:
    points = f"{measure.scale * share:.2f}".rstrip("0").rstrip(".")
    return f"{points} point{'s' * (points != '1')}"


def _selection(row: Row, measure: Measure) -> str:
    return (
        f"{row.id} became model.onnx: {text.size(row.onnx_bytes)}, {text.ratio(row.onnx_bytes / row.dense_onnx_bytes)} of the "
        f"dense file, {text.figure(row.accuracy_onnx, measure)} under the runtime."
    )


def _latency(row: Row) -> list[str]:
    """A sentence per measurement; one without a claim says so, and never which way its ratio lies."""
    if not row.latency:
        return ["Its latency was not measured."]
    told = []
    for latency in row.latency:
        where = f"on {latency.host} ({text.setting(latency)})"
        if latency.claim == "none":
            because = f": {latency.reason}" if latency.reason else ""
            told.append(f"No difference in latency from the dense file is claimed {where}{because.rstrip('.')}.")
        else:
            told.append(f"It is {latency.claim} than the dense file {where}: {text.interval(latency)} of its time.")
    return told
