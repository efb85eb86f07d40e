"""Accuracy against the pruned share: one line for each method and setting, named where it ends."""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tdcompress.records.report import Report, Row
from tdcompress.report import colours, text
from tdcompress.report.canvas import beside, canvas
from tdcompress.report.document import Figure
from tdcompress.report.series import Series, dense_accuracies, dense_accuracy, networks
from tdcompress.report.spacing import space_out
from tdcompress.report.zeros import pruned_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# More lines than this, or longer words, would crowd the names at the lines' ends: then a legend stands below.
NAMED_LINES_AT_MOST = 6
NAME_LENGTH_AT_MOST = 28
LINE_HEIGHT = 0.062  # of a line of text, in heights of the axes
# Characters that have room in the legend: in each of two columns, or in a single one, where longer labels are wrapped.
TWO_COLUMNS_AT_MOST = 32
LEGEND_LINE_AT_MOST = 70


def has_lines(rows: Sequence[Row]) -> bool:
    """Whether most networks were pruned at several shares; else a plot by rows tells more (`row_plots.plot_accuracy`)."""
    series, _ = networks(rows)
    return 2 * sum(len({point.share for point in line.points}) > 1 for line in series) >= len(series)


def captioned(report: Report) -> Figure:
    """What the plot shows, in words."""
    series, narrower = networks(report.rows)
    last = [(line.label, line.points[-1]) for line in series]
    ends = "; ".join(
        f"{label} {text.mean_of_seeds(point.accuracies, report.measure)} at {text.short_percent(point.share)} pruned"
        for label, point in last
    )
    scale = "Equal steps to the right halve what is kept. " if _by_kept(report.rows) else ""
    formats = " and ".join(dict.fromkeys(row.values for rows in narrower.values() for row in rows))
    hollow = f"Hollow: the same networks in {formats}. " if formats else ""
    again = any(row.accuracy_before is not None for row in report.rows)
    faint = "Faint: as pruned, before the statistics of BatchNorm were estimated again. " if again else ""
    means = (
        "Lines are means over seeds, each seed a faint dot. " if any(len(p.rows) > 1 for s in series for p in s.points) else ""
    )
    name, dotted = text.capital(report.measure.name), f"Dotted: {text.unpruned(report.rows, len(dense_accuracies(report.rows)))}."
    return Figure(
        name="accuracy",
        alt=f"{name} against pruned share. {ends}.",
        caption=f"{name} of the deployed files against what was pruned. {scale}{means}{hollow}{faint}{dotted}",
    )


def plot(report: Report) -> "Canvas":
    """Draw it; with several seeds a line is their mean, and each seed a faint dot.

    Number formats of one network nearly coincide: the line is float32, or the first format there is, and others are hollow dots.
    """
    series, narrower = networks(report.rows)
    styles = colours.styles(series)
    direct = len(series) <= NAMED_LINES_AT_MOST and all(len(line.detail) <= NAME_LENGTH_AT_MOST for line in series)
    columns = 2 if all(len(line.label) <= TWO_COLUMNS_AT_MOST for line in series) else 1
    labels = [textwrap.fill(line.label, LEGEND_LINE_AT_MOST, subsequent_indent="    ", break_on_hyphens=False) for line in series]
    legend_lines = 1 + sum(label.count("\n") + 1 for label in labels)
    drawing, (axes,) = canvas(3.7 if direct else 3.6 + 0.21 * math.ceil(legend_lines / columns))
    place, scale = _place(report.rows), report.measure.scale
    names = [_draw_line(axes, *each, place, scale) for each in zip(series, labels, styles, strict=True)]
    for line, style in zip(series, styles, strict=True):
        _draw_narrower(axes, [other for row in line.rows for other in narrower[row.id]], style, place, scale)
        _draw_before(axes, line, style, place, scale)
    _share_ticks(axes, report.rows, place)
    dense = scale * dense_accuracy(report.rows)
    told = f"{text.dense(report.rows)} {dense:.2f}"
    axes.axhline(dense, color=colours.MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1, label=told)
    names.append(_Name(words="", detail=told, colour=colours.MUTED, x=axes.get_xlim()[1], y=dense))
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.set_title(text.titled(report.measure.name, report.measure), loc="left", fontsize=9.5, color=colours.MUTED)
    axes.set_xlabel(f"pruned share of prunable {' and '.join(sorted({text.plural(row.granularity) for row in report.rows}))}")
    if direct:
        _name_lines(axes, names)
    else:
        drawing.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5)
    return drawing


