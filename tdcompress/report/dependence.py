"""The analysis of section 5.1 as people read it: |delta E| beside Table 1, and the dependence matrices as in Figure 1."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tdcompress.codec import decode_file, encode
from tdcompress.errors import UserError
from tdcompress.files import write_bytes
from tdcompress.npz import write_npz
from tdcompress.records.report import Report
from tdcompress.records.stages import AnalysisRecord
from tdcompress.report import canvas, colours, markdown
from tdcompress.report.comparison import differing_tasks
from tdcompress.report.document import Block, Document, Figure, Items, Paragraph
from tdcompress.report.papers import matches, published_table, read_heading
from tdcompress.report.tables import Table, number_columns, text_columns
from tdcompress.report.text import named_method

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TABLE = "arxiv-1"
MODEL, FRACTION = "mlp", 0.75  # what Table 1 is of
RECORDS, MATRICES, DOCUMENT = "dependence.json", "dependence.npz", "dependence.md"
FIGURE = Figure(
    name="dependence",
    alt="the matrix theta * H * theta of each network, weights ordered by magnitude",
    caption="theta_i H_ij theta_j, summed over bins of weights. Rows and columns hold first the weights that stay, then those "
    "that are pruned, the largest magnitude first in both. The sum over the lower right corner, outlined, is twice the "
    "second-order term of the loss that pruning adds. Of several seeds the first is shown. One colour scale for all, linear near "
    "0 and logarithmic beyond.",
)


def write_dependence(folder: Path, records: Sequence[AnalysisRecord], matrices: Sequence[np.ndarray], report: Report) -> None:
    """Write the analysis of a run beside its report: table, pictures, records and matrices.

    Args:
        folder: the run's folder.
        records: one per network.
        matrices: (bins, bins) each, in the same order.
        report: the run's.
    """
    drawn = canvas.available()
    if drawn:
        svg, png = canvas.render(FIGURE.name, lambda: plot_dependence(records, matrices))
        write_bytes(folder / f"{FIGURE.name}.svg", svg.encode())
        write_bytes(folder / f"{FIGURE.name}.png", png)
    blocks = (*comparison(records, report), *((FIGURE,) if drawn else ()))
    write_bytes(folder / DOCUMENT, markdown.render_document(document(blocks, report.model)).encode())
    write_npz(folder / MATRICES, {str(index): matrix for index, matrix in enumerate(matrices)}, compress=True)
    write_bytes(folder / RECORDS, (json.dumps([encode(record) for record in records], indent=1) + "\n").encode())


def read_dependence(folder: Path) -> tuple[AnalysisRecord, ...]:
    """The records of a run's analysis.

    Raises:
        UserError: the run has none.
        ArtifactError: they cannot be read.
    """
    path = folder / RECORDS
    if not path.is_file():
        raise UserError(f"{folder}: no analysis to compare with table {TABLE}; give the recipe an [analyse] table")
    return decode_file(tuple[AnalysisRecord, ...], path)


def document(blocks: Sequence[Block], model: str) -> Document:
    """A document of its own around the analysis."""
    return Document(title=f"Dependence on the pruned weights, beside {TABLE}", subtitle=model, blocks=tuple(blocks))


def comparison(records: Sequence[AnalysisRecord], report: Report) -> tuple[Block, ...]:
    """|delta E| and accuracies beside Table 1, and the terms that they are made of.

    Args:
        records: one per network; those that are pruned at another share than the published ones stand by themselves.
        report: the run's, which says what was trained on what.
    """
    published = published_table(TABLE)
    used, beside = set(), []
    for text, theirs in published.columns.items():
        heading = read_heading(text)
        for index, record in enumerate(records):
            if record.fraction == FRACTION and matches(heading, record, ""):
                used.add(index)
                beside.append((text, record, theirs))
    others = [(label(record), record, None) for index, record in enumerate(records) if index not in used]
    samples = " and ".join(sorted({f"{record.samples:,}" for record in records}))
    intro = f"{published.source}: {published.metric}. {published.note}. Ours is over {samples} test samples, in float64."
    remarks = [f"Ours is {report.model}, theirs a {published.model}."] if report.model != MODEL else []
    remarks += differing_tasks(report, published.dataset)
    notes = [*remarks, *(f"Not run: {text}." for text in published.columns if text not in [name for name, _, _ in beside])]
    ratio = () if remarks else _ratio(beside)
    blocks: list[Block] = [Paragraph(text=intro), _beside_published([*beside, *others]), _terms(records), *ratio]
    return (*blocks, Items(items=tuple(notes))) if notes else tuple(blocks)


def label(record: AnalysisRecord) -> str:
    """A training as the papers write it, "targeted(alpha=0.5,gamma=0.75)", with the pruned share where it is not theirs."""
    share = "" if record.fraction == FRACTION else f", {record.fraction:.4g} pruned"
    return named_method(record.method, {key: value for key, value in record.options.items() if isinstance(value, float)}) + share


def _beside_published(lines: Sequence[tuple[str, AnalysisRecord, Mapping[str, float] | None]]) -> Table:
    return Table(
        title="",
        columns=(
            *text_columns("training"),
            *number_columns("|delta E|", "unpruned, %", "pruned, %", "seed", "epochs", "seconds"),
        ),
        rows=tuple(
            (
                name,
                _beside(record.estimate, theirs["delta_e"] if theirs else None, ".4g"),
                _beside(100 * record.accuracy_unpruned, theirs["unpruned"] if theirs else None, ".2f"),
                _beside(100 * record.accuracy_pruned, theirs["pruned"] if theirs else None, ".2f"),
                str(record.seed),
                str(record.epochs),
                f"{record.train_seconds:.0f}",
            )
            for name, record, theirs in lines
        ),
        notes=("A cell is ours (theirs).",),
    )


def _beside(ours: float, theirs: float | None, form: str) -> str:
    return f"{ours:{form}}" if theirs is None else f"{ours:{form}} ({theirs:{form}})"


def _terms(records: Sequence[AnalysisRecord]) -> Table:
    return Table(
        title="",
        columns=(
            *text_columns("training"),
            *number_columns("-gradient . d", "1/2 d' H d", "their sum", "measured change of the loss"),
        ),
        rows=tuple(
            (
                label(record),
                f"{record.gradient_term:+.4g}",
                f"{record.curvature_term:+.4g}",
                f"{record.gradient_term + record.curvature_term:+.4g}",
                f"{record.measured:+.4g}",
            )
            for record in records
        ),
        notes=("Equation 3 cuts the expansion after the second order; the last column is the change itself.",),
    )


def _ratio(lines: Sequence[tuple[str, AnalysisRecord, Mapping[str, float]]]) -> tuple[Block, ...]:
    """The claim of section 3.1: targeted dropout lowers the dependence by an order of magnitude; of each seed that has both."""
    estimates = {(record.method, record.seed): record.estimate for _, record, _ in lines}
    published = {record.method: theirs["delta_e"] for _, record, theirs in lines}
    seeds = sorted(seed for method, seed in estimates if method == "none" and estimates.get(("targeted", seed)))
    if len(estimates) < len(lines) or not seeds:
        return ()
    ours = ", ".join(f"{estimates['none', seed] / estimates['targeted', seed]:.3g}" for seed in seeds)
    theirs = f"theirs: {published['none'] / published['targeted']:.3g} times"
    of = f"; ours of seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    return (Paragraph(text=f"Without targeted dropout |delta E| is {ours} times as large ({theirs}{of})."),)


def plot_dependence(records: Sequence[AnalysisRecord], matrices: Sequence[np.ndarray]) -> "Canvas":
    """The matrices (bins, bins) side by side, of each training its first seed's; the corner of the pruned weights outlined."""
    from matplotlib.colors import SymLogNorm
    from matplotlib.figure import Figure as Canvas
    from matplotlib.patches import Rectangle

    first: dict[str, int] = {}  # seed by label; trainings of one seed are several, though labels do not tell them apart
    pairs = zip(records, matrices, strict=True)
    shown = [(record, matrix) for record, matrix in pairs if first.setdefault(label(record), record.seed) == record.seed]
    drawing = Canvas(figsize=(canvas.WIDTH_INCHES, 0.3 + canvas.WIDTH_INCHES / max(2, len(shown))), layout="constrained")
    panels = list(drawing.subplots(1, len(shown), squeeze=False)[0])
    largest = max(float(np.abs(matrix).max()) for _, matrix in shown) or 1.0
    norm = SymLogNorm(linthresh=largest * 1e-2, vmin=-largest, vmax=largest)
    for axes, (record, matrix) in zip(panels, shown, strict=True):
        image = axes.imshow(matrix, cmap="RdBu_r", norm=norm, interpolation="nearest")
        size, kept = record.bins, record.kept_bins
        corner = Rectangle((kept - 0.5, kept - 0.5), size - kept, size - kept, fill=False, edgecolor=colours.INK, linewidth=0.8)
        axes.add_patch(corner)
        axes.set_xticks([], [])
        axes.set_yticks([], [])
        axes.set_title(label(record), fontsize=9.5)
        axes.set_xlabel(f"|delta E| = {record.estimate:.3g}")
    drawing.colorbar(image, ax=panels, shrink=0.8, label="theta H theta, per bin")
    return drawing
