import dataclasses

import pytest

from tdcompress.bench.host import read_host
from tdcompress.bench.report import BenchReport, Latency, Protocol
from tdcompress.errors import UserError
from tdcompress.report.join import join_bench, keep_joined


def latency(file, bytes_, ratio=1.0, **changes) -> Latency:
    fields = {
        "file": file,
        "sha256": f"digest of {file}",
        "bytes": bytes_,
        "gzip_bytes": bytes_,
        "denormals": 0,
        "host": read_host().id,
        "backend": "onnxruntime",
        "provider": "CPUExecutionProvider",
        "options": {},
        "threads": 1,
        "batch": 1,
        "p50_ns": 1000,
        "p90_ns": None,
        "p99_ns": None,
        "ratio_to_dense": ratio,
        "ratio_low": ratio - 0.01,
        "ratio_high": ratio + 0.01,
        "claim": "faster" if ratio < 0.9 else "none",
        "claim_reason": "" if ratio < 0.9 else "the interval contains 1",
        "spread": 0.01,
        "flags": (),
        "load_ns": 1,
        "first_run_ns": 1,
        "peak_rss_bytes": 1,
    }
    return Latency(**(fields | changes))


@pytest.fixture
def make_bench(small_report):
    """What the benchmark writes, by its own code: so that a change of its format is seen here."""

    def make(*rows, control=None):
        return BenchReport(
            host=read_host(),
            protocol=Protocol(
                budget="quick",
                processes=1,
                seed=0,
                baseline_backend="onnxruntime",
                input_shapes=(),
                inputs_sha256="",
                random_inputs=True,
                timer_overhead_ns=40.0,
                denormals="kept",
                seconds=1.0,
            ),
            control=control or latency("dense.onnx", small_report.rows[0].dense_onnx_bytes),
            rows=rows,
            samples=(),
        )

    return make


@pytest.fixture
def targeted(small_report):
    return small_report.rows[2]


def test_rows_are_found_by_file_and_the_host_is_added(small_report, targeted, make_bench):
    joined = join_bench(small_report, make_bench(latency(targeted.onnx_file, targeted.onnx_bytes, 0.5)))

    assert joined.rows[:2] == small_report.rows[:2]
    old, new = joined.rows[2].latency
    assert old == targeted.latency[0]
    assert (new.host, new.ratio_to_dense, new.p50_ns, new.claim, new.reason) == (read_host().id, 0.5, 1000.0, "faster", "")
    assert set(joined.hosts) == {*small_report.hosts, read_host().id}
    assert joined.hosts[read_host().id]["cores"] == read_host().cores
    assert dataclasses.replace(joined, rows=small_report.rows, hosts=small_report.hosts) == small_report


def test_times_beside_the_dense_file_in_another_backend_are_refused(small_report, targeted, make_bench):
    """A report's ratios are to the dense file under onnxruntime, and nothing in a row would say otherwise."""
    control = latency("dense.onnx", small_report.rows[0].dense_onnx_bytes, backend="engine")
    measured = latency(targeted.onnx_file, targeted.onnx_bytes, 0.5, backend="engine")
    with pytest.raises(
        UserError, match=r"its baseline ran in the backend engine, .* measure with baseline_backend='onnxruntime'"
    ):
        join_bench(small_report, make_bench(measured, control=control))


def test_the_selected_file_is_its_row(small_report, targeted, make_bench):
    joined = join_bench(small_report, make_bench(latency("model.onnx", targeted.onnx_bytes, 0.5)))
    assert len(joined.rows[2].latency) == 2


def test_measuring_again_replaces_and_another_setting_adds(small_report, targeted, make_bench):
    name, size = targeted.onnx_file, targeted.onnx_bytes
    once = join_bench(small_report, make_bench(latency(name, size, 0.5)))
    again = join_bench(once, make_bench(latency(name, size, 0.6)))
    more = join_bench(again, make_bench(latency(name, size, 0.7, threads=4)))
    assert [item.ratio_to_dense for item in again.rows[2].latency] == [0.53, 0.6]
    assert [(item.ratio_to_dense, item.threads) for item in more.rows[2].latency] == [(0.53, 1), (0.6, 1), (0.7, 4)]


def test_a_report_made_again_keeps_what_other_machines_measured_of_the_same_files(small_report, targeted, make_bench):
    name = targeted.onnx_file
    joined = join_bench(small_report, make_bench(latency(name, targeted.onnx_bytes, 0.5)))
    files = {"dense.onnx", *(row.onnx_file for row in small_report.rows)}
    assert keep_joined(small_report, joined, files) == joined
    measured_anew = dataclasses.replace(joined.rows[2].latency[0], ratio_to_dense=0.4)
    rows = (*small_report.rows[:2], dataclasses.replace(targeted, latency=(measured_anew,)), *small_report.rows[3:])
    new = dataclasses.replace(small_report, rows=rows)
    assert [item.ratio_to_dense for item in keep_joined(new, joined, files).rows[2].latency] == [0.4, 0.5]
    assert keep_joined(small_report, joined, files - {name}) == small_report
    assert keep_joined(small_report, joined, files - {"dense.onnx"}) == small_report


