"""What a fresh process runs: `python -m tdcompress.bench.worker KIND`, a job as JSON in, its result as JSON out.

Imports as little as it can, so that the process is quick to start and its memory is the runtime's.
"""

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tdcompress.bench.backends import create_backend
from tdcompress.bench.backends.base import Inputs, TimedSession
from tdcompress.bench.job import JOBS, PairsJob, PairsResult, PairTimes, ProbeJob, ProbeResult, Target
from tdcompress.bench.timing import StopRule, block_calls, time_pairs, timer_overhead_ns, warm_up
from tdcompress.bench.workloads import workload_of
from tdcompress.codec import decode_json, encode
from tdcompress.errors import ModelError, TdcompressError, one_line
from tdcompress.limits import read_fact

PROBE_RUNS = 3
ORPHANED = 3
"""Exit status when the process that asked is gone."""


def run_probe(job: ProbeJob) -> ProbeResult:
    """Open one file in this process, run it, and read the process's peak memory."""
    session, _ = _open(job.target, _load_inputs(job.inputs_path, job.input_names), job.threads)
    for _ in range(PROBE_RUNS):
        _run_once(session, job.target)
    return ProbeResult(
        provider=session.provider,
        options=dict(session.options),
        notes=session.notes,
        peak_rss_bytes=peak_rss_bytes(session.pid),
        timer_overhead_ns=timer_overhead_ns(),
    )


def run_pairs(job: PairsJob) -> PairsResult:
    """Time every candidate against a new session of the baseline, in random order."""
    inputs = _load_inputs(job.inputs_path, job.input_names)
    generator = np.random.default_rng(job.seed)
    overhead = timer_overhead_ns()
    times: dict[int, PairTimes] = {}
    for index in generator.permutation(len(job.candidates)).tolist():
        times[index] = _time_candidate(job, job.candidates[index], inputs, overhead, generator)
    return PairsResult(files=tuple(times[index] for index in range(len(job.candidates))))


def peak_rss_bytes(pid: int | None = None) -> int | None:
    """Largest resident memory of this process, or on Linux of another one; None where the system does not tell (Windows).

    Linux carries ru_maxrss over from the parent through exec; VmHWM belongs to one process alone.
    """
    status = read_fact(Path("/proc") / ("self" if pid is None else str(pid)) / "status")
    for line in (status or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    if pid is not None:
        return None
    try:
        import resource
    except ImportError:
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _time_candidate(
    job: PairsJob, candidate: Target, inputs: Inputs, overhead_ns: float, generator: np.random.Generator
) -> PairTimes:
    # Which session is created first decides who gets which memory: drawn anew for every file and process.
    if generator.random() < 0.5:
        ours, load_ns = _open(candidate, inputs, job.threads)
        dense, _ = _open(job.baseline, inputs, job.threads)
    else:
        dense, _ = _open(job.baseline, inputs, job.threads)
        ours, load_ns = _open(candidate, inputs, job.threads)
    first_run_ns = _run_once(ours, candidate)
    _run_once(dense, job.baseline)
    stop = StopRule(minimum=job.minimum_pairs, maximum=job.maximum_pairs, seconds=job.seconds)
    once = StopRule(minimum=job.single_calls, maximum=job.single_calls, seconds=0.0)
    check_parent = _parent_check(job.parent)
    gc.collect()
    gc.disable()
    try:
        settled = warm_up(dense.run, ours.run, seconds=job.warm_up_seconds)
        calls = (block_calls(settled.call_ns[0], overhead_ns), block_calls(settled.call_ns[1], overhead_ns))

        def pairs(calls: tuple[int, int], stop: StopRule) -> Any:
            return time_pairs(
                dense.run,
                ours.run,
                calls=calls,
                stop=stop,
                generator=generator,
                between_blocks=check_parent,
            )

        blocks = pairs(calls, stop)
        single = blocks if calls[1] == 1 else pairs((1, 1), once)
    finally:
        gc.enable()
    return PairTimes(
        baseline_calls=calls[0],
        candidate_calls=calls[1],
        baseline_ns=tuple(blocks[:, 0].tolist()),
        candidate_ns=tuple(blocks[:, 1].tolist()),
        single_ns=tuple(single[:, 1].tolist()),
        load_ns=load_ns,
        first_run_ns=first_run_ns,
        steady=settled.steady,
    )


def _open(target: Target, inputs: Inputs, threads: int) -> tuple[TimedSession, int]:
    backend = create_backend(target.backend, target.provider, threads)
    start = time.perf_counter_ns()
    session = workload_of(target.task).open(backend, Path(target.path), inputs)
    return session, time.perf_counter_ns() - start


def _run_once(session: TimedSession, target: Target) -> int:
    start = time.perf_counter_ns()
    try:
        session.run()
    except TdcompressError:
        raise
    except Exception as error:  # each runtime has its own, without a common base
        raise ModelError(f"{target.path}: {target.backend} fails on the inputs of this benchmark: {one_line(error)}") from error
    return time.perf_counter_ns() - start


def _load_inputs(path: str, names: Sequence[str]) -> Inputs:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[key] for name, key in zip(names, stored.files, strict=True)}


def _parent_check(parent: int) -> Callable[[], None]:
    """Ends this process when the one that asked is gone. On Windows it measures to its end: a parent's number stays there."""

    def check() -> None:
        if os.name == "posix" and os.getppid() != parent:
            sys.exit(ORPHANED)

    return check


RUNNERS: Mapping[str, Callable[[Any], ProbeResult | PairsResult]] = {"probe": run_probe, "pairs": run_pairs}


def main() -> int:
    """Read a job from standard input, write {"result": ...} or {"error": ...} to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Runtimes print what they like; the answer keeps a descriptor of its own, and their prints go to the error stream.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        kind = sys.argv[1]
        try:
            job = decode_json(JOBS[kind], sys.stdin.read(), kind)
            message: dict[str, object] = {"result": encode(RUNNERS[kind](job))}
        except TdcompressError as error:
            message = {"error": {"type": type(error).__name__, "message": str(error)}}
        json.dump(message, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
