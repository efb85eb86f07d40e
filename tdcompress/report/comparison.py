"""A run's accuracies beside a published table: ours, theirs and the difference in each cell."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from tdcompress.errors import UserError
from tdcompress.records.report import Report, Row
from tdcompress.report.document import Block, Items, Paragraph, Subheading
from tdcompress.report.papers import Heading, PublishedTable, matches, percentage_of, read_heading, variant, word
from tdcompress.report.series import told
from tdcompress.report.tables import Table, number_columns, text_columns

RowValue = Callable[[Row], float | None]
_OF_A_CELL = ("case", "method", "options", "granularity", "fraction", "keep_per_filter", "seed", "values", "differs")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: ours, one value per seed (none = not run), and theirs; both in the table's unit."""

    percentage: str
    ours: tuple[float, ...]
    theirs: float
    their_sd: float | None = None

    @property
    def mean(self) -> float | None:
        """Ours over the seeds."""
        return fmean(self.ours) if self.ours else None

    @property
    def sd(self) -> float | None:
        """Standard deviation of ours over the seeds, from two on."""
        return stdev(self.ours) if len(self.ours) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours less theirs."""
        return None if self.mean is None else self.mean - self.theirs


@dataclass(frozen=True, kw_only=True)
class ComparedColumn:
    """One published column beside one kind of training of ours.

    Attributes:
        heading: the published one.
        variant: what ours does that the heading does not say; empty where nothing is unusual.
        seeds: of the trainings behind the cells.
        train_seconds: mean of a training.
    """

    heading: str
    variant: str
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    epochs: int
    device: str
    train_seconds: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A run beside a published table.

    Attributes:
        not_run: published columns that no row of the run belongs to.
        foreign: ids of rows that belong to no published column or percentage.
        remarks: what makes the two less comparable.
    """

    table: PublishedTable
    columns: tuple[ComparedColumn, ...]
    not_run: tuple[str, ...]
    foreign: tuple[str, ...]
    remarks: tuple[str, ...]


def compare_with_published(table: PublishedTable, report: Report) -> Comparison:
    """Lay what a run measured beside a published table.

    That is its measure of the pruned networks (fine-tuned where they were, before export), or another one of their files, of
    those in float32 where there are such.

    Raises:
        UserError: the table is of another network, or of something that the run did not measure.
    """
    if report.model not in re.split(r"[ /,()]+", table.model):
        raise UserError(f"table {table.id} is of {table.model}, run {report.run!r} of {report.model}: nothing can be compared")
    value = _published_measure(table, report)
    columns: list[ComparedColumn] = []
    not_run: list[str] = []
    used: set[str] = set()
    for text, values in table.columns.items():
        heading = read_heading(text)
        places = {
            row.id: percentage
            for row in report.rows
            if row.granularity == table.granularity
            and matches(heading, row, report.model)
            and (percentage := percentage_of(row, values, heading)) is not None
        }
        used |= places.keys()
        kinds: dict[str, list[Row]] = {}
        for row in report.rows:
            if row.id in places:
                kinds.setdefault(json.dumps(column_settings(row), sort_keys=True), []).append(row)
        groups = list(kinds.values())
        columns += [
            _column(table, text, rows, unusual, places, value)
            for rows, unusual in zip(groups, variants(groups, heading), strict=True)
        ]
        if not groups:
            not_run.append(text)
    foreign = tuple(row.id for row in report.rows if row.id not in used)
    remarks = tuple(differing_tasks(report, table.dataset))
    return Comparison(table=table, columns=tuple(columns), not_run=tuple(not_run), foreign=foreign, remarks=remarks)


def differing_tasks(report: Report, dataset: str) -> Iterator[str]:
    """What makes a run another task than the published one: its data, and the size of its network."""
    if report.data != dataset:
        yield f"Ours is trained on {report.data}, theirs on {dataset}: not the same task."
    if report.model_options:
        options = ", ".join(f"{key} = {word(value)}" for key, value in report.model_options.items())
        yield f"Ours is {report.model} with {options}: not the published network."


