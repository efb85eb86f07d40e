"""Stage "bench": a run's deployed networks, timed against its dense one on this host."""

from dataclasses import dataclass
from typing import Literal

from tdcompress.bench.benchmark import benchmark
from tdcompress.bench.deployed import read_deployed, sampled_inputs
from tdcompress.codec import encode
from tdcompress.files import write_text
from tdcompress.lineage.versions import RECORDS, VERSIONS
from tdcompress.onnxfile.names import SAMPLES
from tdcompress.pipeline import Stage, Workspace
from tdcompress.records.latency import RowLatency
from tdcompress.records.stages import BenchRecord
from tdcompress.stages.export import ONNX


@dataclass(frozen=True, kw_only=True)
class BenchTable:
    """The [bench] table.

    Attributes:
        budget: "quick" or "full"; "none" measures nothing. Each file takes 300 pairs of calls or more, with "full"
            1,040; so slow calls make a long benchmark.
        threads: of a session; 0 = all cores. Each is measured.
        batch: examples of a call, of a translator sentences. Each is measured.
        backend: what runs the files; translators: onnxruntime, engine. Each is measured against dense.onnx under onnxruntime.
        provider: onnxruntime's execution provider.
    """

    budget: Literal["none", "quick", "full"] = "quick"
    threads: tuple[int, ...] = (1,)
    batch: tuple[int, ...] = (1,)
    backend: tuple[str, ...] = ("onnxruntime",)
    provider: str = "CPUExecutionProvider"

    def __post_init__(self) -> None:
        for key, least in (("threads", 0), ("batch", 1)):
            values = getattr(self, key)
            if not values or min(values) < least or len(set(values)) < len(values):
                raise ValueError(f"{key}: {list(values)}: at least one number of {least} or above, none twice")
        if not self.backend or len(set(self.backend)) < len(self.backend):
            raise ValueError(f"backend: {list(self.backend)}: at least one, none twice")


@dataclass(frozen=True, kw_only=True)
class Settings(BenchTable):
    """What is measured, and where: latencies of another host, or of other versions, are of no use here.

    Attributes:
        host: the machine's id.
        versions: of what runs the files, and what steers it from outside; see `Host`.
        seed: of the order in which they run.
    """

    host: str
    versions: tuple[str, ...]
    seed: int


def run(settings: Settings, work: Workspace) -> BenchRecord:
    """Time every input but "dense" against it, for each backend, thread count and batch size; keep the raw samples."""
    dense = work.inputs["dense"].file(ONNX)
    network = read_deployed(dense)
    names = [name for name in work.inputs if name != "dense"]
    files = [work.inputs[name].file(ONNX) for name in names]
    cases = [(b, t, n) for b in settings.backend for t in settings.threads for n in settings.batch]
    rows: dict[str, tuple[RowLatency, ...]] = dict.fromkeys(names, ())
    hosts = {}
    for number, (backend, threads, batch) in enumerate(cases):

        def say(line: str, done: float, before: int = number) -> None:
            work.progress.update(before + done, len(cases), line)
            work.stop_if_asked()

        report = benchmark(
            files,
            baseline=dense,
            threads=threads,
            batch=batch,
            backend=backend,
            provider=settings.provider,
            budget=settings.budget,
            seed=settings.seed,
            inputs=sampled_inputs(network, work.inputs["dense"].file(SAMPLES), batch),
            progress=say,
        )
        write_text(work.folder / f"bench-{backend}-{threads}-{batch}.json", report.to_json())
        hosts[report.host.id] = encode(report.host)
        for name, latency in zip(names, report.rows, strict=True):
            rows[name] += (latency.of_row(),)
    return BenchRecord(rows=rows, hosts=hosts)


STAGE = Stage(name="bench", version=VERSIONS["bench"], settings=Settings, run=run, record=RECORDS["bench"])
