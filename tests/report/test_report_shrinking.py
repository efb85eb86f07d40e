"""What a report says about shrinking: every shrunk row with its certificate, one row layer by layer."""

from dataclasses import replace

from tdcompress.records.stages import DeadUnits, LayerUnits, ShrinkRecord
from tdcompress.report.details import accuracies
from tdcompress.report.shrinking import TRAINED_ON, tables

NARROW = ShrinkRecord(
    layers=(LayerUnits(name="stem", before=4, after=3), LayerUnits(name="conv1", before=5, after=4)),
    parameters_before=1400,
    parameters_after=247,
    macs_before=20_000,
    macs_after=9_000,
    dead_but_kept=(DeadUnits(layer="conv1", count=1, reason="it pads with zeros"),),
    max_error=4e-16,
    max_output=2.5,
    accuracy=0.9,
)


def test_a_report_without_shrunk_rows_has_no_table(make_row, make_report):
    assert tables(make_report((make_row("none", 0.5, 0.9),))) == ()


def test_every_shrunk_row_has_a_line_and_the_selected_one_its_layers(make_row, make_report):
    wide = replace(NARROW, parameters_after=800, layers=(LayerUnits(name="stem", before=4, after=4),), dead_but_kept=())
    first = make_row("targeted", 0.5, 0.9, granularity="unit", shrunk=wide)
    second = make_row("targeted", 0.8, 0.9, granularity="unit", shrunk=NARROW)
    narrowest = tables(make_report((first, second)))
    selected = tables(make_report((first, second), selected=first.id))
    rows, layers = narrowest
    assert rows.rows[1] == (second.id, "1,400 → 247", "20,000 → 9,000", "1", "4.0e-16", "2.5")
    assert rows.highlight is None
    assert layers.title == f"Layers of {second.id}"
    assert layers.rows == (("stem", "4", "3", "-"), ("conv1", "5", "4", "1: it pads with zeros"))
    assert selected[0].highlight == 0
    assert selected[1].rows == (("stem", "4", "4", "-"),)


def test_files_of_other_number_formats_repeat_nothing(make_row, make_report):
    row = make_row("targeted", 0.5, 0.9, granularity="unit", shrunk=NARROW)
    both = tables(make_report((row, replace(row, id="int8", values="int8"))))
    assert [line[0] for line in both[0].rows] == [row.id]


def test_networks_without_a_float32_file_have_their_lines_too(make_row, make_report):
    row = make_row("targeted", 0.5, 0.9, granularity="unit", shrunk=NARROW, id="half", values="float16")
    rows, layers = tables(make_report((row, replace(row, id="int8", values="int8"))))
    assert [line[0] for line in rows.rows] == ["half"]
    assert layers.title == "Layers of half"


def test_the_layers_are_those_of_the_selected_row_in_whatever_format(make_row, make_report):
    wide = make_row("targeted", 0.5, 0.9, granularity="unit", shrunk=replace(NARROW, parameters_after=800))
    chosen, narrow = replace(wide, id="int8", values="int8"), make_row("targeted", 0.8, 0.9, granularity="unit", shrunk=NARROW)
    _, layers = tables(make_report((wide, chosen, narrow), selected="int8"))
    assert layers.title == "Layers of int8"


def test_rows_that_trained_on_say_that_the_certificate_is_from_before(make_row, make_report):
    row = make_row("targeted", 0.5, 0.9, granularity="unit", shrunk=NARROW)
    tuned = replace(row, id="tuned", finetune_after="shrink", finetune_epochs=3, accuracy_finetuned=0.93)
    table = tables(make_report((row, tuned)))[0]
    assert [column.title for column in table.columns][-1] == "then fine-tuned"
    assert [line[-1] for line in table.rows] == ["-", "3 epochs"]
    assert table.notes == (TRAINED_ON,)
    assert len(tables(make_report((row,)))[0].columns) == len(table.columns) - 1


def test_accuracies_before_and_after_fine_tuning_are_of_two_networks(make_row, make_report):
    row = make_row("targeted", 0.5, 0.9, granularity="unit", shrunk=NARROW)
    row = replace(row, accuracy_masked=0.5, accuracy_shrunk=0.5, accuracy_finetuned=0.9, accuracy_onnx=0.9)
    titles = ("row", "as trained, %", "masked, %", "shrunk, %", "fine-tuned after shrinking, %", "ONNX, %", "samples apart")
    table = accuracies(make_report((replace(row, finetune_after="shrink", finetune_epochs=1),)))
    assert tuple(column.title for column in table.columns) == titles
    assert table.rows == ((row.id, "98.33", "50.00", "50.00", "90.00", "90.00", "0"),)


def test_masked_is_right_after_pruning_and_fine_tuned_is_what_is_shrunk(make_row, make_report):
    row = make_row("targeted", 0.5, 0.9, granularity="unit", shrunk=NARROW)
    row = replace(row, accuracy_masked=0.5, accuracy_shrunk=0.9, accuracy_finetuned=0.9, accuracy_onnx=0.9 - 1 / 360)
    table = accuracies(make_report((replace(row, finetune_after="prune", finetune_epochs=1),)))
    titles = ("row", "as trained, %", "masked, %", "fine-tuned, %", "shrunk, %", "ONNX, %", "samples apart")
    assert tuple(column.title for column in table.columns) == titles
    assert table.rows == ((row.id, "98.33", "50.00", "90.00", "90.00", "89.72", "1"),)
