"""All that was measured of each file, side by side, and how it was counted: where a task has more than one measure."""

from tdcompress.records.measures import Measure
from tdcompress.records.report import Report, Row
from tdcompress.report import text
from tdcompress.report.tables import Table, line_of, number_columns, numbered, text_columns


def tables(report: Report) -> tuple[Table, ...]:
    """One table; none where a file has one measure and nothing is said of it."""
    others = tuple(dict.fromkeys(figure.measure for row in report.rows for figure in row.figures))
    compared = any(row.unlike_torch is not None for row in report.rows)
    ways = numbered(_how(row, report.measure) for row in report.rows)
    if not others and not compared and not any(ways):
        return ()
    lines = [
        (
            row.id,
            text.pruned(row),
            text.number(row.accuracy_onnx, report.measure),
            *(_value(row, measure) for measure in others),
            *([_unlike(row)] if compared else []),
            ways[_how(row, report.measure)],
        )
        for row in report.rows
    ]
    titles = [text.titled(measure.name, measure) for measure in (report.measure, *others)]
    return (
        Table(
            title="Measures of each file",
            columns=(
                *text_columns("row", "pruned"),
                *number_columns(*titles, *(["answers unlike torch's"] if compared else []), "how"),
            ),
            rows=tuple(lines),
            highlight=line_of(report.selected, lines),
            notes=tuple(way for way in ways if way),
        ),
    )


def agreement(report: Report) -> str:
    """How many answers of the files are not torch's, in one sentence; "" where answers were not compared one by one."""
    counts = [row.unlike_torch for row in report.rows if row.unlike_torch is not None]
    if not counts:
        return ""
    answers = f"{len(counts) * report.test_samples:,} answers of {len(counts)} row{'s' * (len(counts) != 1)} under the runtime"
    if not any(counts):
        return f"All {answers} are torch's."
    return f"Of {answers}, {sum(counts):,} are not torch's, as far as the task allows it: see the report."


def _value(row: Row, measure: Measure) -> str:
    return next((text.number(figure.value, measure) for figure in row.figures if figure.measure == measure), "-")


def _unlike(row: Row) -> str:
    return "-" if row.unlike_torch is None else f"{row.unlike_torch:,}"


def _how(row: Row, measure: Measure) -> str:
    """How the numbers of a row were counted."""
    told = [(measure.name, row.how), *((figure.measure.name, figure.how) for figure in row.figures)]
    return "; ".join(f"{name}: {how}" for name, how in told if how)
