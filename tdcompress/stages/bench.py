"""Stage "bench": a run's ONNX files, timed against its dense file on this host."""

from pathlib import Path

import numpy as np

from tdcompress.bench.benchmark import benchmark
from tdcompress.bench.report import BenchReport
from tdcompress.codec import encode
from tdcompress.files import write_text
from tdcompress.pipeline import Workspace
from tdcompress.records import BenchRecord, RowLatency
from tdcompress.stages.experiment import BenchSettings
from tdcompress.stages.export import ONNX, SAMPLES

VERSION = 2


def run(settings: BenchSettings, seed: int, work: Workspace) -> BenchRecord:
    """Time every input but "dense" against it, for each backend, thread count and batch size; keep the raw samples."""
    dense = work.inputs["dense"].file(ONNX)
    names = [name for name in work.inputs if name != "dense"]
    files = [work.inputs[name].file(ONNX) for name in names]
    cases = [(b, t, n) for b in settings.backend for t in settings.threads for n in settings.batch]
    rows: dict[str, tuple[RowLatency, ...]] = dict.fromkeys(names, ())
    hosts = {}
    for number, (backend, threads, batch) in enumerate(cases):

        def say(line: str, done: int = number) -> None:
            work.progress.update(done, len(cases), line)
            work.stop_if_asked()

        report = benchmark(
            files,
            baseline=dense,
            threads=threads,
            batch=batch,
            backend=backend,
            provider=settings.provider,
            budget=settings.budget,
            seed=seed,
            inputs={"input": real_inputs(work.inputs["dense"].file(SAMPLES), batch)},
            progress=say,
        )
        write_text(work.folder / f"bench-{backend}-{threads}-{batch}.json", report.to_json())
        hosts[report.host.id] = encode(report.host)
        for name, latency in zip(names, row_latencies(report), strict=True):
            rows[name] += (latency,)
    return BenchRecord(rows=rows, hosts=hosts)


def row_latencies(report: BenchReport) -> list[RowLatency]:
    """What a report's rows say of each file."""
    return [
        RowLatency(
            host=row.host,
            backend=row.backend,
            provider=row.provider,
            threads=row.threads,
            batch=row.batch,
            p50_ns=row.p50_ns,
            ratio_to_dense=row.ratio_to_dense,
            ratio_low=row.ratio_low,
            ratio_high=row.ratio_high,
            claim=row.claim,
            reason=row.claim_reason,
        )
        for row in report.rows
    ]


def real_inputs(samples: Path, batch: int) -> np.ndarray:
    """Test samples as a batch, repeated where there are too few."""
    with np.load(samples, allow_pickle=False) as archive:
        inputs = archive["input"]
    return np.ascontiguousarray(inputs[np.arange(batch) % len(inputs)])
