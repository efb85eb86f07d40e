"""Plots that have a line for each row of the report: accuracy, bytes beside their bound, latency with its interval."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tdcompress.records.latency import RowLatency
from tdcompress.records.report import Report, Row
from tdcompress.report import colours, text
from tdcompress.report.canvas import beside, canvas
from tdcompress.report.document import Figure
from tdcompress.report.row_names import labels
from tdcompress.report.series import dense_accuracies, dense_accuracy, networks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

ROW_INCHES = 0.27
LABELS_AT_MOST = 4  # of an x axis beside names of the greatest length
BYTES = Figure(
    name="bytes",
    alt="Bytes of each row's ONNX file beside the information bound of its weights and the dense file.",
    caption="Filled: the ONNX file, with its size and its ratio to the dense file. Hollow: the bound, an ideal code of the kept "
    "weights and their positions. Dotted: the dense file.",
)
LATENCY = Figure(
    name="latency",
    alt="Each row's latency ratio to the dense network with its 95 % interval, one panel for each host and setting.",
    caption="Time / time of the dense network with 95 % intervals; left of the line is faster. Filled: a difference is claimed. "
    "Hollow: none is.",
)
_RATIO_TICKS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20)
_SIZE_TICKS = tuple(float(base * 1024**power) for power in range(4) for base in (1, 4, 16, 64, 256))


def accuracy_figure(report: Report) -> Figure:
    """What the plot of the measure shows, in words."""
    name, dense = text.capital(report.measure.name), text.unpruned(report.rows, len(dense_accuracies(report.rows)))
    return Figure(
        name="accuracy",
        alt=f"{name} of each row's deployed file beside that of {dense}.",
        caption=f"{name} of the deployed files, and how many points they lie above or below {dense}, which is dotted.",
    )


def plot_accuracy(report: Report) -> "Canvas":
    """Each row's accuracy, and its difference to the unpruned network: for runs whose networks are no lines."""
    rows = report.rows
    drawing, (axes,) = canvas(0.9 + ROW_INCHES * len(rows))
    colour_of = _row_colours(rows)
    measure = report.measure
    dense, values = measure.scale * dense_accuracy(rows), [measure.scale * row.accuracy_onnx for row in rows]
    low, high = min(dense, *values), max(dense, *values)
    margin = max(0.04 * (high - low), 0.5)
    axes.set_xlim(low - margin, high + margin)
    axes.axvline(dense, color=colours.MUTED, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    for level, (row, value) in enumerate(zip(rows, values, strict=True)):
        colour = colour_of[row.id]
        axes.plot([dense, value], [level, level], color=colour, linewidth=1.2, alpha=0.5, zorder=2)
        axes.plot(value, level, "o", color=colour, markersize=6, zorder=4)
        beside(axes, level, f"{text.figure(row.accuracy_onnx, measure)} · {value - dense:+.2f}", color=colour, fontsize=8.5)
    _row_axis(axes, report, rows)
    axes.set_xlabel(text.titled(measure.name, measure))
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x")
    return drawing


def plot_bytes(report: Report) -> "Canvas":
    """File and bound of each row on a logarithmic scale."""
    rows = report.rows
    drawing, (axes,) = canvas(0.9 + ROW_INCHES * len(rows))
    colour_of = _row_colours(rows)
    sizes = [size for row in rows for size in (row.onnx_bytes, row.bound_bytes, row.dense_onnx_bytes) if size > 0]
    _log_axis(axes, min(sizes) / 1.25, max(sizes) * 1.25, _SIZE_TICKS)
    axes.xaxis.set_major_formatter(lambda value, _: text.size(value).replace(".0 ", " ").replace(".00 ", " "))
    for dense in sorted({row.dense_onnx_bytes for row in rows}):
        axes.axvline(dense, color=colours.MUTED, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    for level, row in enumerate(rows):
        colour = colour_of[row.id]
        if row.bound_bytes > 0:
            axes.plot([row.bound_bytes, row.onnx_bytes], [level, level], color=colour, linewidth=1.2, alpha=0.5, zorder=2)
            axes.plot(row.bound_bytes, level, "o", color=colours.SURFACE, markeredgecolor=colour, markersize=5.5, zorder=3)
        axes.plot(row.onnx_bytes, level, "o", color=colour, markersize=6, zorder=4)
        words = f"{text.size(row.onnx_bytes)} · {text.ratio(row.onnx_bytes / row.dense_onnx_bytes)}"
        beside(axes, level, words, color=colour, fontsize=8.5)
    _row_axis(axes, report, rows)
    return drawing


def plot_latency(report: Report) -> "Canvas":
    """A panel for each host and setting, hosts in the order of the rows, all on one scale."""
    panels = _panels(report)
    heights = [ROW_INCHES * len(points) + 0.8 for _, points in panels]
    drawing, all_axes = canvas(sum(heights), heights)
    every = [latency for _, points in panels for _, latency in points]
    low, high = min(latency.ratio_low for latency in every), max(latency.ratio_high for latency in every)
    for axes, (title, points) in zip(all_axes, panels, strict=True):
        _log_axis(axes, min(low, 1) / 1.06, max(high, 1) * 1.06, _RATIO_TICKS)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.axvline(1, color=colours.MUTED, linewidth=1, zorder=1)
        for level, (_, latency) in enumerate(points):
            _draw_interval(axes, level, latency)
        _row_axis(axes, report, [row for row, _ in points])
        # The title starts at the figure's left edge, for a host's name is long; an empty one keeps the room above the axes.
        axes.set_title(" ", pad=8)
        position: Any = ("figure fraction", "axes fraction")
        axes.annotate(
            title, (0.01, 1), (0, 10), xycoords=position, textcoords="offset points", annotation_clip=False, in_layout=False
        )
    all_axes[-1].set_xlabel("time / dense time")
    return drawing


def _row_colours(rows: Sequence[Row]) -> dict[str, str]:
    """By row id: one colour for a series, whatever number format a file holds."""
    series, narrower = networks(rows)
    return {
        same.id: style.colour
        for line, style in zip(series, colours.styles(series), strict=True)
        for row in line.rows
        for same in (row, *narrower[row.id])
    }


def _panels(report: Report) -> list[tuple[str, list[tuple[Row, RowLatency]]]]:
    found: dict[str, list[tuple[Row, RowLatency]]] = {}
    for row in report.rows:
        for latency in row.latency:
            found.setdefault(f"{text.shorten(latency.host, 45)} · {text.setting(latency)}", []).append((row, latency))
    hosts = list(dict.fromkeys(latency.host for row in report.rows for latency in row.latency))
    return sorted(found.items(), key=lambda panel: hosts.index(panel[1][0][1].host))


def _draw_interval(axes: "Axes", level: int, latency: RowLatency) -> None:
    colour = {"faster": colours.FASTER, "slower": colours.SLOWER, "none": colours.NO_CLAIM}[latency.claim]
    filling = colours.SURFACE if latency.claim == "none" else colour
    axes.plot([latency.ratio_low, latency.ratio_high], [level, level], color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
    axes.plot(
        latency.ratio_to_dense, level, "o", color=filling, markeredgecolor=colour, markeredgewidth=1.3, markersize=6, zorder=3
    )
    beside(axes, level, text.latency(latency), color=colour, fontsize=8.5)


def _row_axis(axes: "Axes", report: Report, rows: Sequence[Row]) -> None:
    """Rows from top to bottom by name; the one that became model.onnx is bold."""
    label_of = labels(report)
    axes.set_yticks(range(len(rows)), [label_of[row.id] for row in rows])
    for row, label in zip(rows, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if row.id == report.selected else "normal")
    axes.tick_params(axis="y", length=0, labelcolor=colours.INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)


def _log_axis(axes: "Axes", low: float, high: float, candidates: Sequence[float]) -> None:
    """A logarithmic x axis with round ticks, 1 first, as many as have room for their labels; no minor ones."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    room = math.log(high / low) / LABELS_AT_MOST
    shown: list[float] = []
    for value in sorted(candidates, key=lambda value: (value != 1, value)):
        if low <= value <= high and all(abs(math.log(value / other)) >= room for other in shown):
            shown.append(value)
    axes.set_xticks(sorted(shown))
    axes.minorticks_off()
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", which="major")
