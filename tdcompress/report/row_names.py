"""Letters for rows: where some names are too long for a column, tables say "A", and a legend says what that is."""

from collections.abc import Mapping
from dataclasses import replace

from tdcompress.records.report import Report
from tdcompress.report import text
from tdcompress.report.tables import Table

LONGEST = 32
"""Characters of a name that has room in the column of a table and beside a plot."""


def letters(report: Report) -> Mapping[str, str]:
    """Row id -> "A", "B", ..., "Z", "AA", ...; none where all names have room."""
    if all(len(row.id) <= LONGEST for row in report.rows):
        return {}
    return {row.id: _letter(place) for place, row in enumerate(report.rows)}


def with_names(table: Table, other: Mapping[str, str]) -> Table:
    """A table with other names, such as letters, in its column "row"."""
    if table.columns[0].title != "row":
        return table
    return replace(table, rows=tuple((other.get(name, name), *cells) for name, *cells in table.rows))


def labels(report: Report) -> Mapping[str, str]:
    """Row id -> what stands in the summary and beside a plot: the name, or its letter and as much of it as has room."""
    letter_of = letters(report)
    return {row.id: text.shorten(f"{letter_of[row.id]} · {row.id}", LONGEST) if letter_of else row.id for row in report.rows}


def _letter(place: int) -> str:
    """As a spreadsheet names its columns."""
    before, own = divmod(place, 26)
    return (_letter(before - 1) if before else "") + chr(ord("A") + own)
