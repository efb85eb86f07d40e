import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from tdcompress.report import details, terminal
from tdcompress.report.tables import Column, Table, main_setting, number_columns, numbered, summary, text_columns


def test_summary_of_a_small_report(small_report):
    table = summary(small_report)

    assert [column.title for column in table.columns] == [
        "row",
        "pruned",
        "accuracy, %",
        "file",
        "of dense",
        "time / dense time [95 %]",
        "why",
    ]
    assert table.rows == (
        ("none-0", "nothing", "98.61", "364.9 KiB", "x1.04", "1.003 [0.991, 1.015] no claim", "1"),
        ("none-0.9", "90 % of weights", "46.39", "48.4 KiB", "x0.14", "0.996 [0.984, 1.008] no claim", "1"),
        ("targeted-0.9", "90 % of units", "98.06", "48.4 KiB", "x0.14", "0.53 [0.52, 0.54] faster", "2"),
    )
    assert table.highlight == 2
    note, _ = table.notes
    assert "computes with zeros" in note


def test_summary_without_latency_has_no_such_column(make_row, make_report):
    table = summary(make_report((make_row("none", 0.5, 0.9),)))
    assert [column.title for column in table.columns][-2:] == ["of dense", "why"]
    assert table.highlight is None


def test_summary_says_which_row_was_not_measured_under_the_main_setting(make_row, make_latency, make_report):
    rows = (
        make_row("none", 0.0, 0.9, latency=(make_latency("pc", 1.0), make_latency("pc", 1.0, threads=2))),
        make_row("none", 0.5, 0.9, latency=(make_latency("pc", 0.5, threads=2),)),
        make_row("none", 0.9, 0.9),
    )
    assert main_setting(rows).threads == 2  # two rows have it
    assert [line[5] for line in summary(make_report(rows)).rows] == [
        "1.000 [0.988, 1.012] no claim",
        "0.50 [0.49, 0.51] faster",
        "not measured",
    ]


def test_different_reasons_are_different_notes(make_row, make_report):
    rows = (make_row("none", 0.5, 0.9), make_row("none", 0.5, 0.9, granularity="unit", id="u"), make_row("none", 0.9, 0.9))
    table = summary(make_report(rows))
    assert [line[-1] for line in table.rows] == ["1", "2", "1"]
    assert table.notes == (rows[0].why, rows[1].why)
    assert numbered(["", "a", "", "b", "a"]) == {"": "", "a": "1", "b": "2"}


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="a row of 2 cells under 1 columns"):
        Table(title="t", columns=(Column(title="a"),), rows=(("1", "2"),))


def test_accuracies_count_the_samples_that_forms_differ_by(make_row, make_report):
    row = make_row("targeted", 0.9, 0.95, accuracy_onnx=0.95 - 2 / 360)
    table = details.accuracies(make_report((row,)))
    assert [column.title for column in table.columns] == [
        "row",
        "as trained, %",
        "masked, %",
        "stored, %",
        "ONNX, %",
        "samples apart",
    ]
    assert table.rows == (("targeted-0.9", "98.33", "95.00", "95.00", "94.44", "2"),)


def test_the_summary_shows_accuracy_before_and_after_new_statistics(make_row, make_report):
    rows = (make_row("none", 0.8, 0.83, accuracy_before=0.27), make_row("none", 0.5, 0.98))
    table = summary(make_report(rows))
    assert [column.title for column in table.columns][2:4] == ["before new statistics, %", "accuracy, %"]
    assert [line[2:4] for line in table.rows] == [("27.00", "83.00"), ("-", "98.00")]
    assert not any("statistics" in column.title for column in summary(make_report(rows[1:])).columns)


def test_accuracies_show_pruning_before_and_after_new_statistics(make_row, make_report):
    rows = (make_row("none", 0.8, 0.83, accuracy_before=0.27), make_row("none", 0.5, 0.98))
    table = details.accuracies(make_report(rows))
    assert [column.title for column in table.columns][2:4] == ["before new statistics, %", "masked, %"]
    assert [line[2:4] for line in table.rows] == [("27.00", "83.00"), ("-", "98.00")]
    assert [line[-1] for line in table.rows] == ["0", "0"]  # the old statistics make another network


def test_sizes_by_hand(make_row, make_report):
    row = make_row("none", 0.5, 0.9, onnx_bytes=2048, bound_bytes=1024.0, stored_bytes=None)
    table = details.sizes(make_report((row,)))
    counts = ("50.00", "49.33", "89,200", "89,200", "45,200", "1,250,000")
    assert table.rows == (("none-0.5", *counts, "2.0 KiB", "1.0 KiB", "2.00"),)


def test_tokens_per_second_have_a_column_where_calls_say_tokens(make_row, make_latency, make_report):
    rows = (
        make_row("none", 0.0, 0.9, latency=(make_latency("pc", 1.0, p50_ns=5e6, tokens=10),)),
        make_row("none", 0.5, 0.9, latency=(make_latency("pc", 1.0),)),
    )
    table = details.latencies(make_report(rows), "pc")
    assert [column.title for column in table.columns][2:4] == ["median", "tokens/s"]
    assert [line[3] for line in table.rows] == ["2,000", "-"]


