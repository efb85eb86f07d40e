"""Every method through the whole pipeline on real digits: train, prune, shrink or store, export, verify, benchmark, analyse."""

import itertools
import json

import numpy as np
import pytest

from tdcompress.methods.registry import METHODS
from tdcompress.records import Report
from tdcompress.report.dependence import read_dependence

RECIPE = """
name = "methods"
seed = 1

[data]
name = "digits"

[model]
name = "digits_cnn"
width = 6
hidden = 12

[sparsity]
method = "none"

[train]
epochs = 1
batch_size = 64
optimizer = { name = "sgd", lr = 0.05, momentum = 0.9 }

[prune]
fraction = 0.5

[bench]
budget = "none"
"""

CASES: tuple[dict[str, object], ...] = (
    *({"granularity": granularity, **case} for granularity in ("weight", "unit") for case in (
        {"method": "dropout"},
        {"method": "targeted", "gamma": 0.5, "l1": 0.01},
        {"method": "l1", "l1": 0.01},
        {"method": "l0", "initial_drop": 0.5, "lr_scale": 10.0},
        {"method": "variational", "lr_scale": 10.0},
        {"method": "smallify"},
        {"method": "random_prune", "fraction": 0.5},
    )),
    {"method": "targeted", "gamma": 0.5, "alpha": 0.9, "schedule": "ramp", "ramp_scale": True},
    {"method": "targeted", "keep_per_filter": 3, "alpha": 0.9},
    {"method": "targeted", "granularity": "unit", "gamma": 0.5, "alpha": 0.4, "draw": "weight"},
)  # fmt: skip
EVERY = "[sweep]\n" + "".join(
    "[[sweep.case]]\n" + "".join(f'"sparsity.{key}" = {json.dumps(value)}\n' for key, value in case.items()) for case in CASES
)

ANALYSED = """
[analyse]
bins = 16

[[sweep.case]]
"sparsity.method" = "none"

[[sweep.case]]
"sparsity.method" = "targeted"
"sparsity.gamma" = 0.5
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory, run_text, short_benchmarks) -> Report:
    with short_benchmarks():
        finished, _ = run_text(RECIPE + EVERY, tmp_path_factory.mktemp("methods"), {"bench.budget": "quick"})
    return finished.report


def test_every_method_is_deployed_in_both_granularities(report: Report):
    rows = {row.id: row for row in report.rows}
    assert len(rows) == len(CASES)
    assert {(row.method, row.granularity) for row in rows.values()} == set(
        itertools.product(set(METHODS) - {"none"}, ("weight", "unit"))
    )
    for row in rows.values():
        assert abs(row.accuracy_onnx - row.accuracy_masked) <= 2 / report.test_samples
        assert (row.accuracy_shrunk is not None) == (row.granularity == "unit")
        assert 0.45 < row.sparsity_prunable < 0.8
        assert row.onnx_bytes < row.dense_onnx_bytes
        assert len(row.latency) == 1


def test_a_random_mask_loses_nothing_when_it_is_pruned(report: Report):
    rows = [row for row in report.rows if row.method == "random_prune"]
    assert [row.granularity for row in rows] == ["weight", "unit"]
    assert all(row.accuracy_masked == row.accuracy_dense for row in rows)
    assert rows[0].accuracy_dense > 0.2


def test_analysis_of_a_run(tmp_path, run_text):
    finished, _ = run_text(RECIPE + ANALYSED, tmp_path)
    none, targeted = read_dependence(finished.folder)
    assert (none.method, targeted.method) == ("none", "targeted")
    with np.load(finished.folder / "dependence.npz", allow_pickle=False) as archive:
        for index, record in enumerate((none, targeted)):
            corner = archive[str(index)][record.kept_bins :, record.kept_bins :].sum()
            assert corner / 2 == pytest.approx(record.curvature_term, rel=1e-9)
            assert record.samples == finished.report.test_samples
            row = finished.report.rows[index]
            assert record.accuracy_pruned == row.accuracy_masked
            assert record.accuracy_unpruned == row.accuracy_dense
    again, _ = run_text(RECIPE + ANALYSED, tmp_path)
    assert again.made == 0