def column_settings(row: Row) -> dict[str, Any]:
    """What rows of one column share: all that training, pruning and fine-tuning depend on, but the seed and the pruned share."""
    config = {_spoken(key): value for key, value in told(row).items() if key not in _OF_A_CELL} | {"device": row.device}
    own = {
        f"{row.method} {key}" if key in config else key: value  # a training has shares of its own, for example
        for key, value in row.options.items()
        if (row.method, key) != ("random_prune", "fraction")
    }
    return {**own, **row.differs, **config}


def _spoken(field: str) -> str:
    return field.replace("finetune_", "fine-tuning ").replace("_", " ")


def variants(groups: Sequence[Sequence[Row]], heading: Heading) -> list[str]:
    """What each group of rows under one heading does that the heading does not say; no two of them alike."""
    told = [variant(rows[0], heading) for rows in groups]
    settings = [column_settings(rows[0]) for rows in groups]
    titles = []
    for own, unusual in zip(settings, told, strict=True):
        same = [other for other, name in zip(settings, told, strict=True) if name == unusual]
        differing = [key for key in own if key not in ("epochs", "device") and any(other.get(key) != own[key] for other in same)]
        titles.append(", ".join([unusual] * bool(unusual) + [f"{key} = {word(own[key])}" for key in differing]))
    return titles


def _column(
    table: PublishedTable, heading: str, rows: Sequence[Row], unusual: str, places: Mapping[str, str], value: RowValue
) -> ComparedColumn:
    sd = table.sd.get(heading, {})
    seconds = {row.seed: row.train_seconds for row in rows}

    def cell(percentage: str, theirs: float) -> Cell:
        own = [row for row in rows if places[row.id] == percentage]
        own.sort(key=lambda row: row.values == "float32")  # of a network's files in several number formats it counts, as the last
        ours = {row.seed: number for row in own if (number := value(row)) is not None}
        values = tuple(100 * number for _, number in sorted(ours.items()))
        return Cell(percentage=percentage, ours=values, theirs=theirs, their_sd=sd.get(percentage))

    return ComparedColumn(
        heading=heading,
        variant=unusual,
        cells=tuple(cell(percentage, theirs) for percentage, theirs in table.columns[heading].items()),
        seeds=tuple(sorted(seconds)),
        epochs=rows[0].epochs,
        device=rows[0].device,
        train_seconds=fmean(seconds.values()),
    )


def _published_measure(table: PublishedTable, report: Report) -> RowValue:
    """What of a row (0..1) is to stand beside a table.

    Raises:
        UserError: the run did not measure it.
    """
    metric = re.sub(r"^(top-1|test) ", "", table.metric)
    if metric.startswith(report.measure.name):
        return lambda row: row.accuracy_masked if row.accuracy_finetuned is None else row.accuracy_finetuned
    names = dict.fromkeys(figure.measure.name for row in report.rows for figure in row.figures)
    name = next((name for name in names if metric.startswith(name)), None)
    if name is None:
        measured = ", ".join([report.measure.name, *names])
        raise UserError(f"table {table.id} gives {table.metric}, run {report.run!r} {measured}: nothing can be compared")
    return lambda row: next((figure.value for figure in row.figures if figure.measure.name == name), None)


def comparison_blocks(comparison: Comparison) -> tuple[Block, ...]:
    """The comparison as a part of a report: the table, the trainings behind it, what differs much, what was not run."""
    table = comparison.table
    intro = f"{table.source}: {table.metric}, {table.model} on {table.dataset}, {table.granularity}s pruned."
    blocks: list[Block] = [Subheading(title=f"Beside {table.id}"), Paragraph(text=f"{intro} {table.note}".strip())]
    if comparison.columns:
        blocks += [cells_table(comparison), trainings_table(comparison)]
        blocks.append(Items(items=tuple(large_differences(column) for column in comparison.columns)))
        blocks += [Items(items=items)] if (items := nearest_variants(comparison)) else []
    notes = [*comparison.remarks]
    if comparison.not_run:
        notes.append(f"Not run: {'; '.join(comparison.not_run)}.")
    if comparison.foreign:
        notes.append(f"Rows of ours that belong to no published cell: {', '.join(comparison.foreign)}.")
    return (*blocks, Items(items=tuple(notes))) if notes else tuple(blocks)