def test_latencies_of_a_host_hold_that_host_alone(report):
    server, board = report.hosts
    for host in (server, board):
        table = details.latencies(report, host)
        assert len(table.rows) == len(report.rows)
        assert host in table.title
        assert table.rows[table.highlight][0] == "targeted-0.9"
    assert details.latencies(report, "elsewhere").rows == ()


def test_one_training_is_told_once(report):
    assert [line[0] for line in details.trainings(report).rows] == ["none", "dropout (α 0.594)", "targeted (γ 0.9, α 0.66)"]


def test_a_training_has_its_own_epochs_and_names_those_of_fine_tuning(make_row, make_report):
    row = make_row("none", 0.5, 0.9, epochs=6, differs={"train.l2": 0.1})
    tuned = [
        make_row(
            "none",
            0.5,
            0.9,
            id=after,
            epochs=7,
            finetune_epochs=1,
            finetune_after=after,
            differs={"finetune.lr": 0.1, **row.differs},
        )
        for after in ("prune", "shrink")
    ]
    table = details.trainings(make_report((row, *tuned)))
    assert [column.title for column in table.columns][-2:] == ["accuracy as trained, %", "then fine-tuned, epochs"]
    assert table.rows == (("none", "0", "6", "12.5", "cpu", "98.61", "0, 1"),)
    assert len(details.trainings(make_report((row,))).columns) == len(table.columns) - 1


def test_what_was_pruned_differently_is_still_one_training(make_row, make_report):
    rows = [
        make_row("none", 0.5, 0.9, id="a"),
        make_row("none", 0.5, 0.9, id="b", granularity="unit", scope="group", trained_granularity="weight"),
        make_row("targeted", 0.5, 0.9, id="c"),
        make_row("targeted", 0.5, 0.9, id="d", granularity="unit", unit="filter", trained_granularity="weight"),
        make_row("targeted", 0.5, 0.9, id="e", evaluation="released"),
        make_row("targeted", 0.5, 0.9, id="f", values="int8"),
    ]
    assert [line[0].split()[0] for line in details.trainings(make_report(tuple(rows))).rows] == ["none", "targeted"]
    others = [
        make_row("targeted", 0.5, 0.9, id="g", granularity="unit"),
        make_row("targeted", 0.5, 0.9, id="h", granularity="unit", scope="group"),
        make_row("targeted", 0.5, 0.9, id="i", seed=1),
    ]
    assert len(details.trainings(make_report((*rows, *others))).rows) == 5


def test_terminal_shows_every_cell_and_reads_no_markup(small_report):
    table = summary(small_report)
    hostile = Table(title="[bold]t[/bold]", columns=(Column(title="[red]c"),), rows=(("[/] [0.52, 0.55]",),), notes=("[x]",))
    stream = io.StringIO()
    console = Console(file=stream, width=130, color_system=None)
    console.print(terminal.render(table))
    console.print(terminal.render(hostile))
    shown = stream.getvalue()
    for text in (
        *(cell for row in table.rows for cell in row),
        *table.notes,
        "[bold]t[/bold]",
        "[red]c",
        "[/] [0.52, 0.55]",
        "1  [x]",
    ):
        assert text in shown


@pytest.mark.parametrize("width", [60, 80, 100, 130, 250])
def test_a_table_wider_than_the_terminal_comes_in_parts_and_nothing_is_cut(small_report, width):
    """Each part has the names of the rows; names and numbers stand in one line, sentences are folded between words."""
    reasons = Table(
        title="t",
        columns=(*text_columns("file"), *number_columns("the first number", "the second number"), *text_columns("why")),
        rows=(("a-name-of-thirty-one-characters", "1,234 -> 12,345", "1e-16", "since it is so, and will be so from now on"),) * 3,
    )
    for table in (summary(small_report), details.sizes(small_report), details.trainings(small_report), reasons):
        stream = io.StringIO()
        Console(file=stream, width=width, color_system=None).print(terminal.render(table))
        lines = stream.getvalue().splitlines()
        assert all(cell_len(line.rstrip()) <= width for line in lines)
        parts = terminal.in_parts(table, width)
        assert sorted({index for part in parts for index in part}) == list(range(len(table.columns)))
        assert (len(parts) == 1) == (sum(terminal.least_width(table, i) + 2 for i in range(len(table.columns))) - 2 <= width)
        for row in table.rows:
            assert sum(line.startswith(f"{row[0]} ") for line in lines) == len(parts) * sum(r[0] == row[0] for r in table.rows)
            for cell in row:
                assert any(cell in line for line in lines) or (len(cell) > 30 and cell.split()[-1] in stream.getvalue())
        words = " ".join(stream.getvalue().split())
        assert all(word in words for column in table.columns for word in column.title.split())


def test_a_name_that_leaves_no_room_is_folded_and_numbers_stay_whole():
    table = Table(title="", columns=(*text_columns("file"), *number_columns("a", "b")), rows=(("n" * 70, "1,234,567", "x0.019"),))
    stream = io.StringIO()
    Console(file=stream, width=60, color_system=None).print(terminal.render(table))
    shown = stream.getvalue()
    assert all(len(line.rstrip()) <= 60 for line in shown.splitlines())
    assert [shown.count(text) for text in ("1,234,567", "x0.019")] == [1, 1]
    assert shown.count("n") == 2 * 70
