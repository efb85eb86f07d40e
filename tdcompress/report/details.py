"""The tables behind the summary: accuracy through each artefact, sizes, latencies of one host, trainings."""

from collections.abc import Callable

from tdcompress.records.report import Report, Row
from tdcompress.report import text
from tdcompress.report.series import as_trained, group, training_identity
from tdcompress.report.tables import Table, line_of, number_columns, numbered, text_columns
from tdcompress.report.zeros import trained_zeros
from tdcompress.steps import STEPS


def accuracies(report: Report) -> Table:
    """The measure of each form of each row, through that form, and how far forms of one network are apart."""
    forms: dict[str, Callable[[Row], float | None]] = {
        "before new statistics": lambda row: row.accuracy_before,
        **{step.form: step.accuracy for step in STEPS.values()},
        "ONNX": lambda row: row.accuracy_onnx,
    }
    used = {name: read for name, read in forms.items() if any(read(row) is not None for row in report.rows)}
    lines, measure = [], report.measure
    for row in report.rows:
        values = [read(row) for read in used.values()]
        apart = max(map(_spread, _same_network(row)))
        cells = ["-" if value is None else text.number(value, measure) for value in values]
        told = str(round(apart * report.test_samples)) if measure.counts_samples else text.number(apart, measure)
        lines.append((row.id, text.number(row.accuracy_dense, measure), *cells, told))
    last = "samples apart" if measure.counts_samples else "apart"
    return Table(
        title=f"{text.capital(measure.name)} through each artefact",
        columns=(*text_columns("row"), *number_columns(*(text.titled(name, measure) for name in ("as trained", *used)), last)),
        rows=tuple(lines),
        highlight=line_of(report.selected, lines),
    )


def _same_network(row: Row) -> list[list[float]]:
    """The accuracies of a row that are of one network in several forms; a step that is not exact makes another network."""
    networks: list[list[float]] = []
    for step in STEPS.values():
        if (accuracy := step.accuracy(row)) is not None:
            networks = [*networks[:-1], [*networks[-1], accuracy]] if step.exact and networks else [*networks, [accuracy]]
    return [*networks[:-1], [*networks[-1], row.accuracy_onnx]]


def _spread(accuracies: list[float]) -> float:
    return max(accuracies) - min(accuracies)


def sizes(report: Report) -> Table:
    """Zeros and parameters as pruned; parameters in the file, zeros or not, multiply-accumulates and bytes as deployed.

    The bound is an ideal code of the kept weights and their positions.
    """
    stored = any(row.stored_bytes is not None for row in report.rows)
    titles = [
        "zeros of prunable, %",
        "zeros of all, %",
        "parameters",
        "in the file",
        "of these non-zero",
        "MACs",
        "ONNX",
        "bound",
        "ONNX / bound",
    ]
    lines = [(row.id, *_size_cells(row), *([_stored(row)] if stored else [])) for row in report.rows]
    return Table(
        title="Size",
        columns=(*text_columns("row"), *number_columns(*titles, *(["scipy CSR"] if stored else []))),
        rows=tuple(lines),
        highlight=line_of(report.selected, lines),
    )


def _size_cells(row: Row) -> tuple[str, ...]:
    return (
        text.percent(row.sparsity_prunable),
        text.percent(row.sparsity_model),
        f"{row.parameters_total:,}",
        f"{row.shrunk.parameters_after if row.shrunk else row.parameters_total:,}",
        f"{row.parameters_nonzero:,}",
        f"{row.macs:,}",
        text.size(row.onnx_bytes),
        text.size(row.bound_bytes),
        f"{row.onnx_bytes / row.bound_bytes:.2f}" if row.bound_bytes > 0 else "-",
    )


def _stored(row: Row) -> str:
    return "-" if row.stored_bytes is None else text.size(row.stored_bytes)


def latencies(report: Report, host: str) -> Table:
    """Every latency measured on one host, with the reason for its claim."""
    found = [(row, latency) for row in report.rows for latency in row.latency if latency.host == host]
    reasons = numbered(latency.reason for _, latency in found)
    speeds = any(latency.tokens is not None for _, latency in found)
    lines = [
        (
            row.id,
            text.setting(latency),
            text.duration(latency.p50_ns),
            *([text.tokens_per_second(latency)] if speeds else []),
            text.latency(latency),
            reasons[latency.reason],
        )
        for row, latency in found
    ]
    return Table(
        title=f"Latency on {host}",
        columns=(
            *text_columns("row", "run by"),
            *number_columns("median", *(["tokens/s"] if speeds else [])),
            *text_columns("time / dense time [95 %]"),
            *number_columns("because"),
        ),
        rows=tuple(lines),
        highlight=line_of(report.selected, lines),
        notes=tuple(note for note in reasons if note),
    )


def trainings(report: Report) -> Table:
    """What was trained, once each: many rows come from one training, and some of them trained on."""
    tuned: dict[tuple[object, ...], set[int]] = {}
    for row in report.rows:
        tuned.setdefault(training_identity(row), set()).add(row.finetune_epochs)
    as_it_was = text.titled(f"{report.measure.name} as trained", report.measure)
    zeros = any(map(trained_zeros, report.rows))
    any_tuned = any(row.finetune_epochs for row in report.rows)
    lines: dict[tuple[object, ...], tuple[str, ...]] = {}
    for series in group(as_trained(row) for row in report.rows):
        for row in series.rows:
            line = (
                series.label,
                str(row.seed),
                str(row.epochs),
                f"{row.train_seconds:,.1f}",
                row.device,
                text.number(row.accuracy_dense, report.measure),
                *([text.percent(trained_zeros(row))] if zeros else []),
                *([", ".join(map(str, sorted(tuned[training_identity(row)])))] if any_tuned else []),
            )
            lines.setdefault(training_identity(row), line)
    return Table(
        title="Trainings",
        columns=(
            *text_columns("method"),
            *number_columns("seed", "epochs", "seconds"),
            *text_columns("device"),
            *number_columns(
                as_it_was, *(["zeros of prunable, %"] if zeros else []), *(["then fine-tuned, epochs"] if any_tuned else [])
            ),
        ),
        rows=tuple(lines.values()),
    )
