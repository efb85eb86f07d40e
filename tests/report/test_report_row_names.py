import dataclasses

import pytest

from tdcompress.report import html, markdown
from tdcompress.report.document import compose
from tdcompress.report.row_names import LONGEST, labels, letters

LONG = "targeted-weight-layer-gamma0.95-erk-0.95"


@pytest.fixture
def long_report(small_report):
    """Three rows, of which one name has no room; the last is selected."""
    first, second, third = small_report.rows
    rows = (first, dataclasses.replace(second, id=LONG), third)
    return dataclasses.replace(small_report, rows=rows)


def test_names_that_have_room_stand_for_themselves(make_row, make_report):
    report = make_report((make_row("none", 0.5, 0.9, id="n" * LONGEST), make_row("none", 0.9, 0.5)))
    assert letters(report) == {}
    assert labels(report) == {"n" * LONGEST: "n" * LONGEST, "none-0.9": "none-0.9"}


def test_letters_are_those_of_a_spreadsheet(make_row, make_report):
    report = make_report(tuple(make_row("none", 0.5, 0.9, id=f"{place:0{LONGEST + 1}}") for place in range(703)))
    found = list(letters(report).values())
    assert found[:2] + found[25:28] + found[51:53] + found[701:] == ["A", "B", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]


def test_a_plot_shows_the_letter_and_both_ends_of_a_name(long_report):
    assert list(labels(long_report).values()) == ["A · none-0", "B · targeted-wei…ma0.95-erk-0.95", "C · targeted-0.9"]


def test_the_summary_has_short_names_other_tables_letters_and_a_legend_says_what_they_are(long_report):
    written = markdown.render_document(compose(long_report, figures={}))
    assert f"- A: none-0\n- B: {LONG}\n- C: targeted-0.9\n\nTimes of this table" in written
    assert "| A · none-0 | nothing | 98.61 |" in written
    assert "| B · targeted-wei…ma0.95-erk-0.95 |" in written
    assert "| **C · targeted-0.9** | **90 % of units** | **98.06** |" in written
    lines = [line for line in written.splitlines() if line.startswith("|")]
    assert [sum(line.startswith(f"| {name} |") for line in lines) for name in ("A", "B", "**C**")] == [3, 3, 3]
    assert not any(LONG in line for line in lines)


def test_the_page_has_them_too(long_report):
    page = html.render_document(compose(long_report, figures={}), {})
    assert f'<dl class="columns"><div><dt>A</dt><dd>none-0</dd></div><div><dt>B</dt><dd>{LONG}</dd></div>' in page
    assert page.count("<tr><td>B</td>") == 3
    assert page.count('<tr class="chosen"><td>C</td>') == 3
