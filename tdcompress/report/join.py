"""Latencies measured on another machine join a run's report."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from tdcompress.bench.report import BASELINE_BACKEND, BenchReport, Latency
from tdcompress.codec import encode
from tdcompress.errors import UserError
from tdcompress.records.latency import RowLatency
from tdcompress.records.report import Report, Row
from tdcompress.report import text
from tdcompress.report.files import DENSE_FILE, SELECTED_FILE
from tdcompress.report.tables import latency_under, setting_of

Hosts = Mapping[str, Mapping[str, Any]]
"""Facts by the host's id."""


def join_bench(report: Report, bench: BenchReport, sha256: Mapping[str, str] | None = None) -> Report:
    """Add a benchmark's latencies to the rows whose files it timed, and its host to the hosts.

    A latency measured before under the same host, backend, provider, threads and batch is replaced.

    Args:
        report: the run's.
        bench: what `tdcompress bench --json` wrote.
        sha256: known digests by file name; a file that has none is told by name and bytes.

    Raises:
        UserError: no measurements, a file that is not this run's, another baseline than this run's dense file, or one that ran in
            another backend than onnxruntime, which a report's ratios are to.
    """
    if not bench.rows:
        raise UserError("the benchmark holds no measurements; name the run's files when you write it")
    if bench.control.backend != BASELINE_BACKEND:
        raise UserError(
            f"its baseline ran in the backend {bench.control.backend}, and the times of a report are beside {DENSE_FILE} under "
            f"{BASELINE_BACKEND}; measure with baseline_backend={BASELINE_BACKEND!r}, as `tdcompress bench` does"
        )
    digests = sha256 or {}
    rows = {row.id: row for row in report.rows}
    added = []
    for index, measured in enumerate(bench.rows):
        where = f"benchmark.rows[{index}]"
        if measured.backend == "null":
            raise UserError(f"{where}: the null backend times the harness, not a network; name another backend")
        row = _row_of(report, measured, where)
        if row is None:
            continue  # the dense file beside itself: no row of the report
        _check_file(measured, row.onnx_file, row.onnx_bytes, digests, "is not the run's")
        _check_file(bench.control, DENSE_FILE, row.dense_onnx_bytes, digests, f"is not the run's {DENSE_FILE}, the baseline")
        added.append(measured.of_row())
        rows[row.id] = _with_latency(rows[row.id], added[-1])
    stays = [latency for row in rows.values() for latency in row.latency if latency not in added]
    hosts = _hosts(report.hosts, {**report.hosts, bench.host.id: encode(bench.host)}, stays)
    return dataclasses.replace(report, rows=tuple(rows.values()), hosts=hosts)


def joined_line(report: Report, bench: BenchReport) -> str:
    """What a benchmark adds to a report, in one line: rows, and where and how they were measured.

    Args:
        report: before it joined.
        bench: as for `join_bench`, which has accepted it.
    """
    added: dict[str, dict[str, bool]] = {}
    for index, measured in enumerate(bench.rows):
        row = _row_of(report, measured, f"benchmark.rows[{index}]")
        if row is None:
            continue
        latency = measured.of_row()
        where = f"{text.setting(latency)}, on {latency.host}"
        added.setdefault(where, {})[row.id] = bool(latency_under(row, setting_of(latency)))
    if not added:
        return f"joined nothing: only {DENSE_FILE} was timed"
    return "joined " + "; ".join(f"{', '.join(rows)}: {how}{_replaced(rows)}" for how, rows in added.items())


def _replaced(rows: Mapping[str, bool]) -> str:
    """Which rows, by id and whether they had a latency of this setting, were measured again; said once of all."""
    again = [row for row, measured in rows.items() if measured]
    named = "" if len(again) == len(rows) else f" of {', '.join(again)}"
    return f" (in place of what was measured before{named})" if again else ""


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
    rows, stays = [], list[RowLatency]()
    for row in report.rows:
        known = {setting_of(latency) for latency in row.latency}
        old = before[row.onnx_file].latency if row.onnx_file in before else ()
        kept = tuple(latency for latency in old if setting_of(latency) not in known)
        rows.append(dataclasses.replace(row, latency=(*row.latency, *kept)))
        stays += kept
    return dataclasses.replace(report, rows=tuple(rows), hosts=_hosts(earlier.hosts, report.hosts, stays))


def _hosts(older: Hosts, newer: Hosts, stays: Collection[RowLatency]) -> dict[str, dict[str, Any]]:
    """The facts of all hosts, the newer ones where there are two; but all versions that a latency was measured with.

    Args:
        older: facts by the host's id.
        newer: likewise.
        stays: latencies that the older facts are of.
    """
    hosts = {name: dict(facts) for name, facts in newer.items()}
    for name in sorted({latency.host for latency in stays} & older.keys()):
        facts, before = hosts.setdefault(name, dict(older[name])), older[name].get("versions", [])
        if not set(before) <= set(facts.get("versions", [])):
            facts["versions"] = list(dict.fromkeys([*before, *facts.get("versions", [])]))
    return hosts


def _row_of(report: Report, measured: Latency, where: str) -> Row | None:
    """The row that a file was measured for, or None for the dense file where that is no row."""
    for row in report.rows:
        if row.onnx_file == measured.file or (measured.file == SELECTED_FILE and row.id == report.selected):
            return row
    if measured.file == DENSE_FILE:
        return None
    files = ", ".join(row.onnx_file for row in report.rows)
    raise UserError(
        f"{where}: {measured.file!r} is not a file of the run {report.run!r}, which has {files}; leave it out of the benchmark"
    )


def _check_file(measured: Latency, name: str, size_bytes: int, digests: Mapping[str, str], complaint: str) -> None:
    """What was timed is of this run: the digest of each file is the same if it is known, else the length of all."""
    parts = measured.parts or {name: measured.sha256}
    known = {part: digests[part] for part in parts if part in digests}
    same = known == parts if known else measured.bytes == size_bytes
    if not same:
        by = "sha256" if known else "bytes"
        raise UserError(f"{measured.file!r} as timed {complaint} ({by} differ); copy the run's files again and measure those")


def _with_latency(row: Row, latency: RowLatency) -> Row:
    kept = tuple(other for other in row.latency if setting_of(other) != setting_of(latency))
    return dataclasses.replace(row, latency=(*kept, latency))