@dataclass(frozen=True, kw_only=True)
class _Name:
    """A line's name, to be set beside its last point."""

    words: str
    detail: str
    colour: str
    x: float
    y: float


def _draw_line(
    axes: "Axes", line: Series, label: str, style: colours.Style, place: Callable[[float], float], scale: float
) -> _Name:
    xs = [place(point.share) for point in line.points]
    means = [scale * point.accuracy for point in line.points]
    axes.plot(
        xs,
        means,
        color=style.colour,
        linestyle="--" if style.dashed else "-",
        linewidth=1.8,
        marker=style.marker,
        markersize=style.marker_size,
        markeredgecolor=colours.SURFACE,
        markeredgewidth=0.8,
        label=label,
        clip_on=False,
        zorder=3,
    )
    if len(line.rows) > len(line.points):
        dots = [(place(pruned_share(row)), scale * row.accuracy_onnx) for row in line.rows]
        axes.plot(*zip(*dots, strict=True), ".", color=style.colour, alpha=0.45, markersize=5, zorder=2)
    return _Name(words=line.name, detail=line.detail, colour=style.colour, x=xs[-1], y=means[-1])


def _draw_narrower(
    axes: "Axes", rows: Sequence[Row], style: colours.Style, place: Callable[[float], float], scale: float
) -> None:
    if rows:
        dots = [(place(pruned_share(row)), scale * row.accuracy_onnx) for row in rows]
        axes.plot(*zip(*dots, strict=True), "o", color="none", markeredgecolor=style.colour, markersize=9, zorder=2)


def _draw_before(axes: "Axes", line: Series, style: colours.Style, place: Callable[[float], float], scale: float) -> None:
    """The line as it was before statistics were estimated again, where they were."""
    known = [(place(point.share), [row.accuracy_before for row in point.rows]) for point in line.points]
    points = [(x, scale * fmean(found)) for x, values in known if (found := [value for value in values if value is not None])]
    if points:
        axes.plot(*zip(*points, strict=True), color=style.colour, linewidth=1.0, alpha=0.45, clip_on=False, zorder=2)


def _by_kept(rows: Sequence[Row]) -> bool:
    return all(pruned_share(row) < 1 for row in rows)


def _place(rows: Sequence[Row]) -> Callable[[float], float]:
    """Where a pruned share stands: by the logarithm of what is kept, or linear where something keeps nothing."""
    return (lambda share: -math.log2(1 - share)) if _by_kept(rows) else (lambda share: share)


def _share_ticks(axes: "Axes", rows: Sequence[Row], place: Callable[[float], float]) -> None:
    """A tick at every pruned share that a row has, but where their labels would touch."""
    shares = sorted({pruned_share(row) for row in rows})
    left, right = place(shares[0]), place(shares[-1])
    width = right - left or 1
    axes.set_xlim(left - 0.02 * width, right + 0.02 * width)
    shown = [shares[-1]]
    for share in (shares[0], *reversed(shares)):
        if all(abs(place(other) - place(share)) > 0.12 * width for other in shown):
            shown.append(share)
    axes.set_xticks([place(share) for share in shown], [text.short_percent(share) for share in shown])


def _name_lines(axes: "Axes", names: Sequence[_Name]) -> None:
    """Name each line at its right end, names pushed apart where they would touch."""
    low, high = axes.get_ylim()
    height = LINE_HEIGHT * (high - low)
    needed = [height * (2.2 if name.words and name.detail else 1.2) for name in names]
    position: Any = ("axes fraction", "data")
    for name, centre in zip(names, space_out([name.y for name in names], needed), strict=True):
        axes.annotate(
            "",
            xy=(name.x, name.y),
            xytext=(1.03, centre),
            textcoords=position,
            arrowprops={"arrowstyle": "-", "color": name.colour, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 0, "shrinkB": 3},
            annotation_clip=False,
        )
        shift = height / 2 if name.words and name.detail else 0.0
        beside(axes, centre + shift, name.words, color=name.colour, fontsize=9.5, fontweight="bold")
        beside(axes, centre - shift, name.detail, color=name.colour, fontsize=8)
