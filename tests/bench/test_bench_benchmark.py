import shutil
from dataclasses import replace

import numpy as np
import pytest

from tdcompress.bench import budget
from tdcompress.bench.benchmark import benchmark
from tdcompress.bench.report import BenchReport
from tdcompress.bench.statistics import Ratio
from tdcompress.errors import ModelError, UnsupportedError, UserError


@pytest.fixture
def soon_done(monkeypatch):
    """The quick budget with all its processes, and next to no time in each."""
    quick = budget.BUDGETS["quick"]
    short = replace(quick, minimum_pairs=5, seconds_per_file=0.3, seconds_total=1.0, warm_up_seconds=0.05)
    monkeypatch.setattr(budget, "BUDGETS", {**budget.BUDGETS, "quick": short})


@pytest.mark.usefixtures("soon_done")
def test_files_are_timed_beside_the_baseline_and_equal_files_once(make_model, tmp_path):
    dense = make_model(hidden=64)
    narrow = make_model("narrow.onnx", hidden=8)
    shutil.copy(dense, tmp_path / "copy.onnx")
    lines: list[str] = []
    shares: list[float] = []

    def told(line: str, done: float) -> None:
        lines.append(line)
        shares.append(done)

    report = benchmark([narrow, tmp_path / "copy.onnx", narrow], baseline=dense, batch=2, seed=3, progress=told)

    assert [row.file for row in report.rows] == ["narrow.onnx", "copy.onnx", "narrow.onnx"]
    assert report.rows[0] == report.rows[2]
    assert report.rows[1].ratio_to_dense == report.control.ratio_to_dense  # the same bytes: it is the control
    assert report.control.claim == "none"
    for row in report.rows:
        assert row.host == report.host.id
        assert (row.backend, row.provider, row.threads, row.batch) == ("onnxruntime", "CPUExecutionProvider", 1, 2)
        assert 0 < row.ratio_low <= row.ratio_to_dense <= row.ratio_high
        assert row.p50_ns <= row.p90_ns <= row.p99_ns
        assert row.claim_reason
    assert report.rows[0].bytes == narrow.stat().st_size
    assert report.protocol.input_shapes == ("input: float32 [2, 4]",)
    assert report.protocol.random_inputs
    assert len(report.samples) == 2
    assert all(len(samples.processes) == report.protocol.processes == 6 for samples in report.samples)
    assert sum("process" in line for line in lines) == 6
    assert shares == pytest.approx([done / 14 for done in (0, 1, *range(2, 14, 2))])  # two files, loaded once and in 6 processes
    assert BenchReport.from_json(report.to_json()) == report


@pytest.mark.usefixtures("soon_done")
def test_a_file_of_the_baselines_bytes_is_widened_by_the_control_that_it_is(make_model, monkeypatch):
    off = Ratio(value=1.04, low=1.03, high=1.05)  # by chance the baseline is not as fast as itself
    monkeypatch.setattr("tdcompress.bench.benchmark.compare", lambda times, generator: off)
    model = make_model()
    report = benchmark([model], baseline=model)
    (row,) = report.rows
    assert (row.ratio_low, row.ratio_to_dense, row.ratio_high) == pytest.approx((1.03 / 1.04, 1.04, 1.05 * 1.04))
    assert (row.claim, row.claim_reason) == (
        "none",
        "the 95 % interval (widened by the baseline against itself, 1.040) contains 1",
    )
    assert report.control == replace(row, ratio_low=1.03, ratio_high=1.05)


@pytest.mark.usefixtures("soon_done")
def test_the_null_backend_measures_the_harness(make_model, monkeypatch):
    monkeypatch.setattr("tdcompress.bench.benchmark.available_cores", lambda: 1)  # that a container pays for
    model = make_model()
    given = {"input": np.zeros((1, 4), np.float32)}
    report = benchmark([model], baseline=model, backend="null", baseline_backend="null", inputs=given, threads=0)
    row = report.rows[0]
    assert row.provider == "none"
    assert row.threads == 1
    assert not report.protocol.random_inputs
    assert any("ns of the clock itself" in flag for flag in row.flags)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"threads": -1}, UserError, "threads is -1"),
        ({"batch": 0}, UserError, "batch is 0"),
        ({"budget": "endless"}, UserError, "'endless' is unknown"),
        ({"inputs": {"x": np.zeros((1, 4), np.float32)}}, UserError, "given for"),
        ({"backend": "magic", "baseline_backend": "null"}, UnsupportedError, "'magic' is unknown"),
        ({"provider": "NoSuchExecutionProvider"}, UnsupportedError, "has no provider"),
    ],
)
def test_wrong_arguments_are_refused(make_model, arguments, error, message):
    model = make_model()
    with pytest.raises(error, match=message):
        benchmark([model], baseline=model, **arguments)


def test_files_that_cannot_be_compared_are_refused(make_model, tmp_path):
    model = make_model()
    with pytest.raises(UserError, match="no file to benchmark"):
        benchmark([], baseline=model)
    with pytest.raises(ModelError, match="no such file"):
        benchmark([tmp_path / "gone.onnx"], baseline=model)
    with pytest.raises(ModelError, match="compare files of the same network"):
        benchmark([make_model("other.onnx", input_name="image")], baseline=model)
