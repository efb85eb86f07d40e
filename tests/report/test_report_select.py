import dataclasses

import pytest

from tdcompress.errors import UserError
from tdcompress.report.select import select_row


@pytest.fixture
def rows(make_row, make_latency):
    def row(name, accuracy, size, nonzero, ratio):
        fields = {"id": name, "onnx_bytes": size, "parameters_nonzero": nonzero, "latency": (make_latency("pc", ratio),)}
        return make_row("targeted", 0.9, accuracy, **fields)

    return (
        row("big", 0.98, 4096, 400, 1.0),
        row("small", 0.97, 1024, 300, 0.995),  # exactly one point below
        row("quick", 0.975, 2048, 200, 0.5),
        row("bad", 0.9, 10, 1, 0.05),
    )


def choose(rows, smallest, drop=0.01):
    return select_row(rows, max_accuracy_drop=drop, smallest=smallest, reference_accuracy=0.98)


def test_each_measure(rows):
    assert choose(rows, "onnx_bytes") == (
        "small",
        "small became model.onnx: it has the smallest onnx_bytes of the 3 rows within 1.00 points of the dense 98.00 % "
        "(1.0 KiB).",
    )
    assert choose(rows, "parameters_nonzero")[0] == "quick"
    assert choose(rows, "latency")[0] == "quick"


def test_an_accuracy_exactly_at_the_limit_counts_in_spite_of_rounding(make_row):
    assert 0.8 - 0.1 > 0.7  # in floats
    row = make_row("none", 0.5, 0.7)
    assert select_row([row], max_accuracy_drop=0.1, smallest="onnx_bytes", reference_accuracy=0.8)[0] == row.id


def test_a_ratio_without_a_claim_counts_as_one(make_row, make_latency):
    unsure = make_row("none", 0.5, 0.98, id="unsure", latency=(make_latency("pc", 0.6, claim="none"),))
    slightly = make_row("none", 0.9, 0.98, id="slightly", latency=(make_latency("pc", 0.95),))
    assert choose([unsure, slightly], "latency") == (
        "slightly",
        "slightly became model.onnx: it has the smallest latency of the 2 rows within 1.00 points of the dense 98.00 % "
        "(x0.95 of the dense time).",
    )


def test_rows_without_a_latency_are_told_and_no_claim_is_no_equal_time(make_row, make_latency):
    rows = [
        make_row("none", 0.5, 0.98, id="unsure", latency=(make_latency("pc", 1.3, claim="none"),)),
        make_row("none", 0.6, 0.98, id="slow", latency=(make_latency("pc", 1.5),)),
        make_row("none", 0.9, 0.98, id="unmeasured"),
    ]
    within = "within 1.00 points of the dense 98.00 % (no difference in latency is claimed)."
    assert choose(rows, "latency") == (
        "unsure",
        f"unsure became model.onnx: it has the smallest latency of the 2 rows with a measured latency {within}",
    )
    assert choose([rows[0], rows[2]], "latency") == (
        "unsure",
        f"unsure became model.onnx: it is the only row with a measured latency {within}",
    )


def test_ties_go_to_the_more_accurate_then_the_earlier(rows):
    same = [dataclasses.replace(row, onnx_bytes=5) for row in rows]
    assert choose(same, "onnx_bytes")[0] == "big"
    twins = [dataclasses.replace(row, accuracy_onnx=0.98) for row in same]
    assert choose(twins[::-1], "onnx_bytes")[0] == "bad"


def test_no_row_will_do_and_why(rows, make_row):
    assert choose(rows[3:], "onnx_bytes") == (
        None,
        "No row became model.onnx: none is within 1.00 points of the dense 98.00 %; the best is bad with 90.00 %.",
    )
    assert choose([], "onnx_bytes") == (
        None,
        "No row became model.onnx: none is within 1.00 points of the dense 98.00 %; there is none.",
    )
    unmeasured = [make_row("none", 0.5, 0.98)]
    assert choose(unmeasured, "latency") == (
        None,
        "No row became model.onnx: none of those within 1.00 points of the dense 98.00 % has a measured latency.",
    )


def test_an_unknown_measure_is_refused(rows):
    with pytest.raises(UserError, match=r"smallest is 'bytes'; it is one of onnx_bytes, latency, parameters_nonzero"):
        choose(rows, "bytes")
