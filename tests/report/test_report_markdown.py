import html
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tdcompress.report.document import compose
from tdcompress.report.markdown import escape, render, render_document
from tdcompress.report.tables import Column, Table, summary

GOLDEN = Path(__file__).parent / "golden_report.md"
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])  # an independent reading of markdown
TEXTS = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=40)
MARKUP = st.text(alphabet=r"\`*_{}[]()#+-.!|<>&~:=1a x", max_size=20)


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_the_report_is_the_golden_one(small_report):
    assert render_document(compose(small_report, figures={})) == GOLDEN.read_text(encoding="utf-8")


def test_a_table_by_hand():
    table = Table(
        title="Two | bars",
        columns=(Column(title="name"), Column(title="n", align="right")),
        rows=(("a|b", "1"), ("random_prune", "0.5 [0.4, 0.6]")),
        highlight=1,
        notes=("because *so*",),
    )
    assert render(table).splitlines() == [
        "## Two \\| bars",
        "",
        "| name | n |",
        "| :--- | ---: |",
        "| a\\|b | 1 |",
        "| **random_prune** | **0.5 [0.4, 0.6]** |",
        "",
        "1. because \\*so\\*",
    ]


@settings(derandomize=True, deadline=None, max_examples=300)
@given(text=TEXTS | MARKUP)
@example(text="[a](javascript:alert(1))")
@example(text="# title")
@example(text="1. one")
@example(text="12) one")
@example(text="- item")
@example(text="---")
@example(text="=")
@example(text="[x]: http://a")
@example(text="<script>alert(1)</script> &lt; a_b _c_ ~~d~~ ![i](u) <http://x>")
def test_text_stands_as_it_is(text):
    line = one_line(text)
    assert READER.render(escape(text)).strip() == (f"<p>{html.escape(line)}</p>" if line else "")


@settings(derandomize=True, deadline=None, max_examples=100)
@given(cells=st.lists(st.tuples(TEXTS | MARKUP, TEXTS | MARKUP), min_size=1, max_size=4))
def test_cells_are_read_back(cells):
    table = Table(title="", columns=(Column(title="a"), Column(title="b", align="right")), rows=tuple(cells))
    tokens = READER.parse(render(table))
    read = ["".join(part.content for part in token.children) for token in tokens if token.type == "inline"]
    assert read == ["a", "b", *(one_line(cell) for row in cells for cell in row)]


def test_the_highlighted_row_is_bold(small_report):
    assert "| **targeted-0.9** | **90 % of units** |" in render(summary(small_report))
