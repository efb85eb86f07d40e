"""A second measure of each file, how it was counted, and answers that are not torch's."""

import json
from dataclasses import replace

from tdcompress.codec import decode, encode
from tdcompress.records.measures import FileFigure, Measure
from tdcompress.records.report import Report
from tdcompress.report.document import compose
from tdcompress.report.markdown import render_document
from tdcompress.report.measures import agreement, tables

BEAM = Measure(name="BLEU, beam 4")
PER_TOKEN = Measure(name="per-token accuracy", unit="%")


def translated(report, make_row):
    figures = (FileFigure(measure=BEAM, value=0.3456, how="case:mixed, alpha 0.6"), FileFigure(measure=PER_TOKEN, value=0.7))
    whole = make_row("none", 0.0, 0.3412, how="case:mixed", figures=figures, unlike_torch=2)
    rounded = make_row("none", 0.9, 0.3300, id="float16", how="case:mixed", figures=figures[:1])
    return replace(report, measure=Measure(name="BLEU"), rows=(whole, rounded), selected="float16")


def test_what_is_measured_stands_side_by_side(make_report, make_row):
    (table,) = tables(translated(make_report(()), make_row))
    titles = [column.title for column in table.columns]
    assert titles == ["row", "pruned", "BLEU", "BLEU, beam 4", "per-token accuracy, %", "answers unlike torch's", "how"]
    assert table.rows[0] == ("none-0", "nothing", "34.12", "34.56", "70.00", "2", "1")
    assert table.rows[1] == ("float16", "90 % of weights", "33.00", "34.56", "-", "-", "1")
    assert table.notes == ("BLEU: case:mixed; BLEU, beam 4: case:mixed, alpha 0.6",)
    assert table.highlight == 1


def test_the_table_is_in_the_report_and_its_record(make_report, make_row):
    report = translated(make_report(()), make_row)
    page = render_document(compose(report, figures={}))
    assert "## Measures of each file" in page
    assert "case:mixed, alpha 0.6" in page
    assert decode(Report, json.loads(json.dumps(encode(report)))) == report


def test_one_measure_of_which_nothing_is_said_has_no_table(small_report):
    assert tables(small_report) == ()


def test_how_many_answers_are_not_torchs_is_said_in_one_sentence(make_report, make_row):
    report = translated(make_report(()), make_row)
    assert (
        agreement(report)
        == "Of 360 answers of 1 row under the runtime, 2 are not torch's, as far as the task allows it: see the report."
    )
    whole, _ = report.rows
    same = replace(whole, unlike_torch=0)
    assert (
        agreement(replace(report, rows=(same, replace(same, id="other")), selected=None))
        == "All 720 answers of 2 rows under the runtime are torch's."
    )
    assert agreement(make_report((make_row("none", 0.0, 0.98),))) == ""
