import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tdcompress.bench.host import read_host
from tdcompress.bench.job import PairTimes, ProbeResult
from tdcompress.bench.modelfile import ModelFile, read_model_file
from tdcompress.bench.report import BenchReport, Protocol, Samples
from tdcompress.bench.statistics import Ratio
from tdcompress.bench.summary import Setting, Subject, compare, summarise, within_process_spread
from tdcompress.bench.table import COSTS, NOTES, TIMES, costs_table, format_ms, notes_table, times_table
from tdcompress.errors import UserError
from tdcompress.processor import Processor, read_processor

SAME = Ratio(value=1.0, low=0.99, high=1.01)
FASTER = Ratio(value=0.5, low=0.49, high=0.51)


def process_times(candidate_ns, *, calls=1, steady=True) -> PairTimes:
    return PairTimes(
        baseline_calls=1,
        candidate_calls=calls,
        baseline_ns=(2000,) * len(candidate_ns),
        candidate_ns=tuple(candidate_ns),
        single_ns=tuple(nanoseconds // calls for nanoseconds in candidate_ns),
        load_ns=5_000_000,
        first_run_ns=7000,
        steady=steady,
    )


PROBE = ProbeResult(
    provider="CPUExecutionProvider",
    options={"intra_op_num_threads": "1"},
    notes=("2 of 9 nodes ran on another provider",),
    peak_rss_bytes=64 * 2**20,
    timer_overhead_ns=40.0,
)


@pytest.fixture
def row(make_model):
    """A row of a file with given times in each process."""

    def make(*processes: PairTimes, ratio=FASTER, tiny_weights=0, threads=1):
        file = read_model_file(make_model(tiny_weights=tiny_weights))
        return summarise(
            Subject(file=file, backend="onnxruntime", provider="CPUExecutionProvider"),
            Setting(threads=threads, batch=1, cores=2, processor=read_processor()),
            read_host(),
            PROBE,
            processes,
            ratio=ratio,
            control=SAME,
            timer_overhead_ns=40.0,
        )

    return make


@pytest.fixture
def report(row):
    times = process_times([100_000] * 40)
    return BenchReport(
        host=read_host(),
        protocol=Protocol(
            budget="quick",
            processes=2,
            seed=0,
            baseline_backend="onnxruntime",
            input_shapes=("input: float32 [1, 4]",),
            inputs_sha256="0" * 64,
            random_inputs=True,
            timer_overhead_ns=40.0,
            denormals="kept",
            seconds=1.5,
        ),
        control=row(times, times, ratio=SAME),
        rows=(row(times, times),),
        samples=(Samples(sha256="ab", backend="onnxruntime", processes=(times, times)),),
    )


def test_percentiles_pool_single_calls_and_need_enough_of_them(row):
    few = row(process_times([100_000] * 30), process_times([200_000] * 30))
    assert (few.p50_ns, few.p90_ns, few.p99_ns) == (100_000, None, None)
    enough = row(process_times([100_000] * 40), process_times([200_000] * 24))
    assert (enough.p50_ns, enough.p90_ns, enough.p99_ns) == (100_000, 200_000, None)
    many = row(process_times([100_000] * 660), process_times([900_000] * 10))
    assert many.p99_ns == 900_000


def test_a_clean_row_claims_and_flags_only_what_the_backend_noted(row):
    clean = row(process_times([100_000] * 40), process_times([100_000] * 40))
    assert clean.claim == "faster"
    assert clean.flags == PROBE.notes
    assert clean.spread == 0.0
    assert clean.load_ns == 5_000_000


def test_flags_name_noise_shift_unsteadiness_denormals_threads_and_clock(row):
    noisy = process_times([1000, 1000, 1150, 1150] * 10, steady=False)  # quartiles 1000 and 1150 around 1075: 14 %
    shifted = process_times([2000, 2000, 2300, 2300] * 10)
    flags = row(noisy, shifted, tiny_weights=3, threads=8).flags
    assert flags == (
        "noisy: IQR/median 14%",
        "medians of processes differ by 100%",
        "no steady state in 1 of 2 processes",
        "3 denormal weights, slow to compute with; flush them to zero at export",
        "8 threads on 2 cores",
        "percentiles contain 40 ns of the clock itself",
        *PROBE.notes,
    )


def test_a_full_range_file_is_flagged_where_its_sums_saturate():
    processor = Processor(name="Haswell", machine="x86_64", flags=("avx2",))
    file = ModelFile(path=Path("q.onnx"), sha256="", bytes=1, gzip_bytes=1, denormals=0, full_range=2, inputs=())
    setting = Setting(threads=1, batch=1, cores=1, processor=processor)
    subject = Subject(file=file, backend="onnxruntime", provider="CPUExecutionProvider")
    timed = [process_times([2000] * 10)] * 2
    found = summarise(subject, setting, read_host(), PROBE, timed, ratio=FASTER, control=SAME, timer_overhead_ns=1.0)
    assert any(flag.startswith("2 full-range int8 weights") for flag in found.flags)


def test_a_ratio_is_of_calls_not_of_blocks():
    # Blocks of 2000 ns for one call, against 1000 ns for ten: 0.05 in every pair.
    processes = [process_times([1000] * 10, calls=10)] * 2
    ratio = compare(processes, np.random.default_rng(0))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.05, 0.05, 0.05))


