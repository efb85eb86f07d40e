"""What the benchmark asks of a fresh process, and what it answers: plain records that travel as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Target:
    """A file and what runs it. `provider` matters to onnxruntime alone; `task` says what a call does (`bench.workloads`)."""

    path: str
    backend: str
    provider: str
    task: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProbeJob:
    """Load one file, run it a few times, and say what it took: one fresh process for each file.

    Attributes:
        target: the file.
        inputs_path: an .npz with the inputs, in the order of their names.
        input_names: of the inputs.
        threads: threads of the backend.
    """

    target: Target
    inputs_path: str
    input_names: tuple[str, ...]
    threads: int


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Facts about one file in its own process.

    Attributes:
        provider: what really runs it.
        options: the backend's settings and what it says about itself (precision, node placement).
        notes: what a reader has to know about how it ran.
        peak_rss_bytes: largest resident memory of the process, Python and the runtime included; None where not known.
        timer_overhead_ns: cost of one reading of the clock.
    """

    provider: str
    options: Mapping[str, str]
    notes: tuple[str, ...]
    peak_rss_bytes: int | None
    timer_overhead_ns: float


@dataclass(frozen=True, kw_only=True)
class PairsJob:
    """Time every candidate in pairs with the baseline, in one fresh process.

    Attributes:
        baseline: what the candidates are compared with.
        candidates: in the caller's order; the worker times them in a random one.
        inputs_path: an .npz with the inputs, in the order of their names, the same for all files.
        input_names: of the inputs.
        threads: threads of the backend.
        seed: draws every order in this process.
        minimum_pairs, maximum_pairs, seconds: `timing.StopRule`.
        warm_up_seconds: when to give up waiting for a steady state.
        single_calls: calls timed one by one when pairs are timed in blocks of several calls.
        parent: process id of who waits for the answer; the worker ends when that is gone.
    """

    baseline: Target
    candidates: tuple[Target, ...]
    inputs_path: str
    input_names: tuple[str, ...]
    threads: int
    seed: tuple[int, ...]
    minimum_pairs: int
    maximum_pairs: int
    seconds: float
    warm_up_seconds: float
    single_calls: int
    parent: int


@dataclass(frozen=True, kw_only=True)
class PairTimes:
    """One candidate and the baseline in one process: raw, in the order measured.

    Attributes:
        baseline_calls, candidate_calls: calls in each timed block.
        baseline_ns, candidate_ns: whole blocks; pair by pair.
        single_ns: single calls of the candidate (`candidate_ns` itself where blocks hold one call).
        load_ns: creating the candidate's session.
        first_run_ns: its first call.
        steady: whether the warm-up ended in a steady state.
    """

    baseline_calls: int
    candidate_calls: int
    baseline_ns: tuple[int, ...]
    candidate_ns: tuple[int, ...]
    single_ns: tuple[int, ...]
    load_ns: int
    first_run_ns: int
    steady: bool


@dataclass(frozen=True, kw_only=True)
class PairsResult:
    """`files` in the order of the job's candidates."""

    files: tuple[PairTimes, ...]


JOBS: Mapping[str, type[ProbeJob] | type[PairsJob]] = {"probe": ProbeJob, "pairs": PairsJob}
