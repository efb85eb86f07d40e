"""The one table model that every renderer draws, and the summary: the table that a run ends with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tdcompress.records.latency import RowLatency
from tdcompress.records.report import Report, Row
from tdcompress.report import text


@dataclass(frozen=True, kw_only=True)
class Column:
    """Heading and alignment of one column; numbers stand right."""

    title: str
    align: Literal["left", "right"] = "left"


def text_columns(*titles: str) -> tuple[Column, ...]:
    """Columns of words."""
    return tuple(Column(title=title) for title in titles)


def number_columns(*titles: str) -> tuple[Column, ...]:
    """Columns of numbers."""
    return tuple(Column(title=title, align="right") for title in titles)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text in rows and columns.

    Attributes:
        title: what the table shows; may be empty.
        columns: one per cell of each row.
        rows: unescaped text.
        highlight: index of the row to set off, or None.
        notes: numbered from 1 under the table; cells refer to them by number.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    highlight: int | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: a row of {len(row)} cells under {len(self.columns)} columns")


@dataclass(frozen=True, kw_only=True)
class LatencySetting:
    """One way of measuring latency, equal for all rows that may be compared."""

    host: str
    backend: str
    provider: str
    threads: int
    batch: int
    tokens: int | None


def setting_of(latency: RowLatency) -> LatencySetting:
    """The setting that a latency was measured under."""
    return LatencySetting(
        host=latency.host,
        backend=latency.backend,
        provider=latency.provider,
        threads=latency.threads,
        batch=latency.batch,
        tokens=latency.tokens,
    )


def latency_under(row: Row, setting: LatencySetting | None) -> RowLatency | None:
    """The row's latency under a setting, or None where it was not measured."""
    return next((latency for latency in row.latency if setting_of(latency) == setting), None)


def main_setting(rows: Iterable[Row]) -> LatencySetting | None:
    """The setting measured for most rows; the first of them on a tie. None without any latency."""
    counts: dict[LatencySetting, int] = {}
    for row in rows:
        for latency in row.latency:
            counts[setting_of(latency)] = counts.get(setting_of(latency), 0) + 1
    return max(counts, key=lambda setting: counts[setting], default=None)


def selected_row(report: Report) -> Row | None:
    """The row that became model.onnx."""
    return next((row for row in report.rows if row.id == report.selected), None)


def line_of(row_id: str | None, lines: Sequence[Sequence[str]]) -> int | None:
    """Index of the first line that begins with a row's id, to be set off."""
    return next((index for index, line in enumerate(lines) if line[0] == row_id), None)


def numbered(notes: Iterable[str]) -> dict[str, str]:
    """Each distinct note with its number, from 1, in order of appearance; no note has the empty number."""
    found = dict.fromkeys(note for note in notes if note)
    return {"": ""} | {note: str(number) for number, note in enumerate(found, start=1)}


def summary(report: Report) -> Table:
    """Accuracy of each deployed file, its bytes, its latency, and why it can or cannot be faster than the dense one.

    Where statistics of BatchNorm were estimated again after pruning, the accuracy before that stands beside it.
    """
    setting = main_setting(report.rows)
    times = () if setting is None else ("time / dense time [95 %]",)
    reasons = numbered(row.why for row in report.rows)
    again = any(row.accuracy_before is not None for row in report.rows)
    before = (text.titled("before new statistics", report.measure),) if again else ()
    lines = []
    for row in report.rows:
        line = [
            row.id,
            text.pruned(row),
            text.number(row.accuracy_onnx, report.measure),
            text.size(row.onnx_bytes),
            text.ratio(row.onnx_bytes / row.dense_onnx_bytes),
        ]
        if again:
            line.insert(2, "-" if row.accuracy_before is None else text.number(row.accuracy_before, report.measure))
        if setting is not None:
            latency = latency_under(row, setting)
            line.append("not measured" if latency is None else text.latency(latency))
        lines.append((*line, reasons[row.why]))
    return Table(
        title="What each row is worth",
        columns=(
            *text_columns("row", "pruned"),
            *number_columns(*before, text.titled(report.measure.name, report.measure), "file", "of dense"),
            *text_columns(*times),
            *number_columns("why"),
        ),
        rows=tuple(lines),
        highlight=line_of(report.selected, lines),
        notes=tuple(note for note in reasons if note),
    )
