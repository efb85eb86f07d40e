"""A run's report on disk: report.json for machines, report.md and report.html for people, plots as PNG and SVG."""

import json
from pathlib import Path

from tdcompress.codec import encode
from tdcompress.files import write_bytes
from tdcompress.records.report import Report
from tdcompress.report import canvas, html, markdown, plots
from tdcompress.report.document import compose
from tdcompress.report.files import REPORT

WITHOUT_PLOTS = (
    "There are no plots because matplotlib is not installed here: pip install matplotlib, then write the report again."
)


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write every form of a report; each file is published at once or not at all.

    Without matplotlib the report is written without plots and says so.

    Args:
        report: the records.
        folder: the run's folder; made if missing.

    Returns:
        The files written, plots first and report.json last.
    """
    drawings = plots.draw(report)
    figures = {drawing.figure.name: drawing.figure for drawing in drawings}
    document = compose(report, figures, remark="" if canvas.available() else WITHOUT_PLOTS)

    files: dict[str, bytes] = {}
    for drawing in drawings:
        files[f"{drawing.figure.name}.svg"] = drawing.svg.encode()
        files[f"{drawing.figure.name}.png"] = drawing.png
    inline = {drawing.figure.name: plots.inline(drawing) for drawing in drawings}
    files["report.md"] = markdown.render_document(document).encode()
    files["report.html"] = html.render_document(document, inline).encode()
    files[REPORT] = report_to_json(report).encode()
    for name, data in files.items():
        write_bytes(folder / name, data)
    return [folder / name for name in files]


def report_to_json(report: Report) -> str:
    """The text of report.json; ``codec.decode`` of its content gives the same report."""
    return json.dumps(encode(report), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
