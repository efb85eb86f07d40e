"""Three plots: accuracy against pruned share, bytes against the information bound, latency with its intervals.

The only module that needs matplotlib, and only when it draws: ``available`` says whether it is there.
"""

import importlib.util
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tdcompress.records import Report, Row, RowLatency
from tdcompress.report import colours, text
from tdcompress.report.document import Figure
from tdcompress.report.series import Series, dense_accuracy, group, mean_accuracy, pruned_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

WIDTH_INCHES = 7.0
ROW_INCHES = 0.27
NAMED_LINES_AT_MOST = 9


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One plot, drawn."""

    figure: Figure
    svg: str
    png: bytes


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(report: Report) -> tuple[Drawing, ...]:
    """All plots that the report has numbers for."""
    drawings = []
    if report.rows:
        drawings.append(_render(_accuracy_figure(report), lambda: _accuracy(report)))
        drawings.append(_render(_bytes_figure(), lambda: _bytes(report)))
    if any(row.latency for row in report.rows):
        drawings.append(_render(_latency_figure(), lambda: _latency(report)))
    return tuple(drawings)


def inline(drawing: Drawing) -> str:
    """The SVG element for a page: ids made unique, colours taken from the page's variables, so that it follows dark mode."""
    svg = drawing.svg[drawing.svg.index("<svg") :]
    svg = re.sub(r'(?<=\sid=")|(?<=url\(#)|(?<=href="#)', f"{drawing.figure.name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, variable in colours.VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg


def _render(figure: Figure, plot: "Callable[[], Canvas]") -> Drawing:
    with _look(figure.name):
        canvas = plot()
        vector, pixels = io.StringIO(), io.BytesIO()
        # Fixed metadata and hash salt: the same numbers give the same files.
        canvas.savefig(vector, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        canvas.savefig(pixels, format="png", dpi=180, facecolor=colours.SURFACE, metadata={"Software": None})
    return Drawing(figure=figure, svg=vector.getvalue(), png=pixels.getvalue())


@contextmanager
def _look(name: str) -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(
        {
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],  # part of matplotlib: the same picture on every machine
            "font.size": 9.5,
            "text.color": colours.INK,
            "axes.labelcolor": colours.MUTED,
            "axes.edgecolor": colours.GRID,
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "xtick.color": colours.GRID,
            "ytick.color": colours.GRID,
            "xtick.labelcolor": colours.MUTED,
            "ytick.labelcolor": colours.MUTED,
            "grid.color": colours.GRID,
            "grid.linewidth": 0.6,
            "svg.fonttype": "none",
            "svg.hashsalt": name,
        }
    ):
        yield


def _canvas(height: float, panels: Sequence[float] = (1,)) -> "tuple[Canvas, list[Axes]]":
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(WIDTH_INCHES, height), layout="constrained")
    grid = canvas.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": panels})
    return canvas, list(grid[:, 0])


# Accuracy -------------------------------------------------------------------------------------------------------------------


def _accuracy_figure(report: Report) -> Figure:
    series = group(report.rows)
    ends = "; ".join(
        f"{line.label} {text.percent(line.rows[-1].accuracy_onnx)} % at {text.short_percent(pruned_share(line.rows[-1]))} pruned"
        for line in series
    )
    return Figure(
        name="accuracy",
        alt=f"Accuracy against pruned share. {ends}.",
        caption="Accuracy of the deployed files against the pruned share of prunable weights or units. Equal steps to the right halve "
        "what is kept.",
    )


