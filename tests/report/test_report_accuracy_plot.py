"""The plots of accuracy, read back from what was drawn: positions, names, and that nothing covers anything."""

import dataclasses
import itertools

import pytest

from tdcompress.report import accuracy_plot, plots, row_plots
from tdcompress.report.colours import PALETTE, PLAIN
from tdcompress.report.series import networks


def drawn(drawing):
    """The lines of a plot's axes that have data points of their own: (colour, marker, [(x, y)])."""
    (axes,) = drawing.axes
    return [
        (line.get_color(), line.get_marker(), list(zip(*line.get_data(), strict=True)))
        for line in axes.lines
        if line.get_marker() != "None"
    ]


def names(drawing):
    """The words beside the axes, from top to bottom, with where they stand in pixels."""
    drawing.draw_without_rendering()
    (axes,) = drawing.axes
    found = [(note.get_text(), note.get_window_extent()) for note in axes.texts if note.get_text()]
    return sorted(found, key=lambda item: -item[1].y0)


def by_format(rows):
    """Each row in float32, float16 and int8, the narrower the less accurate."""
    for row, (values, lost) in itertools.product(rows, (("int8", 0.02), ("float32", 0.0), ("float16", 0.01))):
        yield dataclasses.replace(row, id=f"{row.id}-{values}", values=values, accuracy_onnx=row.accuracy_onnx - lost)


def test_points_stand_where_what_is_kept_is_halved(make_row, make_report):
    shares, accuracies = (0.0, 0.5, 0.75, 0.875), (0.9, 0.8, 0.6, 0.2)
    rows = [make_row("none", share, accuracy) for share, accuracy in zip(shares, accuracies, strict=True)]
    rows += [make_row("targeted", 0.5, accuracy, id=str(seed), seed=seed) for seed, accuracy in enumerate((0.85, 0.87))]
    rows += [make_row("targeted", 0.0, 0.91, id="whole")]
    plain, targeted, seeds = drawn(accuracy_plot.plot(make_report(tuple(rows))))
    assert plain == (PLAIN, "o", [(0.0, 90.0), (1.0, 80.0), (2.0, 60.0), (3.0, 20.0)])
    assert targeted[0] == PALETTE[0]
    assert targeted[2] == [(0.0, 91.0), (1.0, pytest.approx(86.0))]
    assert [point[1] for point in seeds[2]] == [91.0, 85.0, 87.0]


def test_a_faint_line_shows_what_there_was_before_new_statistics(make_row, make_report):
    rows = tuple(make_row("none", share, 0.8, accuracy_before=before) for share, before in ((0.0, None), (0.5, 0.6), (0.75, 0.3)))
    report = make_report(rows)
    (axes,) = accuracy_plot.plot(report).axes
    (faint,) = [line for line in axes.lines if line.get_marker() == "None" and len(line.get_xdata()) == 2 and line.get_alpha()]
    assert list(zip(*faint.get_data(), strict=True)) == [(1.0, pytest.approx(60.0)), (2.0, pytest.approx(30.0))]
    assert "Faint" in accuracy_plot.captioned(report).caption
    assert "Faint" not in accuracy_plot.captioned(make_report(tuple(make_row("none", 0.5, 0.8) for _ in range(1)))).caption


def test_seeds_with_different_zeros_are_one_point_at_their_mean(make_row, make_report):
    rows = [make_row("none", share, accuracy) for share, accuracy in ((0.0, 0.9), (0.5, 0.8))]
    rows += [
        make_row("targeted", share, accuracy, id=f"{share}-{seed}", seed=seed, sparsity_prunable=zeros)
        for share, seed, zeros, accuracy in (
            (0.5, 0, 0.7, 0.85),
            (0.5, 1, 0.8, 0.87),
            (0.9375, 0, 0.0, 0.3),
            (0.9375, 1, 0.0, 0.5),
        )
    ]
    report = make_report(tuple(rows))
    _, line, seeds = drawn(accuracy_plot.plot(report))
    assert line[2] == [(pytest.approx(2.0), pytest.approx(86.0)), (4.0, pytest.approx(40.0))]
    assert len(seeds[2]) == 4
    ends = "targeted (γ 0.9, α 0.66) 40.00 % (mean of 2 seeds, 30.00 to 50.00) at 93.75 % pruned."
    assert accuracy_plot.captioned(report).alt.endswith(ends)


def test_where_nothing_is_kept_the_axis_is_linear(make_row, make_report):
    rows = tuple(make_row("none", share, 0.5) for share in (0.0, 0.5, 1.0))
    ((_, _, points),) = drawn(accuracy_plot.plot(make_report(rows)))
    assert [x for x, _ in points] == [0.0, 0.5, 1.0]


def test_lines_are_named_at_their_ends_without_touching(report):
    drawing = accuracy_plot.plot(report)
    found = names(drawing)
    assert [name for name, _ in found] == ["dense 98.61", "targeted", "γ 0.9, α 0.66", "dropout", "α 0.594", "none"]
    (axes,) = drawing.axes
    for _, box in found:
        assert axes.get_window_extent().x1 < box.x0 < box.x1 <= drawing.bbox.x1
        assert drawing.bbox.y0 <= box.y0 < box.y1 <= drawing.bbox.y1
    for (_, above), (_, below) in itertools.pairwise(found):
        assert above.y0 >= below.y1


