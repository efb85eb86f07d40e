"""Tables and documents as HTML: one file that needs no script and nothing from outside."""

import importlib.resources
import re
from collections.abc import Mapping
from html import escape

from tdcompress.report.document import Block, Document, Facts, Figure, Items, Paragraph, Subheading
from tdcompress.report.tables import Column, Table


def render(table: Table) -> str:
    """A table that scrolls sideways where the page is narrow, with numbered notes below."""
    head = "".join(f"<th{_align(column)}>{escape(column.title)}</th>" for column in table.columns)
    lines = []
    for index, row in enumerate(table.rows):
        cells = "".join(f"<td{_align(column)}>{escape(cell)}</td>" for column, cell in zip(table.columns, row, strict=True))
        lines.append(f"<tr{_class('chosen' if index == table.highlight else '')}>{cells}</tr>")
    body = "\n".join(lines)
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        (f"<h2>{escape(table.title)}</h2>\n" if table.title else "")
        + f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n'
        + (f'<ol class="notes">{notes}</ol>\n' if notes else "")
    )


def _align(column: Column) -> str:
    return _class("number" if column.align == "right" else "")


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def render_document(document: Document, drawings: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        document: what to show.
        drawings: SVG elements by figure name; their colours are the style sheet's variables.
    """
    style = importlib.resources.files("tdcompress.report").joinpath("page.css").read_text(encoding="utf-8")
    body = "".join(_block(block, drawings) for block in document.blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(document.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{escape(document.title)}</h1>\n<p class="subtitle">{escape(document.subtitle)}</p></header>\n'
        f"{body}</main>\n</body>\n</html>\n"
    )


def _unbroken(text: str) -> str:
    """Running text in which no line begins with a percent sign, nor with the number of a Greek letter."""
    return re.sub(r" (?=%)|(?<=[α-ω]) (?=\d)", "&nbsp;", escape(text))


def _block(block: Block, drawings: Mapping[str, str]) -> str:
    match block:
        case Table():
            return render(block)
        case Subheading():
            return f"<h2>{escape(block.title)}</h2>\n"
        case Paragraph():
            return f"<p{_class('lead' if block.lead else '')}>{_unbroken(block.text)}</p>\n"
        case Items():
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in block.items)}</ul>\n"
        case Facts():
            facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in block.facts)
            return f"<dl{_class(block.form)}>{facts}</dl>\n"
        case Figure():
            drawing = drawings[block.name]
            label = f'<div role="img" aria-label="{escape(block.alt)}">{drawing}</div>'
            return f"<figure>{label}\n<figcaption>{escape(block.caption)}</figcaption></figure>\n"
