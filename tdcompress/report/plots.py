"""The plots of a report, each as SVG and PNG: accuracy, bytes, latency."""

import re
from dataclasses import dataclass
from functools import partial

from tdcompress.records.report import Report
from tdcompress.report import accuracy_plot, canvas, colours, row_plots
from tdcompress.report.document import Figure


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One plot, drawn."""

    figure: Figure
    svg: str
    png: bytes


def draw(report: Report) -> tuple[Drawing, ...]:
    """All plots that the report has numbers for; none without matplotlib (`canvas.available`)."""
    if not canvas.available() or not report.rows:
        return ()
    lines = accuracy_plot.has_lines(report.rows)
    accuracy = (
        (accuracy_plot.captioned(report), accuracy_plot.plot)
        if lines
        else (row_plots.accuracy_figure(report), row_plots.plot_accuracy)
    )
    plots = [accuracy, (row_plots.BYTES, row_plots.plot_bytes)]
    if any(row.latency for row in report.rows):
        plots.append((row_plots.LATENCY, row_plots.plot_latency))
    drawings = []
    for figure, plot in plots:
        svg, png = canvas.render(figure.name, partial(plot, report))
        drawings.append(Drawing(figure=figure, svg=svg, png=png))
    return tuple(drawings)


def inline(drawing: Drawing) -> str:
    """The SVG element for a page: ids made unique, colours taken from the page's variables, so that it follows dark mode."""
    svg = drawing.svg[drawing.svg.index("<svg") :]
    svg = re.sub(r'(?<=\sid=")|(?<=url\(#)|(?<=href="#)', f"{drawing.figure.name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, variable in colours.VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
