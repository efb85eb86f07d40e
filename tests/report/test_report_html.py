import dataclasses
import re
from html.parser import HTMLParser

import pytest

from tdcompress.report import html, plots
from tdcompress.report.document import Facts, Figure, Items, Paragraph, Subheading, compose
from tdcompress.report.html import render, render_document
from tdcompress.report.tables import Column, Table, summary

VOID = {"meta", "link", "br", "img", "hr"}
HOSTILE = "<script>alert('x')</script>\"&amp;<img src=http://a onerror=b>"


class Page(HTMLParser):
    """Tags with their attributes, text by innermost tag, and a check that what opens closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.append((self.open[-1], data))

    def text_of(self, tag):
        return [text for name, text in self.texts if name == tag]


def test_a_table_holds_the_same_cells_as_the_others(small_report):
    table = summary(small_report)
    page = Page(render(table))
    assert page.text_of("th") == [column.title for column in table.columns]
    assert page.text_of("td") == [cell for row in table.rows for cell in row]
    assert page.text_of("li") == list(table.notes)
    assert [attributes.get("class") for tag, attributes in page.tags if tag == "tr"] == [None, None, None, "chosen"]


def test_everything_is_escaped(small_report):
    blocks = (
        Paragraph(text=HOSTILE),
        Subheading(title=HOSTILE),
        Items(items=(HOSTILE,)),
        Facts(facts=((HOSTILE, HOSTILE),)),
        Figure(name="f", alt=HOSTILE, caption=HOSTILE),
        Table(title=HOSTILE, columns=(Column(title=HOSTILE),), rows=((HOSTILE,),), notes=(HOSTILE,)),
    )
    document = dataclasses.replace(compose(small_report, figures={}), blocks=blocks)
    page = Page(render_document(document, {"f": "<svg></svg>"}))
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "img", "link", "iframe", "object"}
    for tag in ("p", "h2", "li", "dt", "dd", "figcaption", "th", "td"):
        assert HOSTILE in page.text_of(tag)
    assert HOSTILE in [attributes.get("aria-label") for _, attributes in page.tags]


def test_no_line_begins_with_a_percent_sign_or_the_number_of_a_greek_letter(small_report):
    blocks = (Paragraph(text="at 90 % and γ 0.9, α 0.66 of <γ x>"),)
    shown = render_document(dataclasses.replace(compose(small_report, figures={}), blocks=blocks), {})
    assert "<p>at 90&nbsp;% and γ&nbsp;0.9, α&nbsp;0.66 of &lt;γ x&gt;</p>" in shown


@pytest.fixture
def page_text(report):
    drawings = plots.draw(report)
    figures = {drawing.figure.name: drawing.figure for drawing in drawings}
    return html.render_document(compose(report, figures), {drawing.figure.name: plots.inline(drawing) for drawing in drawings})


def test_the_page_needs_nothing_from_outside(page_text):
    page = Page(page_text)
    attributes = [item for _, attributes in page.tags for item in attributes.items()]
    addresses = [value for name, value in attributes if name in ("src", "href", "xlink:href")]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    outside = set(re.findall(r"https?://[^\"'\s)]+", page_text))
    assert outside == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names of namespaces, never fetched
    assert "@import" not in page_text
    assert set(re.findall(r"url\(([^)]*)\)", page_text)) <= {f"#{name}" for name in ids(page)}


def test_ids_are_unique_and_references_resolve(page_text):
    page = Page(page_text)
    names = ids(page)
    assert len(names) == len(set(names))
    used = {value[1:] for _, attributes in page.tags for name, value in attributes.items() if name.endswith("href")}
    assert used <= set(names)


def test_the_page_is_for_phones_and_both_themes(page_text):
    page = Page(page_text)
    metas = [attributes for tag, attributes in page.tags if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    assert "prefers-color-scheme: dark" in page_text
    drawn = page_text[page_text.index("<svg") :]
    assert not re.findall(r"#[0-9a-f]{6}\b", drawn)  # every colour in a drawing is one of the page's variables
    assert set(re.findall(r"var\((--[\w-]+)\)", page_text)) <= set(re.findall(r"(--[\w-]+):", page_text))


def ids(page):
    return [attributes["id"] for _, attributes in page.tags if "id" in attributes]
