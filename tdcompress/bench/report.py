"""What a benchmark found: host, protocol, one latency for each file, raw samples; JSON there and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tdcompress.bench.host import Host
from tdcompress.bench.job import PairTimes
from tdcompress.codec import LEFT_OUT, VERSION, decode_json, encode
from tdcompress.errors import UserError, one_line
from tdcompress.records.latency import LatencyClaim, RowLatency

BASELINE_BACKEND = "onnxruntime"
"""What runs the baseline unless another is asked for, and always where a latency goes into a run's report."""
SCHEMA = 1
_HOW = "write it with `tdcompress bench ... --baseline dense.onnx --json FILE`"


@dataclass(frozen=True, kw_only=True)
class Latency:
    """One file's latency on one host.

    Attributes:
        file: name of the file.
        sha256, bytes, gzip_bytes: of the file timed.
        denormals: weights so small that arithmetic with them is an order of magnitude slower.
        host: `Host.id`.
        backend, provider: what really ran it.
        options: the backend's settings and what it says about itself.
        threads, batch: as run; threads are counted, never "all".
        tokens: that a call says; None where it says none.
        parts: where several files were timed together, the sha256 of each by name; ``file`` names the first one, ``sha256`` and
            bytes are of all.
        p50_ns, p90_ns, p99_ns: percentiles of single calls, all processes together; p90 needs 64 calls, p99 662.
        ratio_to_dense: time / the baseline's time, below 1 = faster.
        ratio_low, ratio_high: its 95 % interval, wider by how far the control is from 1.
        claim: what may be said; `claim_reason` says why.
        spread: IQR/median of the file's times.
        flags: what a reader has to know before believing the row.
        load_ns, first_run_ns: median over the fresh processes.
        peak_rss_bytes: of a process that does nothing but run this file, Python and the runtime included; None where the
            system does not tell.
    """

    file: str
    sha256: str
    bytes: int
    gzip_bytes: int
    denormals: int
    host: str
    backend: str
    provider: str
    options: Mapping[str, str]
    threads: int
    batch: int
    p50_ns: int
    p90_ns: int | None
    p99_ns: int | None
    ratio_to_dense: float
    ratio_low: float
    ratio_high: float
    claim: LatencyClaim
    claim_reason: str
    spread: float
    flags: tuple[str, ...]
    load_ns: int
    first_run_ns: int
    peak_rss_bytes: int | None
    tokens: int | None = field(default=None, metadata=LEFT_OUT)
    parts: Mapping[str, str] | None = field(default=None, metadata=LEFT_OUT)

    @property
    def tokens_per_second(self) -> float | None:
        """Of the median call; None where a call says no tokens."""
        return self.of_row().tokens_per_second

    def of_row(self) -> RowLatency:
        """What a run's report keeps of it."""
        return RowLatency(
            host=self.host,
            backend=self.backend,
            provider=self.provider,
            threads=self.threads,
            batch=self.batch,
            tokens=self.tokens,
            p50_ns=self.p50_ns,
            ratio_to_dense=self.ratio_to_dense,
            ratio_low=self.ratio_low,
            ratio_high=self.ratio_high,
            claim=self.claim,
            reason=self.claim_reason,
        )


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How it was measured.

    Attributes:
        budget: its name.
        processes: fresh processes.
        seed: of inputs, orders and resamples.
        baseline_backend: what ran the baseline.
        input_shapes: "name: type shape" of what every file was run on.
        inputs_sha256: of the bytes of all inputs.
        random_inputs: whether they were made up here.
        timer_overhead_ns: one reading of the clock; single calls contain it.
        denormals: how denormal numbers are treated, the same for all files.
        seconds: that the whole benchmark took.
        call: what one call does, where it is more than one run of one file.
    """

    budget: str
    processes: int
    seed: int
    baseline_backend: str
    input_shapes: tuple[str, ...]
    inputs_sha256: str
    random_inputs: bool
    timer_overhead_ns: float
    denormals: str
    seconds: float
    call: str = field(default="", metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Everything that was timed for one content, process by process, nothing left out.

    Attributes:
        sha256: the file's; the baseline's own are those of the control.
        backend: what ran it.
        processes: one entry for each fresh process.
    """

    sha256: str
    backend: str
    processes: tuple[PairTimes, ...]


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """The result of one `benchmark` call.

    Attributes:
        host: where.
        protocol: how.
        control: the baseline against a copy of itself (A/A). The intervals of the rows are wider by how far it is from 1.
        rows: one for each file asked for, in that order; equal files were measured once.
        samples: raw times.
    """

    host: Host
    protocol: Protocol
    control: Latency
    rows: tuple[Latency, ...]
    samples: tuple[Samples, ...]

    def to_json(self) -> str:
        """JSON text with a schema version."""
        return json.dumps(encode(_File(benchmark=self))) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "benchmark JSON") -> "BenchReport":
        """Read what `to_json` wrote.

        Args:
            text: the JSON.
            where: file name for messages.

        Raises:
            UserError: not JSON, another schema, or a field that is missing, unknown or of another type.
        """
        try:
            return decode_json(_File, text).benchmark
        except ValueError as error:
            raise UserError(f"{where}: not a benchmark that this version reads ({one_line(error)}); {_HOW}") from None


@dataclass(frozen=True, kw_only=True)
class _File:
    """What `BenchReport.to_json` writes."""

    schema: int = field(default=SCHEMA, metadata=VERSION)
    benchmark: BenchReport
