"""Every method through the whole pipeline on real digits: train, prune, shrink or store, export, verify, benchmark, analyse.

Most of the time goes into exports, so the networks are small: weights on a linear one, which is analysed too, units on a
convolutional one with BatchNorm.
"""

import json
from typing import Any

import numpy as np
import pytest

from tdcompress.methods.registry import METHODS
from tdcompress.report.dependence import read_dependence

RECIPE = """
seed = 1

[data]
name = "digits"

[train]
epochs = 2
batch_size = 64
optimizer = { name = "sgd", lr = 0.1, momentum = 0.9 }

[prune]
fraction = 0.5

[bench]
budget = "quick"
"""
RIVALS: tuple[dict[str, object], ...] = (
    {"method": "dropout"},
    {"method": "l1", "l1": 0.01},
    {"method": "l0", "initial_drop": 0.5, "lr_scale": 10.0},
    {"method": "variational", "lr_scale": 10.0},
    {"method": "smallify"},
    {"method": "random_prune", "fraction": 0.5},
)
TARGETED: dict[str, tuple[dict[str, object], ...]] = {
    "weight": (
        {"method": "targeted", "gamma": 0.5, "alpha": 0.9, "schedule": "ramp", "ramp_scale": True, "l1": 0.01},
        {"method": "targeted", "keep_per_filter": 3, "alpha": 0.9},
    ),
    "unit": ({"method": "targeted", "gamma": 0.5, "alpha": 0.4, "draw": "weight"},),
}
TABLES = {
    "weight": '[model]\nname = "mlp"\nhidden = 12\n[analyse]\nbins = 16\n',
    "unit": '[model]\nname = "digits_cnn"\nwidth = 6\nhidden = 12\n',
}


def recipe(granularity: str) -> str:
    lines = [f'name = "methods-{granularity}"', RECIPE, TABLES[granularity]]
    lines += ["[sparsity]", 'method = "none"', f'granularity = "{granularity}"', "[sweep]"]
    for case in ({"method": "none"}, *RIVALS, *TARGETED[granularity]):
        lines += ["[[sweep.case]]", *(f'"sparsity.{key}" = {json.dumps(value)}' for key, value in case.items())]
    return "\n".join(lines)


@pytest.fixture(scope="module", params=("weight", "unit"))
def finished(request, tmp_path_factory, run_text, short_benchmarks) -> Any:
    with short_benchmarks():
        return run_text(recipe(request.param), tmp_path_factory.mktemp(request.param))[0]


def test_every_method_is_deployed_in_both_granularities(finished):
    rows = finished.report.rows
    (granularity,) = {row.granularity for row in rows}
    assert len({row.id for row in rows}) == len(rows) == 1 + len(RIVALS) + len(TARGETED[granularity])
    assert {row.method for row in rows} == set(METHODS)
    for row in rows:
        assert abs(row.accuracy_onnx - row.accuracy_masked) <= 2 / finished.report.test_samples
        assert (row.accuracy_shrunk is not None) == (granularity == "unit")
        assert (row.stored_bytes is not None) == (granularity == "weight")
        assert 0.45 < row.sparsity_prunable < 0.8
        assert row.onnx_bytes < row.dense_onnx_bytes
        assert len(row.latency) == 1


def test_a_random_mask_loses_nothing_when_it_is_pruned(finished):
    (row,) = (row for row in finished.report.rows if row.method == "random_prune")
    assert row.accuracy_masked == row.accuracy_dense > 0.2  # of ten classes


@pytest.mark.parametrize("finished", ["weight"], indirect=True)
def test_analysis_of_every_method(finished):
    records, rows = read_dependence(finished.folder), finished.report.rows
    assert [record.method for record in records] == [row.method for row in rows]
    with np.load(finished.folder / "dependence.npz", allow_pickle=False) as archive:
        for index, (record, row) in enumerate(zip(records, rows, strict=True)):
            corner = archive[str(index)][record.kept_bins :, record.kept_bins :].sum()
            assert corner / 2 == pytest.approx(record.curvature_term, rel=1e-9)
            assert record.samples == finished.report.test_samples
            assert (record.accuracy_pruned, record.accuracy_unpruned) == (row.accuracy_masked, row.accuracy_dense)


@pytest.mark.parametrize("finished", ["weight"], indirect=True)
def test_nothing_is_made_a_second_time(finished, run_text):
    again, _ = run_text(recipe("weight"), finished.folder.parent)
    assert (again.made, again.report) == (0, finished.report)
