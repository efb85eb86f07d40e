"""Time ONNX files against a baseline: paired, in random order, in fresh processes, with an A/A control."""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tdcompress.arguments import checked
from tdcompress.bench.backends.base import CPU_PROVIDER
from tdcompress.bench.budget import Budget
from tdcompress.bench.host import read_host
from tdcompress.bench.job import PairsJob, PairsResult, PairTimes, ProbeJob, ProbeResult
from tdcompress.bench.launch import run_job
from tdcompress.bench.ready import Arrays, get_ready
from tdcompress.bench.report import BASELINE_BACKEND, BenchReport, Latency, Protocol, Samples
from tdcompress.bench.statistics import widened_by_control
from tdcompress.bench.summary import Setting, Subject, compare, summarise
from tdcompress.files import StrPath
from tdcompress.limits import available_cores
from tdcompress.npz import write_npz
from tdcompress.processor import read_processor

Say = Callable[[str, float], None]
"""Told what begins, and the share (0..1) of the processes' work that is done."""

DENORMALS = "kept, as is the runtime's default; the same for all files"


@checked
def benchmark(
    files: Sequence[StrPath],
    *,
    baseline: StrPath,
    threads: int = 1,
    batch: int = 1,
    backend: str = "onnxruntime",
    provider: str = CPU_PROVIDER,
    budget: str = "quick",
    seed: int = 0,
    inputs: Arrays | None = None,
    shapes: Sequence[Sequence[int]] = (),
    baseline_backend: str = BASELINE_BACKEND,
    external_data: bool = False,
    progress: Say | None = None,
) -> BenchReport:
    """Time files against a baseline on this machine.

    Every fresh process times every file, each paired with a new session of the baseline; files with the same bytes are
    timed once. The baseline is also timed against a copy of itself, and every interval is wider by what that is off.

    Args:
        files: ONNX files, at least one; all take the same inputs. Of a translator the encoder: what belongs to it lies beside it,
            and a call is a translation (`tdcompress.bench.workloads`).
        baseline: the dense file.
        threads: threads inside a session; 0 = as many as the cores that this process may run on and its container pays for.
        batch: examples in a call.
        backend: what runs the files: a name in `tdcompress.bench.backends.BACKENDS`.
        provider: onnxruntime's execution provider, the baseline's too.
        budget: "quick" (some seconds for a small file) or "full" (8 processes of at least 100 pairs).
        seed: draws random inputs, orders and resamples.
        inputs: what to run on; name -> array (batch, ...). None = random data, and for a translator sentences of
            the samples that lie beside the baseline.
        shapes: of random inputs in turn, where the files leave other sizes than the batch open.
        baseline_backend: what runs the baseline: onnxruntime, so that another backend is put beside it.
        external_data: accept weights in files beside the ONNX files.
        progress: gets a line when a process starts, and the share (0..1) of the work that is done then.

    Returns:
        A row for each file in the given order, the control, how and where it was measured, and the raw times.

    Raises:
        UserError: an argument is wrong.
        ModelError: a file is not a model, or does not take the baseline's inputs.
        UnsupportedError: a backend or provider is unknown or missing, or it fell back to another.
        InterruptedRun: a process was stopped; nothing is kept.
        TdcompressError: a process died.
    """
    started = time.monotonic()
    ready = get_ready(
        files,
        baseline=baseline,
        threads=threads,
        batch=batch,
        backend=backend,
        provider=provider,
        budget=budget,
        seed=seed,
        inputs=inputs,
        shapes=shapes,
        baseline_backend=baseline_backend,
        external_data=external_data,
    )
    plan, dense, asked, workload, data = ready.plan, ready.dense, ready.asked, ready.workload, ready.data
    cores = available_cores()
    setting = Setting(
        threads=threads or cores, batch=batch, tokens=workload.tokens(data), cores=cores, processor=read_processor()
    )
    host = read_host()
    # The control is the first subject: the baseline in the candidate's place.
    subjects = {dense.key: dense}
    for subject in asked:
        subjects.setdefault(subject.key, subject)
    unique = tuple(subjects.values())
    with tempfile.TemporaryDirectory(prefix="tdcompress-bench-") as folder:
        inputs_path = Path(folder) / "inputs.npz"
        write_npz(inputs_path, {str(place): array for place, array in enumerate(data.values())})
        processes = _Processes(
            baseline=dense,
            subjects=unique,
            inputs_path=str(inputs_path),
            input_names=tuple(data),
            threads=setting.threads,
            say=progress or _say_nothing,
        )
        probes = dict(zip(subjects, processes.probe(plan), strict=True))
        times = dict(zip(subjects, processes.time(plan, seed), strict=True))
    generator = np.random.default_rng([seed, plan.processes])
    ratios = {key: compare(measured, generator) for key, measured in times.items()}
    control = ratios[dense.key]
    timer_overhead_ns = probes[dense.key].timer_overhead_ns

    def row(subject: Subject) -> Latency:
        key = subject.key
        return summarise(
            subject,
            setting,
            host,
            probes[key],
            times[key],
            ratio=widened_by_control(ratios[key], control),
            control=control,
            timer_overhead_ns=timer_overhead_ns,
        )

    return BenchReport(
        host=host,
        protocol=Protocol(
            budget=plan.name,
            processes=plan.processes,
            seed=seed,
            baseline_backend=baseline_backend,
            input_shapes=tuple(f"{name}: {array.dtype} {list(array.shape)}" for name, array in data.items()),
            inputs_sha256=_hash_arrays(data),
            random_inputs=ready.random,
            timer_overhead_ns=timer_overhead_ns,
            denormals=DENORMALS,
            seconds=round(time.monotonic() - started, 3),
            call=workload.described(data),
        ),
        control=replace(row(dense), ratio_low=control.low, ratio_high=control.high),  # as measured: it widens the others
        rows=tuple(row(subject) for subject in asked),
        samples=tuple(
            Samples(sha256=subject.file.sha256, backend=subject.backend, processes=times[subject.key]) for subject in unique
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Processes:
    """The fresh processes of one benchmark: what all of them are told."""

    baseline: Subject
    subjects: tuple[Subject, ...]
    inputs_path: str
    input_names: tuple[str, ...]
    threads: int
    say: Say

    def _loads(self, plan: Budget) -> int:
        """How often a file is loaded: once alone, and once in each process."""
        return (1 + plan.processes) * len(self.subjects)

    def probe(self, plan: Budget) -> list[ProbeResult]:
        """One process for each subject."""
        results = []
        for number, subject in enumerate(self.subjects):
            self.say(f"bench: loading {subject.file.path.name} ({subject.backend})", number / self._loads(plan))
            job = ProbeJob(
                target=subject.target,
                inputs_path=self.inputs_path,
                input_names=self.input_names,
                threads=self.threads,
            )
            results.append(run_job(job, ProbeResult))
        return results

    def time(self, plan: Budget, seed: int) -> list[tuple[PairTimes, ...]]:
        """For each subject, its times in every process."""
        stop = plan.stop_rule(len(self.subjects))
        results = []
        for process in range(plan.processes):
            done = (1 + process) * len(self.subjects) / self._loads(plan)
            self.say(f"bench: process {process + 1} of {plan.processes}, {len(self.subjects)} files in pairs", done)
            job = PairsJob(
                baseline=self.baseline.target,
                candidates=tuple(subject.target for subject in self.subjects),
                inputs_path=self.inputs_path,
                input_names=self.input_names,
                threads=self.threads,
                seed=(seed, process),
                minimum_pairs=stop.minimum,
                maximum_pairs=stop.maximum,
                seconds=stop.seconds,
                warm_up_seconds=plan.warm_up_seconds,
                single_calls=plan.single_calls,
                parent=os.getpid(),
            )
            results.append(run_job(job, PairsResult).files)
        return list(zip(*results, strict=True))


def _hash_arrays(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _say_nothing(line: str, done: float) -> None:
    pass