def test_noise_is_that_within_a_process(row):
    steady, other_clock = process_times([100] * 20), process_times([160] * 20)
    assert within_process_spread([steady, other_clock, other_clock]) == 0.0
    wild = process_times([100, 200] * 10)
    assert row(wild, wild, wild).spread == within_process_spread([wild]) > 0.6
    assert row(wild, wild, wild).claim == "faster"  # the interval knows the noise; the row shows it
    assert row(wild, wild, wild).flags[0] == "noisy: IQR/median 67%"


def test_json_round_trip(report):
    text = report.to_json()
    assert BenchReport.from_json(text) == report
    assert json.loads(text)["schema"] == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "not a benchmark that this version reads"),
        (lambda text: "[" * 200_000, "nested too deeply"),
        (lambda text: "[]", "a table is needed"),
        (lambda text: text.replace('"schema": 1, ', ""), "names no schema"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "schema 2, this version reads 1"),
        (lambda text: text.replace('"p50_ns": 100000', '"p50_ns": "fast"'), "control.p50_ns: int needed"),
        (lambda text: text.replace('"claim": "faster"', '"claim": "fastest"'), r"rows\[0\].claim: 'fastest' is none of"),
        (lambda text: text.replace('"rows"', '"lines"'), "benchmark.lines: unknown key"),
        (lambda text: text.replace('"spread"', '"sprad"'), "sprad: unknown key"),
        (lambda text: text.replace('"ratio_low": 0.49', '"ratio_low": NaN'), "not a finite number"),
    ],
)
def test_damaged_json_is_refused_by_file_and_field(report, damage, message):
    with pytest.raises(UserError, match=message) as caught:
        BenchReport.from_json(damage(report.to_json()), "results.json")
    assert "results.json" in str(caught.value)


def test_tables_have_the_control_first_and_a_cell_for_every_column(report):
    times, costs, notes = times_table(report), costs_table(report), notes_table(report)
    assert [len(cells) for cells in times] == [len(TIMES)] * 2
    assert [len(cells) for cells in costs] == [len(COSTS)] * 2
    assert times[0][0] == costs[0][0] == "dense against itself"
    cells = {**dict(zip(TIMES, times[1], strict=True)), **dict(zip(COSTS, costs[1], strict=True))}
    assert cells["file"] == "dense.onnx"
    assert cells["p50 ms"] == "0.100"
    assert cells["p99 ms"] == "-"
    assert cells["time / dense"] == "0.500"
    assert cells["95 % interval"] == "0.490 .. 0.510"
    assert cells["claim"] == "faster"
    assert cells["peak MiB"] == "64"
    assert all(len(cells) == len(NOTES) for cells in notes)
    assert ("dense.onnx", "", "; ".join(report.rows[0].flags)) in notes


def test_names_say_which_runtime_ran_them_if_they_differ(report):
    assert [cells[0] for cells in costs_table(report)] == ["dense against itself", "dense.onnx"]
    mixed = dataclasses.replace(report, rows=tuple(dataclasses.replace(row, backend="engine") for row in report.rows))
    for rows in (times_table(mixed), costs_table(mixed)):
        assert [cells[0] for cells in rows] == [f"dense against itself, {report.control.backend}", "dense.onnx, engine"]


def test_a_row_without_a_claim_says_why(report):
    reason = "too noisy: IQR/median 30% is above 25%"
    same = dataclasses.replace(report.rows[0], claim="none", claim_reason=reason)
    shown = dataclasses.replace(report, rows=(same,))
    assert [row[3] for row in times_table(shown)] == ["", "no claim"]
    assert [row[1] for row in notes_table(shown)][-1] == reason
    assert all(row[1] == "" for row in notes_table(shown)[:-1])  # nothing is to be claimed of dense against itself


@pytest.mark.parametrize(
    ("nanoseconds", "text"), [(None, "-"), (9_234, "0.0092"), (512_345, "0.512"), (5_123_456, "5.12"), (51_234_567, "51.2")]
)
def test_milliseconds(nanoseconds, text):
    assert format_ms(nanoseconds) == text
