"""A report shows where a budget of weights or units went."""

from dataclasses import replace

from tdcompress.records.stages import LayerCount, UnitCount
from tdcompress.report.layers import ROWS_AT_MOST, tables


def weights(*kept):
    shapes = {"a.weight": (4, 3, 3, 3), "b.weight": (10, 4)}
    sizes = zip(shapes.items(), (108, 40), kept, strict=True)
    return tuple(LayerCount(name=name, shape=shape, total=total, kept=left) for (name, shape), total, left in sizes)


UNITS = (UnitCount(name="a", total=4, kept=1), UnitCount(name="b", total=10, kept=5), UnitCount(name="head", total=3, kept=3))


def test_rows_of_pruned_weights_stand_beside_one_another(make_row, make_report):
    half, most = weights(54, 20), weights(27, 4)
    rows = (
        make_row("none", 0.0, 0.9, layers=weights(108, 40)),
        make_row("none", 0.5, 0.9, layers=half),
        make_row("targeted", 0.5, 0.9, layers=half),
        make_row("targeted", 0.8, 0.9, layers=most),
        make_row("targeted", 0.9, 0.9, layers=most[:1]),
        make_row("dropout", 0.5, 0.9),  # of an earlier version: not counted
    )
    (table,) = tables(make_report(rows, selected="targeted-0.5"))
    assert table.title == "Weights kept in each layer"
    assert [column.title for column in table.columns] == ["layer", "weights", "1", "2", "3"]
    assert table.rows == (
        ("a.weight, 4 x 3 x 3 x 3", "108", "54 (50.0 %)", "27 (25.0 %)", "27 (25.0 %)"),
        ("b.weight, 10 x 4", "40", "20 (50.0 %)", "4 (10.0 %)", "-"),
        ("all of these", "148", "74 (50.0 %)", "31 (20.9 %)", "27 (25.0 %)"),
    )
    assert table.notes == ("targeted-0.5 (model.onnx), none-0.5", "targeted-0.8", "targeted-0.9")


def test_units_have_a_table_of_their_own(make_row, make_report):
    units = make_row("targeted", 0.5, 0.9, id="units", granularity="unit", layers=weights(27, 20), units=UNITS)
    first, second = tables(make_report((make_row("none", 0.5, 0.9, layers=weights(54, 20)), units)))
    assert first.notes == ("none-0.5",)
    assert second.title == "Units kept in each layer"
    assert [column.title for column in second.columns] == ["layer", "units", "1"]
    assert second.rows == (("a", "4", "1 (25.0 %)"), ("b", "10", "5 (50.0 %)"), ("all of these", "14", "6 (42.9 %)"))
    assert second.notes == ("units",)


def test_more_rows_than_have_room_are_in_the_json_file(make_row, make_report):
    rows = tuple(make_row("none", kept / 1000, 0.9, layers=weights(100 - kept, 40)) for kept in range(12))
    (table,) = tables(make_report(rows, selected=rows[1].id))
    assert table.title == "Weights kept in each layer, 8 of 12 different counts: report.json has all"
    kept = [rows[1].id, *(row.id for row in rows[-ROWS_AT_MOST + 1 :])]
    assert [note.removesuffix(" (model.onnx)") for note in table.notes] == kept


def test_rows_that_lost_nothing_have_no_such_table(report, make_row, make_report):
    assert tables(report) == ()  # as written by an earlier version: no layers
    dense = make_row("none", 0.0, 0.9, layers=weights(108, 40))
    units = tuple(replace(each, kept=each.total) for each in UNITS)
    assert tables(make_report((dense, replace(dense, id="unit", granularity="unit", units=units)))) == ()