def _accuracy(report: Report) -> "Canvas":
    series = group(report.rows)
    styles = colours.styles(series)
    canvas, (axes,) = _canvas(3.9)
    place = _kept_scale(report.rows)
    ends: list[tuple[float, float]] = []
    for line, style in zip(series, styles, strict=True):
        shares = sorted({pruned_share(row) for row in line.rows})
        means = [100 * mean_accuracy([row for row in line.rows if pruned_share(row) == share]) for share in shares]
        xs = [place(share) for share in shares]
        axes.plot(
            xs,
            means,
            color=style.colour,
            linestyle="--" if style.dashed else "-",
            linewidth=1.8,
            marker=style.marker,
            markersize=5.5,
            markeredgecolor=colours.SURFACE,
            markeredgewidth=0.8,
            label=line.label,
            clip_on=False,
            zorder=3,
        )
        if len(line.rows) > len(shares):  # several seeds: each one, faint
            spread = [(place(pruned_share(row)), 100 * row.accuracy_onnx) for row in line.rows]
            axes.plot(*zip(*spread, strict=True), ".", color=style.colour, alpha=0.45, markersize=4, zorder=2)
        ends.append((xs[-1], means[-1]))
    axes.axhline(100 * dense_accuracy(report.rows), color=colours.MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    _share_ticks(axes, report.rows, place)
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title("accuracy, %", loc="left", fontsize=9.5, color=colours.MUTED)
    axes.set_xlabel("pruned share")
    if len(series) <= NAMED_LINES_AT_MOST:
        _name_lines(axes, series, styles, ends)
    else:
        canvas.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    return canvas


def _kept_scale(rows: Sequence[Row]) -> Callable[[float], float]:
    """Where a pruned share stands: by the logarithm of what is kept, or linear where something keeps nothing."""
    if all(pruned_share(row) < 1 for row in rows):
        return lambda share: -math.log2(1 - share)
    return lambda share: share


def _share_ticks(axes: "Axes", rows: Sequence[Row], place: Callable[[float], float]) -> None:
    """A tick at every pruned share that was measured, but where their labels would touch."""
    shares = sorted({pruned_share(row) for row in rows})
    left, right = place(shares[0]), place(shares[-1])
    axes.set_xlim(left - 0.02 * (right - left or 1), right + 0.02 * (right - left or 1))
    shown: list[float] = []
    for share in reversed(shares):
        if not shown or place(shown[-1]) - place(share) > 0.075 * (right - left):
            shown.append(share)
    axes.set_xticks([place(share) for share in shown], [text.short_percent(share) for share in shown])


def _name_lines(
    axes: "Axes",
    series: Sequence[Series],
    styles: Sequence[colours.Style],
    ends: Sequence[tuple[float, float]],
) -> None:
    """Name each line at its right end, names pushed apart where they would touch."""
    low, high = axes.get_ylim()
    height = 0.062 * (high - low)  # of one line of text
    needed = [height * (2.2 if line.detail else 1.3) for line in series]
    centres = _apart([y for _, y in ends], needed)
    right = axes.get_xlim()[1]
    for (x, y), centre, line, style in zip(ends, centres, series, styles, strict=True):
        axes.annotate(
            "",
            xy=(x, y),
            xytext=(1.03, centre),
            textcoords=("axes fraction", "data"),
            arrowprops={"arrowstyle": "-", "color": style.colour, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 0, "shrinkB": 3},
            annotation_clip=False,
        )
        shift = height / 2 if line.detail else 0.0
        for words, level, size, weight in ((line.method, centre + shift, 9.5, "bold"), (line.detail, centre - shift, 8, "normal")):
            axes.annotate(
                words,
                xy=(right, level),
                xytext=(1.04, level),
                textcoords=("axes fraction", "data"),
                color=style.colour,
                fontsize=size,
                fontweight=weight,
                va="center",
                annotation_clip=False,
            )


def _apart(wanted: Sequence[float], needed: Sequence[float]) -> list[float]:
    """Centres as near to the wanted ones as possible, each with the room it needs, in the same order.

    Neighbours that would touch are merged into a block that stands at the mean of what its members want (the pool-adjacent-
    violators method).
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    # Distances from the first centre, were all packed as closely as they may be.
    offsets = [0.0]
    for before, after in pairwise(order):
        offsets.append(offsets[-1] + (needed[before] + needed[after]) / 2)
    blocks: list[tuple[float, int]] = []  # mean of (wanted - offset), members
    for index, offset in zip(order, offsets, strict=False):
        mean, count = wanted[index] - offset, 1
        while blocks and blocks[-1][0] >= mean:
            earlier, members = blocks.pop()
            mean, count = (earlier * members + mean * count) / (members + count), members + count
        blocks.append((mean, count))
    starts = [mean for mean, count in blocks for _ in range(count)]
    centres = [0.0] * len(wanted)
    for index, start, offset in zip(order, starts, offsets, strict=False):
        centres[index] = start + offset
    return centres


# Bytes ----------------------------------------------------------------------------------------------------------------------


def _bytes_figure() -> Figure:
    return Figure(
        name="bytes",
        alt="Bytes of each row's ONNX file beside the information bound of its weights and the dense file.",
        caption="Filled: the ONNX file, with its size and its ratio to the dense file. Hollow: the bound, an ideal code of the kept weights "
        "and their positions. Dotted: the dense file.",
    )


def _bytes(report: Report) -> "Canvas":
    rows = report.rows
    canvas, (axes,) = _canvas(0.9 + ROW_INCHES * len(rows))
    colour_of = _row_colours(rows)
    sizes = [size for row in rows for size in (row.onnx_bytes, row.bound_bytes, row.dense_onnx_bytes) if size > 0]
    axes.set_xscale("log")
    axes.set_xlim(min(sizes) * 0.8, max(sizes) * 1.25)
    for dense in sorted({row.dense_onnx_bytes for row in rows}):
        axes.axvline(dense, color=colours.MUTED, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    for level, row in enumerate(rows):
        colour = colour_of[row.id]
        if row.bound_bytes > 0:
            axes.plot([row.bound_bytes, row.onnx_bytes], [level, level], color=colour, linewidth=1.2, alpha=0.5, zorder=2)
            axes.plot(row.bound_bytes, level, "o", color=colours.SURFACE, markeredgecolor=colour, markersize=5.5, zorder=3)
        axes.plot(row.onnx_bytes, level, "o", color=colour, markersize=6, zorder=4)
        words = f"{text.size(row.onnx_bytes)}  {text.ratio(row.onnx_bytes / row.dense_onnx_bytes)}"
        _beside(axes, level, words, colour)
    _row_axis(axes, [row.id for row in rows])
    axes.xaxis.set_major_formatter(lambda value, _: text.size(value))
    _plain_log_ticks(axes, [base * 1024**power for power in range(4) for base in (1, 4, 16, 64, 256)])
    return canvas


def _row_colours(rows: Sequence[Row]) -> dict[str, str]:
    series = group(rows)
    return {row.id: style.colour for line, style in zip(series, colours.styles(series), strict=True) for row in line.rows}


# Latency --------------------------------------------------------------------------------------------------------------------


def _latency_figure() -> Figure:
    return Figure(
        name="latency",
        alt="Each row's latency ratio to the dense network with its 95 % interval, one panel for each host and setting.",
        caption="Time / time of the dense network with 95 % intervals; left of the line is faster. Filled: a difference is claimed. Hollow: "
        "none is.",
    )


def _latency(report: Report) -> "Canvas":
    panels = _panels(report)
    heights = [ROW_INCHES * len(points) + 0.75 for _, points in panels]
    canvas, all_axes = _canvas(sum(heights), heights)
    every = [latency for _, points in panels for _, latency in points]
    low, high = min(latency.ratio_low for latency in every), max(latency.ratio_high for latency in every)
    for axes, (title, points) in zip(all_axes, panels, strict=True):
        axes.set_xscale("log")
        axes.set_xlim(min(low, 1) / 1.06, max(high, 1) * 1.06)
        axes.axvline(1, color=colours.MUTED, linewidth=1, zorder=1)
        for level, (_, latency) in enumerate(points):
            _interval(axes, level, latency)
        _row_axis(axes, [row.id for row, _ in points])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        _plain_log_ticks(axes, [0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20])
        axes.set_title(title, loc="left", fontsize=9.5)
    all_axes[-1].set_xlabel("time / dense time")
    return canvas


def _panels(report: Report) -> list[tuple[str, list[tuple[Row, RowLatency]]]]:
    found: dict[str, list[tuple[Row, RowLatency]]] = {}
    for row in report.rows:
        for latency in row.latency:
            found.setdefault(f"{latency.host} · {text.setting(latency)}", []).append((row, latency))
    return sorted(found.items(), key=lambda panel: panel[1][0][1].host)  # stable: settings of a host in order of the rows


def _interval(axes: "Axes", level: int, latency: RowLatency) -> None:
    colour = {"faster": colours.FASTER, "slower": colours.SLOWER, "none": colours.NO_CLAIM}[latency.claim]
    axes.plot([latency.ratio_low, latency.ratio_high], [level, level], color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
    filling = colours.SURFACE if latency.claim == "none" else colour
    axes.plot(latency.ratio_to_dense, level, "o", color=filling, markeredgecolor=colour, markeredgewidth=1.3, markersize=6, zorder=3)
    _beside(axes, level, text.latency(latency), colour)


# Shared by the plots that have a line for each row -----------------------------------------------------------------------------


def _row_axis(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, labelcolor=colours.INK)
    axes.tick_params(axis="x", which="both", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first row on top
    axes.grid(axis="x", which="major")
    axes.spines["left"].set_visible(False)


def _beside(axes: "Axes", level: int, words: str, colour: str) -> None:
    position: Any = ("axes fraction", "data")
    axes.annotate(words, (1.02, level), xycoords=position, color=colour, fontsize=8.5, va="center", annotation_clip=False)


def _plain_log_ticks(axes: "Axes", candidates: Sequence[float]) -> None:
    """At most seven round ticks inside the axis, and no minor ones, whose labels would crowd it."""
    low, high = axes.get_xlim()
    inside = [value for value in candidates if low <= value <= high]
    apart = math.log(high / low) / 9
    shown: list[float] = [value for value in inside if value == 1]
    for value in inside:
        if all(abs(math.log(value / other)) >= apart for other in shown):
            shown.append(value)
    axes.set_xticks(sorted(shown))
    axes.minorticks_off()
