"""Plots by rows, read back from what was drawn."""

import dataclasses
import itertools

import pytest

from tdcompress.report import colours, row_plots, text
from tdcompress.report.row_names import LONGEST


def points(axes, colour=None):
    """(x, y) of single dots, by their edge's colour."""
    return [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if line.get_marker() == "o" and (colour is None or line.get_markeredgecolor() == colour)
    ]


def test_bytes_have_a_dot_for_the_file_and_one_for_its_bound(small_report):
    drawing = row_plots.plot_bytes(small_report)
    (axes,) = drawing.axes
    expected = [(size, level) for level, row in enumerate(small_report.rows) for size in (row.bound_bytes, row.onnx_bytes)]
    assert points(axes) == expected
    assert [label.get_text() for label in axes.get_yticklabels()] == [row.id for row in small_report.rows]
    assert [note.get_text() for note in axes.texts] == ["364.9 KiB · x1.04", "48.4 KiB · x0.14", "48.4 KiB · x0.14"]
    low, high = axes.get_xlim()
    assert all(low < x < high for x, _ in expected)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row stands on top


def test_latencies_have_a_panel_for_each_setting_and_colours_of_their_claims(make_row, make_latency, make_report):
    claims = (("faster", 0.5), ("slower", 1.5), ("none", 1.0))
    rows = tuple(
        make_row("none", 0.5, 0.9, id=claim, latency=(make_latency("pc", ratio, half=0.1), make_latency("pc", ratio, threads=2)))
        for claim, ratio in claims
    )
    drawing = row_plots.plot_latency(make_report(rows, selected="slower"))
    one, two = drawing.axes
    palette = (colours.FASTER, colours.SLOWER, colours.NO_CLAIM)
    for axes in (one, two):
        assert [points(axes, colour) for colour in palette] == [[(ratio, level)] for level, (_, ratio) in enumerate(claims)]
        assert [label.get_fontweight() for label in axes.get_yticklabels()] == ["normal", "bold", "normal"]
    intervals = [tuple(line.get_xdata()) for line in one.lines if line.get_linewidth() == 2]
    assert intervals == [pytest.approx((ratio - 0.1, ratio + 0.1)) for _, ratio in claims]
    titles = [note.get_text() for axes in (one, two) for note in axes.texts if "thread" in note.get_text()]
    assert titles == ["pc · onnxruntime, 1 thread, batch 1", "pc · onnxruntime, 2 threads, batch 1"]
    assert one.get_xlim() == two.get_xlim()
    words = {note.get_text() for note in one.texts}
    assert {text.latency(row.latency[0]) for row in rows} <= words


@pytest.mark.parametrize("lowest", [0.03, 0.11, 0.19, 0.3, 0.55, 0.9])
@pytest.mark.parametrize("name", ["a", "n" * LONGEST])
def test_labels_of_an_axis_do_not_touch(make_row, make_latency, make_report, lowest, name):
    row = make_row("none", 0.5, 0.9, id=name, latency=(make_latency("pc", lowest, half=0.01),))
    drawing = row_plots.plot_latency(make_report((row,)))
    drawing.draw_without_rendering()
    boxes = [label.get_window_extent() for label in drawing.axes[0].get_xticklabels()]
    assert len(boxes) > 1
    assert all(right.x0 - left.x1 >= left.height / 3 for left, right in itertools.pairwise(boxes))


def test_number_formats_of_a_network_share_its_colour(make_row, make_report):
    plain, targeted = make_row("none", 0.5, 0.9), make_row("targeted", 0.5, 0.9)
    rows = [plain, targeted, *(dataclasses.replace(targeted, id=values, values=values) for values in ("float16", "int8"))]
    (axes,) = row_plots.plot_accuracy(make_report(tuple(rows))).axes
    assert [level for _, level in points(axes, colours.PLAIN)] == [0]
    assert [level for _, level in points(axes, colours.PALETTE[0])] == [1, 2, 3]
