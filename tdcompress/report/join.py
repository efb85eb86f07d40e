"""Latencies measured on another machine join a run's report."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from tdcompress.codec import decode
from tdcompress.errors import UserError
from tdcompress.records import Report, Row, RowLatency
from tdcompress.report import text
from tdcompress.report.tables import latency_under, setting_of

BENCH_SCHEMA = 1
DENSE_FILE = "dense.onnx"
SELECTED_FILE = "model.onnx"
_HOW = "write it with `tdcompress bench ... --baseline dense.onnx --json FILE`"


def join_bench(report: Report, bench_json: Mapping[str, Any], sha256: Mapping[str, str] | None = None) -> Report:
    """Add a benchmark's latencies to the rows whose files it timed, and its host to the hosts.

    A latency measured before under the same host, backend, provider, threads and batch is replaced.

    Args:
        report: the run's.
        bench_json: what `tdcompress bench --json` wrote.
        sha256: known digests by file name; a file that has none is told by name and bytes.

    Raises:
        UserError: not a benchmark's JSON, a file that is not this run's, or another baseline than this run's dense file.
    """
    bench = _part(bench_json, "benchmark", "the file")
    if bench_json.get("schema") != BENCH_SCHEMA:
        raise UserError(f"benchmark schema {bench_json.get('schema')!r} is not the {BENCH_SCHEMA} of this version; run it again")
    host = dict(_part(bench, "host", "benchmark"))
    found = bench.get("rows")
    if not isinstance(found, list) or not found:
        raise UserError(f"benchmark.rows: no measurements; {_HOW}")

    digests = sha256 or {}
    control = _part(bench, "control", "benchmark")
    rows = {row.id: row for row in report.rows}
    for index, measured in enumerate(found):
        where = f"benchmark.rows[{index}]"
        latency = _latency(measured, where)
        row = _row_of(report, measured, where)
        if row is None:
            continue  # the dense file beside itself: no row of the report
        _check_file(measured, row.onnx_file, row.onnx_bytes, digests, "is not the run's")
        _check_file(control, DENSE_FILE, row.dense_onnx_bytes, digests, f"is not the run's {DENSE_FILE}, the baseline")
        rows[row.id] = _with_latency(rows[row.id], latency)
    name = str(host.get("id"))
    return dataclasses.replace(report, rows=tuple(rows.values()), hosts={**report.hosts, name: host})


def joined_line(report: Report, bench_json: Mapping[str, Any]) -> str:
    """What a benchmark adds to a report, in one line: rows, and where and how they were measured.

    Args:
        report: before it joined.
        bench_json: as for `join_bench`, which has accepted it.
    """
    added: dict[str, list[str]] = {}
    for index, measured in enumerate(bench_json["benchmark"]["rows"]):
        row = _row_of(report, measured, f"benchmark.rows[{index}]")
        if row is None:
            continue
        latency = _latency(measured, "")
        again = " (in place of an earlier one)" if latency_under(row, setting_of(latency)) else ""
        added.setdefault(f"{text.setting(latency)}, on {latency.host}", []).append(f"{row.id}{again}")
    if not added:
        return f"joined nothing: only {DENSE_FILE} was timed"
    return "joined " + "; ".join(f"{', '.join(dict.fromkeys(rows))}: {how}" for how, rows in added.items())


def keep_joined(report: Report, earlier: Report, unchanged: Collection[str]) -> Report:
    """Take over what an earlier report of the same run knew and this one does not: latencies of other machines and settings.

    Args:
        report: the new one.
        earlier: the old one.
        unchanged: names of the files that are the same, byte for byte; a latency belongs to a file and to the dense one.
    """
    if DENSE_FILE not in unchanged:
        return report
    before = {row.onnx_file: row for row in earlier.rows if row.onnx_file in unchanged}
    rows = []
    for row in report.rows:
        known = {setting_of(latency) for latency in row.latency}
        old = before[row.onnx_file].latency if row.onnx_file in before else ()
        kept = tuple(latency for latency in old if setting_of(latency) not in known)
        rows.append(dataclasses.replace(row, latency=(*row.latency, *kept)))
    named = {latency.host for row in rows for latency in row.latency}
    hosts = {name: facts for name, facts in earlier.hosts.items() if name in named}
    return dataclasses.replace(report, rows=tuple(rows), hosts={**hosts, **report.hosts})


def _part(value: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    part = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(part, Mapping):
        raise UserError(f"{where}: {key!r} is missing, so this is not a benchmark's JSON; {_HOW}")
    return part


def _latency(measured: Any, where: str) -> RowLatency:
    if not isinstance(measured, Mapping):
        raise UserError(f"{where}: a measurement is needed, not {measured!r}; {_HOW}")
    names = [field.name for field in dataclasses.fields(RowLatency) if field.name != "reason"]
    given = {name: measured[name] for name in names if name in measured}
    try:
        latency = decode(RowLatency, {**given, "reason": measured.get("claim_reason", "")}, where)
    except ValueError as error:
        raise UserError(f"{error}; {_HOW}") from None
    if latency.backend == "null":
        raise UserError(f"{where}: the null backend times the harness, not a network; name another backend")
    return latency


def _row_of(report: Report, measured: Mapping[str, Any], where: str) -> Row | None:
    """The row that a file was measured for, or None for the dense file where that is no row."""
    file = measured.get("file")
    for row in report.rows:
        if row.onnx_file == file or (file == SELECTED_FILE and row.id == report.selected):
            return row
    if file == DENSE_FILE:
        return None
    files = ", ".join(row.onnx_file for row in report.rows)
    raise UserError(
        f"{where}: {file!r} is not a file of the run {report.run!r}, which has {files}; leave it out of the benchmark"
    )


def _check_file(measured: Mapping[str, Any], name: str, size_bytes: int, digests: Mapping[str, str], complaint: str) -> None:
    """The file timed is the one of this run: same digest if that is known, else same length."""
    known = digests.get(name)
    same = measured.get("sha256") == known if known is not None else measured.get("bytes") == size_bytes
    if not same:
        by = "sha256" if known is not None else "bytes"
        raise UserError(
            f"{measured.get('file')!r} as timed {complaint} ({by} differ); copy the run's files again and measure those"
        )


def _with_latency(row: Row, latency: RowLatency) -> Row:
    kept = tuple(other for other in row.latency if setting_of(other) != setting_of(latency))
    return dataclasses.replace(row, latency=(*kept, latency))
