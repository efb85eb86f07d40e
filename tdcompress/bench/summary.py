"""From the raw times of one file to its row: percentiles, ratio, claim, flags."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tdcompress.bench.host import Host
from tdcompress.bench.job import PairTimes, ProbeResult, Target
from tdcompress.bench.modelfile import ModelFile
from tdcompress.bench.report import Latency
from tdcompress.bench.statistics import (
    P90_RUNS,
    P99_RUNS,
    SPREAD_FLAG,
    Ratio,
    decide_claim,
    measure_ratio,
    percentile,
    spread,
)
from tdcompress.onnxfile.saturation import saturation_note
from tdcompress.processor import Processor

TIMER_FLAG = 0.01


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A file with what runs it."""

    file: ModelFile
    backend: str
    provider: str

    @property
    def key(self) -> tuple[str, str]:
        """Equal for subjects whose times would be of the same thing."""
        return self.file.sha256, self.backend

    @property
    def target(self) -> Target:
        """As a fresh process is told."""
        path = str(self.file.path.resolve())
        return Target(path=path, backend=self.backend, provider=self.provider, task=self.file.task)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is the same for all files of a benchmark.

    Attributes:
        threads: of a session.
        batch: examples of a call.
        tokens: that a call says; None where it says none.
        cores: that this process may run on and its container pays for.
        processor: of this machine.
    """

    threads: int
    batch: int
    tokens: int | None = None
    cores: int
    processor: Processor


def compare(processes: Sequence[PairTimes], generator: np.random.Generator) -> Ratio:
    """Ratio of a file to the baseline it was paired with, with its interval."""
    ratios = [
        (np.asarray(process.candidate_ns) / process.candidate_calls) / (np.asarray(process.baseline_ns) / process.baseline_calls)
        for process in processes
    ]
    return measure_ratio(ratios, generator=generator)


def within_process_spread(processes: Sequence[PairTimes]) -> float:
    """IQR/median of a file's times, in the middle process.

    Within a process, because that noise is what disturbs pairs. A clock that runs at another speed in another process
    moves both halves of its pairs and cancels in the ratio; it is flagged as a shift instead.
    """
    return float(np.median([spread(process.candidate_ns) for process in processes]))


def summarise(
    subject: Subject,
    setting: Setting,
    host: Host,
    probe: ProbeResult,
    processes: Sequence[PairTimes],
    *,
    ratio: Ratio,
    control: Ratio,
    timer_overhead_ns: float,
) -> Latency:
    """The row of one file.

    Args:
        subject: the file and what ran it.
        setting: threads and batch.
        host: where.
        probe: what its own process said.
        processes: its times in every fresh process.
        ratio: `compare` of these, `widened_by_control`.
        control: `compare` of the baseline with itself.
        timer_overhead_ns: one reading of the clock.
    """
    single_ns = np.concatenate([np.asarray(process.single_ns) for process in processes])
    noise = within_process_spread(processes)
    claim, reason = decide_claim(ratio, control=control)
    p50_ns = percentile(single_ns, 0.50, minimum_runs=1)
    assert p50_ns is not None
    return Latency(
        file=subject.file.path.name,
        sha256=subject.file.sha256,
        bytes=subject.file.bytes,
        gzip_bytes=subject.file.gzip_bytes,
        denormals=subject.file.denormals,
        host=host.id,
        backend=subject.backend,
        provider=probe.provider,
        options=probe.options,
        threads=setting.threads,
        batch=setting.batch,
        tokens=setting.tokens,
        parts=subject.file.parts or None,
        p50_ns=p50_ns,
        p90_ns=percentile(single_ns, 0.90, minimum_runs=P90_RUNS),
        p99_ns=percentile(single_ns, 0.99, minimum_runs=P99_RUNS),
        ratio_to_dense=ratio.value,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        claim=claim,
        claim_reason=reason,
        spread=noise,
        flags=(
            *_noise_flags(noise, processes),
            *_file_flags(subject.file, setting.processor),
            *_setting_flags(setting, p50_ns, timer_overhead_ns),
            *probe.notes,
        ),
        load_ns=int(np.median([process.load_ns for process in processes])),
        first_run_ns=int(np.median([process.first_run_ns for process in processes])),
        peak_rss_bytes=probe.peak_rss_bytes,
    )


def _noise_flags(noise: float, processes: Sequence[PairTimes]) -> list[str]:
    flags = []
    if noise > SPREAD_FLAG:
        flags.append(f"noisy: IQR/median {noise:.0%}")
    medians = [float(np.median(process.candidate_ns)) / process.candidate_calls for process in processes]
    shift = max(medians) / min(medians) - 1
    if shift > SPREAD_FLAG:
        flags.append(f"medians of processes differ by {shift:.0%}")
    unsteady = sum(not process.steady for process in processes)
    if unsteady:
        flags.append(f"no steady state in {unsteady} of {len(processes)} processes")
    return flags


def _file_flags(file: ModelFile, processor: Processor) -> list[str]:
    flags = []
    if file.denormals:
        flags.append(f"{file.denormals} denormal weights, slow to compute with; flush them to zero at export")
    if note := saturation_note(file.full_range, processor):
        flags.append(note)
    return flags


def _setting_flags(setting: Setting, p50_ns: int, timer_overhead_ns: float) -> list[str]:
    flags = []
    if setting.threads > setting.cores:
        flags.append(f"{setting.threads} threads on {setting.cores} core{'s' * (setting.cores != 1)}")
    if timer_overhead_ns > TIMER_FLAG * p50_ns:
        flags.append(f"percentiles contain {timer_overhead_ns:.0f} ns of the clock itself")
    return flags
