"""Tables and documents in a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from tdcompress.report.document import Block, Document, Facts, Figure, Items, Paragraph, Subheading
from tdcompress.report.tables import Column, Table

GAP = 2
"""Between two columns."""
SENTENCE = 30
"""A left-aligned cell wider than this is folded between words where there is no room for it."""
FOLDED = 22
"""And so wide its column stays at least."""


def render(table: Table) -> RenderableType:
    """What ``rich.console.Console.print`` draws: the table, and its notes under it."""
    notes = [Text(f"{number}  {note}", style="dim") for number, note in enumerate(table.notes, start=1)]
    return Group(_Grid(table=table), *notes)


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """A table without its notes, in as many parts as the terminal's width asks for: each begins with the first column."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        for index, part in enumerate(in_parts(self.table, options.max_width)):
            yield self._drawn(part, options.max_width, titled=index == 0)

    def _drawn(self, part: Sequence[int], width: int, *, titled: bool) -> RichTable:
        title = Text(self.table.title, style="bold") if self.table.title and titled else None
        grid = RichTable(title=title, title_justify="left", box=None, pad_edge=False)
        columns = [self.table.columns[index] for index in part]
        least = [least_width(self.table, index) for index in part]
        titles = [max(wide, cell_len(column.title)) for wide, column in zip(least, columns, strict=True)]
        gaps = GAP * (len(part) - 1)
        for index, column, wide in zip(part, columns, least, strict=True):
            head = column.title if sum(titles) + gaps <= width else "\n".join(wrap(column.title, wide, break_long_words=False))
            # not by a least width: with one, rich makes the grid wider than the terminal, and cuts it
            whole = not _is_folded(self.table, index) and (index > 0 or sum(least) + gaps <= width)
            grid.add_column(Text(head, style="dim"), justify=column.align, overflow="fold", no_wrap=whole)
        for number, row in enumerate(self.table.rows):
            # Text, not str: a cell such as "[0.52, 0.55]" must not be read as rich's markup.
            style = "bold green" if number == self.table.highlight else None
            grid.add_row(*(Text(row[index]) for index in part), style=style)
        return grid


def in_parts(table: Table, width: int) -> list[list[int]]:
    """The columns of each part of a table, by index: as many as there is room for, the first one in every part.

    Args:
        table: what is shown.
        width: of the terminal.
    """
    first = least_width(table, 0)
    parts, room = [[0]], width - first
    for index in range(1, len(table.columns)):
        needed = GAP + least_width(table, index)
        if needed > room and len(parts[-1]) > 1:
            parts.append([0])
            room = width - first
        parts[-1].append(index)
        room -= needed
    return parts


def least_width(table: Table, index: int) -> int:
    """How wide a column has to be: numbers and names stay whole, sentences are folded, and so are titles between words."""
    word = max((cell_len(word) for word in table.columns[index].title.split()), default=0)
    widest = max((cell_len(row[index]) for row in table.rows), default=0)
    return max(word, FOLDED if _is_folded(table, index) else widest)


def _is_folded(table: Table, index: int) -> bool:
    column: Column = table.columns[index]
    return index > 0 and column.align == "left" and any(cell_len(row[index]) > SENTENCE for row in table.rows)


def render_document(document: Document) -> RenderableType:
    """A document as ``rich.console.Console.print`` draws it; plots are left out."""
    heads = [Text(document.title, style="bold"), Text(document.subtitle, style="dim")]
    return Group(*heads, *(_block(block) for block in document.blocks))


def _block(block: Block) -> RenderableType:
    match block:
        case Table():
            return render(block)
        case Subheading():
            return Text(f"\n{block.title}", style="bold")
        case Paragraph():
            return Text(block.text)
        case Items():
            return Text("\n".join(f"- {item}" for item in block.items))
        case Facts():
            return Text("\n".join(f"{name}: {value}" for name, value in block.facts))
        case Figure():
            return Text(f"({block.alt}: {block.name}.png)", style="dim")