def cells_table(comparison: Comparison) -> Table:
    """Prune percentages down, methods across; a cell is "ours (theirs, difference)"."""
    percentages = dict.fromkeys(cell.percentage for column in comparison.columns for cell in column.cells)
    by_percentage = [{cell.percentage: cell for cell in column.cells} for column in comparison.columns]
    return Table(
        title="",
        columns=number_columns("%", *(_title(each) for each in comparison.columns)),
        rows=tuple(
            (percentage, *(cell_text(cells[percentage]) if percentage in cells else "" for cells in by_percentage))
            for percentage in percentages
        ),
        notes=("A cell is ours (theirs, the difference); a dash is not run; ± is the standard deviation over seeds.",),
    )


def cell_text(cell: Cell) -> str:
    """Such as "67.10 ± 0.21 (67.69, -0.59)", or "- (67.69)" where ours was not run."""
    theirs = f"{cell.theirs:.2f}" + (f" ± {cell.their_sd:.2f}" if cell.their_sd is not None else "")
    if cell.mean is None or cell.difference is None:
        return f"- ({theirs})"
    ours = f"{cell.mean:.2f}" + (f" ± {cell.sd:.2f}" if cell.sd is not None else "")
    return f"{ours} ({theirs}, {cell.difference:+.2f})"


def trainings_table(comparison: Comparison) -> Table:
    """Seeds, epochs, hardware and seconds behind each column."""
    return Table(
        title="",
        columns=(*text_columns("training", "seeds", "device"), *number_columns("epochs", "seconds of one")),
        rows=tuple(
            (_title(each), _list(each.seeds), each.device, str(each.epochs), f"{each.train_seconds:.0f}")
            for each in comparison.columns
        ),
    )


def large_differences(column: ComparedColumn, threshold: float = 2.0) -> str:
    """How many cells differ by more than ``threshold`` points, and which differs most."""
    known = [(cell.difference, cell.percentage) for cell in column.cells if cell.difference is not None]
    far = [difference for difference, _ in known if abs(difference) > threshold]
    if not known:
        return f"{_title(column)}: ours was not measured."
    if not far:
        return f"{_title(column)}: all {len(known)} cells within {threshold:g} points."
    most, where = max(known, key=lambda pair: abs(pair[0]))
    counts = f"{len(far)} of {len(known)} cells differ by more than {threshold:g} points"
    return f"{_title(column)}: {counts}, most at {where} %: {most:+.2f}."


def nearest_variants(comparison: Comparison) -> tuple[str, ...]:
    """Which way comes nearest where a published column was run in several: by the mean distance over the cells that all have."""
    told = []
    for heading in dict.fromkeys(column.heading for column in comparison.columns):
        variants = [column for column in comparison.columns if column.heading == heading]
        shared = set.intersection(*({cell.percentage for cell in column.cells if cell.ours} for column in variants))
        if len(variants) < 2 or not shared:
            continue
        ways = [_way(column) for column in variants]
        beside = [way if ways.count(way) == 1 else f"{way}, {each.device}" for way, each in zip(ways, variants, strict=True)]
        distances = zip((_mean_distance(column, shared) for column in variants), beside, strict=True)
        (least, first), *others = sorted(distances, key=lambda pair: pair[0])
        rest = "; ".join(f"{way} by {distance:.2f}" for distance, way in others)
        cells = f"{len(shared)} cell{'s' * (len(shared) != 1)}"
        told.append(f"{heading}: nearest to theirs is {first}, off by {least:.2f} points on average over {cells}; {rest}.")
    return tuple(told)


def _way(column: ComparedColumn) -> str:
    return f"{column.variant or 'as published'}, {column.epochs} epoch{'s' * (column.epochs != 1)}"


def _mean_distance(column: ComparedColumn, percentages: set[str]) -> float:
    return fmean(abs(cell.difference) for cell in column.cells if cell.percentage in percentages and cell.difference is not None)


def _title(column: ComparedColumn) -> str:
    return f"{column.heading} [{column.variant}]" if column.variant else column.heading


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
