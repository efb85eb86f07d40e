"""Time ONNX files against a baseline: paired, in random order, in fresh processes, with an A/A control."""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdcompress.arguments import checked, require_range
from tdcompress.bench.backends import check_backend
from tdcompress.bench.backends.base import CPU_PROVIDER
from tdcompress.bench.budget import Budget, find_budget
from tdcompress.bench.deployed import check_can_time, read_deployed, sampled_inputs
from tdcompress.bench.host import read_host
from tdcompress.bench.inputs import check_given_inputs, check_same_inputs
from tdcompress.bench.job import PairsJob, PairsResult, PairTimes, ProbeJob, ProbeResult
from tdcompress.bench.launch import run_job
from tdcompress.bench.modelfile import ModelFile
from tdcompress.bench.report import BenchReport, Latency, Protocol, Samples
from tdcompress.bench.statistics import widened_by_control
from tdcompress.bench.summary import Setting, Subject, compare, summarise
from tdcompress.bench.workloads import workload_of
from tdcompress.errors import UserError
from tdcompress.files import StrPath
from tdcompress.limits import usable_cores
from tdcompress.npz import write_npz
from tdcompress.onnxfile.names import SAMPLES
from tdcompress.processor import read_processor

Arrays = Mapping[str, NDArray[Any]]
Say = Callable[[str, float], None]
"""Told what begins, and the share (0..1) of the processes' work that is done."""

BASELINE_BACKEND = "onnxruntime"
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
        threads: threads inside a session; 0 = all cores that this process may use.
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
    plan = find_budget(budget)
    _check_counts(files, threads, batch)
    require_range("benchmark: seed", seed, 0, 2**63 - 1)
    for name in (backend, baseline_backend):
        check_backend(name)
    dense_file, *asked_files = (read_deployed(Path(path), external_data=external_data) for path in (baseline, *files))
    for name, file in ((baseline_backend, dense_file), *((backend, file) for file in asked_files)):
        check_can_time(name, file.task)
    dense = Subject(file=dense_file, backend=baseline_backend, provider=provider)
    asked = [Subject(file=file, backend=backend, provider=provider) for file in asked_files]
    check_same_inputs(dense.file, [subject.file for subject in asked])
    workload = workload_of(dense.file.task)
    made_up = None if inputs is not None else workload.made_up(dense.file, batch, np.random.default_rng(seed), shapes)
    if made_up is None:
        data = check_given_inputs(dense.file, _beside(dense.file, batch) if inputs is None else inputs, batch)
    else:
        data = made_up
    cores = usable_cores()
    setting = Setting(
        threads=threads or cores, batch=batch, tokens=workload.tokens(data), usable_cores=cores, processor=read_processor()
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
    ratios |= {key: widened_by_control(ratio, control) for key, ratio in ratios.items() if key != dense.key}
    timer_overhead_ns = probes[dense.key].timer_overhead_ns

    def row(subject: Subject) -> Latency:
        key = subject.key
        return summarise(
            subject,
            setting,
            host,
            probes[key],
            times[key],
            ratio=ratios[key],
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
            random_inputs=made_up is not None,
            timer_overhead_ns=timer_overhead_ns,
            denormals=DENORMALS,
            seconds=round(time.monotonic() - started, 3),
            call=workload.described(data),
        ),
        control=row(dense),
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


def _check_counts(files: Sequence[StrPath], threads: int, batch: int) -> None:
    if not files:
        raise UserError("no file to benchmark; name at least one ONNX file")
    check_threads(threads)
    if batch < 1:
        raise UserError(f"batch is {batch}; give a positive number")


def check_threads(threads: int) -> None:
    """Refuse more threads than there are cores for.

    Raises:
        UserError: below 0, or above the cores of this process.
    """
    if not 0 <= threads <= usable_cores():
        raise UserError(f"threads is {threads}; give 1 to {usable_cores()} (the cores of this process), or 0 for all of them")


def _beside(file: ModelFile, batch: int) -> Arrays:
    """Real inputs from the samples that lie beside a file whose inputs cannot be made up."""
    samples = file.path.with_name(SAMPLES)
    if not samples.is_file():
        lengths = f"say how long its inputs are (--shape {batch}x20), or give them (`inputs=` in Python)"
        raise UserError(f"{file.path}: no {SAMPLES} lies beside it; {lengths}")
    return sampled_inputs(file, samples, batch)


def _hash_arrays(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _say_nothing(line: str, done: float) -> None:
    pass