def test_many_lines_have_a_legend_with_the_dense_network(make_row, make_report):
    rows = [
        make_row("targeted", share, 0.9 - share / 2, id=f"{gamma}-{share}", options={"gamma": gamma})
        for gamma in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
        for share in (0.0, 0.5)
    ]
    drawing = accuracy_plot.plot(make_report(tuple(rows)))
    (legend,) = drawing.legends
    assert [text.get_text() for text in legend.get_texts()] == [*(f"targeted (γ 0.{n})" for n in range(1, 8)), "dense 98.33"]
    assert names(drawing) == []
    (axes,) = drawing.axes
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())


@pytest.mark.parametrize("names_of", [5, 40, 60, 200])
def test_a_legend_stays_inside_the_picture(make_row, make_report, names_of):
    """It takes a single column for longer names, and wraps the longest."""
    words = ("momentum 0.9, warmup, scope group, " * 9)[:names_of]
    rows = [
        make_row("targeted", share, 0.9 - share / 2, id=f"{n}-{share}", options={"schedule": f"{words}{n}"})
        for n in range(8)
        for share in (0.0, 0.5)
    ]
    drawing = accuracy_plot.plot(make_report(tuple(rows)))
    drawing.draw_without_rendering()
    (legend,) = drawing.legends
    box, (axes,) = legend.get_window_extent(), drawing.axes
    assert drawing.bbox.x0 <= box.x0 < box.x1 <= drawing.bbox.x1
    assert drawing.bbox.y0 <= box.y0
    assert axes.get_window_extent().height > 0.3 * drawing.bbox.height
    assert len(legend.get_texts()) == 9


def test_number_formats_are_hollow_dots_of_their_networks_line(report):
    rows = tuple(by_format(report.rows))
    formats = dataclasses.replace(report, rows=rows, selected=None)
    assert [name for name, _ in names(accuracy_plot.plot(formats))] == [name for name, _ in names(accuracy_plot.plot(report))]
    lines, dots = drawn(accuracy_plot.plot(formats))[:3], drawn(accuracy_plot.plot(formats))[3:]
    assert lines == drawn(accuracy_plot.plot(report))
    for (_, _, points), (colour, _, hollow) in zip(lines, dots, strict=True):
        assert colour == "none"
        expected = [(x, y - lost) for x, y in points for lost in (2.0, 1.0)]
        assert hollow == [(x, pytest.approx(y)) for x, y in expected]
    caption = accuracy_plot.captioned(formats).caption
    assert "Hollow: the same networks in int8 and float16." in caption
    assert "Hollow" not in accuracy_plot.captioned(report).caption


def test_a_mean_is_called_one(report, make_row, make_report):
    rows = [make_row("none", share, 0.5, id=f"{share}-{seed}", seed=seed) for share in (0.5, 0.9) for seed in (0, 1)]
    figure = accuracy_plot.captioned(make_report(rows))
    assert figure.alt.endswith("none 50.00 % (mean of 2 seeds, 50.00 to 50.00) at 90 % pruned.")
    caption = figure.caption
    assert "Lines are means over seeds, each seed a faint dot. Dotted: the unpruned network, mean of 2 seeds." in caption
    assert "mean" not in accuracy_plot.captioned(report).caption


def test_a_network_without_a_float32_file_has_its_line_too(make_row):
    rows = [make_row("none", share, 0.9, values="int8", id=f"n{share}") for share in (0.0, 0.5)]
    (line,), narrower = networks(rows)
    assert line.rows == tuple(rows)
    assert narrower == {"n0.0": (), "n0.5": ()}


def test_networks_that_are_no_lines_are_rows(make_row, make_report):
    """Xtreme in three number formats: one share, so a plot against the share would be a column of dots."""
    counted = {"fraction": None, "keep_per_filter": 3, "sparsity_prunable": 0.9895}
    xtreme = dataclasses.replace(make_row("targeted", 0.9, 0.87, id="xtreme"), **counted)
    rows = tuple(by_format([xtreme]))
    report = make_report(rows, selected="xtreme-int8")
    assert not accuracy_plot.has_lines(rows)
    assert plots.draw(report)[0].figure == row_plots.accuracy_figure(report)
    drawing = row_plots.plot_accuracy(report)
    (axes,) = drawing.axes
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == ["xtreme-int8", "xtreme-float32", "xtreme-float16"]
    assert [label.get_fontweight() for label in labels] == ["bold", "normal", "normal"]
    dense = 100 * xtreme.accuracy_dense
    assert [(colour, points) for colour, _, points in drawn(drawing)] == [
        (PALETTE[0], [(pytest.approx(value), level)]) for level, value in enumerate((85.0, 87.0, 86.0))
    ]
    assert [name for name, _ in names(drawing)] == [f"{v:.2f} % · {v - dense:+.2f}" for v in (85.0, 87.0, 86.0)]
    low, high = axes.get_xlim()
    assert low < 85.0 < dense < high


def test_a_single_point_among_lines_does_not_make_rows(report, make_row):
    assert accuracy_plot.has_lines((*report.rows, make_row("targeted", 0.9, 0.8, id="one", options={"gamma": 0.2})))
    assert accuracy_plot.has_lines(report.rows[:2])
    assert not accuracy_plot.has_lines(report.rows[:1])
