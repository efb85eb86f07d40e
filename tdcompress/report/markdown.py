"""Tables and documents as GitHub-flavoured markdown."""

import re
from collections.abc import Iterable

from tdcompress.report.document import Block, Document, Facts, Figure, Items, Paragraph, Subheading
from tdcompress.report.tables import Table

# Characters that would become markup, but an underscore inside a word, and brackets that start no link, which would not.
_MARKUP = re.compile(r"[\\`*<>|&~]|\](?=[(\[:])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BLOCK_START = re.compile(r"^(?:([#+=-])(?=\1|\s|$)|(\d+)([.)])(?=\s|$))")


def escape(text: str) -> str:
    """Text that markdown shows as it is, on one line."""
    escaped = _MARKUP.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))
    return _BLOCK_START.sub(lambda found: f"\\{found[1]}" if found[1] else f"{found[2]}\\{found[3]}", escaped)


def render(table: Table) -> str:
    """A pipe table under its title, with numbered notes below; the highlighted row is bold."""
    lines = [f"## {escape(table.title)}", ""] if table.title else []
    lines.append(_line(escape(column.title) for column in table.columns))
    lines.append(_line("---:" if column.align == "right" else ":---" for column in table.columns))
    for index, row in enumerate(table.rows):
        cells = [escape(cell) for cell in row]
        lines.append(_line(f"**{cell}**" if index == table.highlight and cell else cell for cell in cells))
    if table.notes:
        lines += ["", *(f"{number}. {escape(note)}" for number, note in enumerate(table.notes, start=1))]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def render_document(document: Document) -> str:
    """The whole report; plots are links to files beside it."""
    head = f"# {escape(document.title)}\n\n{escape(document.subtitle)}\n"
    return "\n".join([head, *(_block(block) for block in document.blocks)])


def _block(block: Block) -> str:
    match block:
        case Table():
            return render(block)
        case Subheading():
            return f"## {escape(block.title)}\n"
        case Paragraph():
            return f"{escape(block.text)}\n"
        case Items():
            return "".join(f"- {escape(item)}\n" for item in block.items)
        case Facts():
            bold = "**" if block.form == "large" else ""
            return "".join(f"- {escape(name)}: {bold}{escape(value)}{bold}\n" for name, value in block.facts)
        case Figure():
            alt = re.sub(r"[\[\]\\]", "", block.alt)
            return f"![{escape(alt)}]({block.name}.png)\n\n{escape(block.caption)}\n"
