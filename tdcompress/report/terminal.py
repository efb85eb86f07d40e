"""Tables in a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from tdcompress.report.tables import Table


def render(table: Table) -> RenderableType:
    """What ``rich.console.Console.print`` draws: the table, and its notes under it."""
    title = Text(table.title, style="bold") if table.title else None
    grid = RichTable(title=title, title_justify="left", box=None, pad_edge=False)
    for column in table.columns:
        grid.add_column(Text(column.title, style="dim"), justify=column.align, overflow="fold")
    for index, row in enumerate(table.rows):
        # Text, not str: a cell such as "[0.52, 0.55]" must not be read as rich's markup.
        grid.add_row(*(Text(cell) for cell in row), style="bold green" if index == table.highlight else None)
    notes = [Text(f"{number}  {note}", style="dim") for number, note in enumerate(table.notes, start=1)]
    return Group(grid, *notes)