def versioned(report, versions):
    """The report with other versions of what ran the files on this host."""
    host = read_host().id
    return dataclasses.replace(report, hosts={**report.hosts, host: {**report.hosts[host], "versions": versions}})


def test_a_host_names_all_versions_that_its_latencies_were_measured_with(small_report, targeted, make_bench):
    name, size, host = targeted.onnx_file, targeted.onnx_bytes, read_host()
    old = versioned(join_bench(small_report, make_bench(latency(name, size, 0.5))), ["onnxruntime 1.0", host.versions[0]])
    beside = join_bench(old, make_bench(latency(name, size, 0.7, threads=4)))
    assert beside.hosts[host.id]["versions"] == ["onnxruntime 1.0", *host.versions]
    instead = join_bench(old, make_bench(latency(name, size, 0.7)))
    assert instead.hosts[host.id]["versions"] == list(host.versions)

    files = {"dense.onnx", *(row.onnx_file for row in small_report.rows)}
    anew = join_bench(small_report, make_bench(latency(name, size, 0.7, threads=4)))
    assert keep_joined(anew, old, files).hosts[host.id]["versions"] == ["onnxruntime 1.0", *host.versions]
    assert keep_joined(instead, old, files) == instead


def test_the_dense_file_beside_itself_is_no_row(small_report, targeted, make_bench):
    dense = latency("dense.onnx", targeted.dense_onnx_bytes)
    joined = join_bench(small_report, make_bench(dense, latency(targeted.onnx_file, targeted.onnx_bytes)))
    assert [len(row.latency) for row in joined.rows] == [1, 1, 2]


def test_digests_decide_where_they_are_known(small_report, targeted, make_bench):
    name = targeted.onnx_file
    bench = make_bench(latency(name, targeted.onnx_bytes))
    join_bench(small_report, bench, sha256={name: f"digest of {name}", "dense.onnx": "digest of dense.onnx"})
    with pytest.raises(UserError, match=r"targeted-0\.9\.onnx' as timed is not the run's \(sha256 differ\); copy"):
        join_bench(small_report, bench, sha256={name: "another"})
    with pytest.raises(UserError, match=r"dense\.onnx, the baseline \(sha256 differ\)"):
        join_bench(small_report, bench, sha256={"dense.onnx": "another"})


def test_each_file_of_a_translator_is_checked(small_report, targeted, make_bench):
    name = targeted.onnx_file
    parts = {name: "a", "targeted-0.9.decoder_step.onnx": "b", "vocabulary.model": "c"}
    bench = make_bench(latency(name, targeted.onnx_bytes, parts=parts, tokens=13))
    joined = join_bench(small_report, bench, sha256={**parts, "dense.onnx": "digest of dense.onnx"})
    assert joined.rows[2].latency[-1].tokens == 13
    for part in parts:
        for digests in ({**parts, part: "another"}, {other: digest for other, digest in parts.items() if other != part}):
            with pytest.raises(UserError, match=r"targeted-0\.9\.onnx' as timed is not the run's \(sha256 differ\)"):
                join_bench(small_report, bench, sha256=digests)


def test_calls_of_other_lengths_stand_beside_each_other(small_report, targeted, make_bench):
    name, size = targeted.onnx_file, targeted.onnx_bytes
    short = join_bench(small_report, make_bench(latency(name, size, 0.5, tokens=13)))
    both = join_bench(short, make_bench(latency(name, size, 0.6, tokens=40)))
    assert [item.tokens for item in both.rows[2].latency] == [None, 13, 40]


def test_other_files_are_refused(small_report, targeted, make_bench):
    with pytest.raises(UserError, match=r"rows\[1\]: 'mine\.onnx' is not a file of the run 'digits', which has none-0\.onnx"):
        join_bench(small_report, make_bench(latency(targeted.onnx_file, targeted.onnx_bytes), latency("mine.onnx", 1)))
    with pytest.raises(UserError, match=r"targeted-0\.9\.onnx' as timed is not the run's \(bytes differ\)"):
        join_bench(small_report, make_bench(latency(targeted.onnx_file, targeted.onnx_bytes + 1)))
    wrong = make_bench(latency(targeted.onnx_file, targeted.onnx_bytes), control=latency("other.onnx", 7))
    with pytest.raises(UserError, match=r"'other\.onnx' as timed is not the run's dense\.onnx, the baseline \(bytes differ\)"):
        join_bench(small_report, wrong)


def test_the_null_backend_is_refused(small_report, targeted, make_bench):
    with pytest.raises(UserError, match="null backend times the harness"):
        join_bench(small_report, make_bench(latency(targeted.onnx_file, targeted.onnx_bytes, backend="null")))


def test_a_benchmark_of_nothing_is_refused(small_report, make_bench):
    with pytest.raises(UserError, match="no measurements"):
        join_bench(small_report, make_bench())
