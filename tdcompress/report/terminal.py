"""Tables and documents in a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from tdcompress.report.document import Block, Document, Facts, Figure, Items, Paragraph, Subheading
from tdcompress.report.tables import Table


def render(table: Table) -> RenderableType:
    """What ``rich.console.Console.print`` draws: the table, and its notes under it."""
    title = Text(table.title, style="bold") if table.title else None
    grid = RichTable(title=title, title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(table.columns):
        # numbers are never broken over lines, nor is a name in the first column of a narrow table; words are
        whole = column.align == "right" or (index == 0 and len(table.columns) == 2)
        # not by a least width: with one, rich makes the grid wider than the terminal, and cuts it
        grid.add_column(Text(column.title, style="dim"), justify=column.align, overflow="fold", no_wrap=whole)
    for index, row in enumerate(table.rows):
        # Text, not str: a cell such as "[0.52, 0.55]" must not be read as rich's markup.
        grid.add_row(*(Text(cell) for cell in row), style="bold green" if index == table.highlight else None)
    notes = [Text(f"{number}  {note}", style="dim") for number, note in enumerate(table.notes, start=1)]
    return Group(grid, *notes)


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
