"""Timed calls: the clock's own cost, blocks of short calls, warm-up, and alternating pairs.

A *call* is one inference with everything already prepared. Every function takes the clock as an argument, so that its
arithmetic can be tested with a clock that does not depend on the machine.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

InferenceCall = Callable[[], object]
Clock = Callable[[], int]
IntArray = NDArray[np.int64]

SHORT_CALL_NS = 100_000
TIMER_SHARE = 0.001
WARM_UP_RUNS = 10
WINDOW_RUNS = 10
STEADY_CHANGE = 0.02
BLOCK_PAIRS = 10
"""Neighbouring pairs that are resampled together, because a disturbance lasts longer than one pair."""


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """How two alternating calls settled.

    Attributes:
        steady: two successive windows' medians differed by less than 2 %, for both calls.
        runs: calls made of each.
        call_ns: the last window median of each.
    """

    steady: bool
    runs: int
    call_ns: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """When to stop taking pairs: at `maximum` pairs, or once both `minimum` pairs and `seconds` are reached.

    Both counts are multiples of the block of pairs that the statistics resample.
    """

    minimum: int
    maximum: int
    seconds: float


def timer_overhead_ns(clock: Clock = time.perf_counter_ns, readings: int = 1000) -> float:
    """Median cost of reading the clock, which every timed block contains once."""
    stamps = np.array([clock() for _ in range(readings + 1)])
    return float(np.median(np.diff(stamps)))


def block_calls(call_ns: float, overhead_ns: float) -> int:
    """Calls to time together: one, or for calls below 100 us so many that the timer is at most 0.1 % of the block."""
    if call_ns >= SHORT_CALL_NS:
        return 1
    return max(1, math.ceil(overhead_ns / (TIMER_SHARE * max(call_ns, 1.0))))


def time_block(call: InferenceCall, calls: int, clock: Clock = time.perf_counter_ns) -> int:
    """Nanoseconds for `calls` calls in a row.

    Args:
        call: what is timed.
        calls: how many in a row.
        clock: gives ns.
    """
    repeats = range(calls)
    start = clock()
    for _ in repeats:
        call()
    return clock() - start


def warm_up(first: InferenceCall, second: InferenceCall, *, seconds: float, clock: Clock = time.perf_counter_ns) -> WarmUp:
    """Alternate two calls until both are steady: at least ten runs, then two windows whose medians differ by < 2 %.

    They warm up together because they will be timed together, each finding the caches as the other left them.

    Args:
        first: a call.
        second: the call it will be paired with.
        seconds: give up, unsteady, when this has passed after the first two windows.
        clock: reads nanoseconds.
    """
    start = clock()
    for _ in range(WARM_UP_RUNS):
        first()
        second()
    runs = WARM_UP_RUNS
    before = _window_medians(first, second, clock)
    while True:
        medians = _window_medians(first, second, clock)
        runs += WINDOW_RUNS
        steady = bool(np.all(np.abs(medians - before) < STEADY_CHANGE * before))
        if steady or clock() - start > seconds * 1e9:
            return WarmUp(steady=steady, runs=runs + WINDOW_RUNS, call_ns=(float(medians[0]), float(medians[1])))
        before = medians


def _window_medians(first: InferenceCall, second: InferenceCall, clock: Clock) -> NDArray[np.float64]:
    window = [(time_block(first, 1, clock), time_block(second, 1, clock)) for _ in range(WINDOW_RUNS)]
    medians: NDArray[np.float64] = np.median(np.array(window), axis=0)
    return medians


def time_pairs(
    baseline: InferenceCall,
    candidate: InferenceCall,
    *,
    calls: tuple[int, int],
    stop: StopRule,
    generator: np.random.Generator,
    between_blocks: Callable[[], None] = lambda: None,
    clock: Clock = time.perf_counter_ns,
) -> IntArray:
    """Time baseline and candidate next to each other, in random order in each pair.

    Args:
        baseline: one inference of the baseline.
        candidate: one inference of the file compared with it.
        calls: calls in a timed block of the baseline and of the candidate (`block_calls`).
        stop: when to stop; looked at after every `BLOCK_PAIRS` pairs, so that whole blocks come back.
        generator: draws the orders.
        between_blocks: called untimed after every `BLOCK_PAIRS` pairs.
        clock: reads nanoseconds.

    Returns:
        Nanoseconds of each block, shape (pairs, 2), column 0 the baseline. Nothing is left out.
    """
    rows: list[tuple[int, int]] = []
    deadline = clock() + stop.seconds * 1e9
    while len(rows) < stop.minimum or (len(rows) < stop.maximum and clock() < deadline):
        for baseline_first in generator.random(BLOCK_PAIRS) < 0.5:
            if baseline_first:
                baseline_ns = time_block(baseline, calls[0], clock)
                candidate_ns = time_block(candidate, calls[1], clock)
            else:
                candidate_ns = time_block(candidate, calls[1], clock)
                baseline_ns = time_block(baseline, calls[0], clock)
            rows.append((baseline_ns, candidate_ns))
        between_blocks()
    return np.array(rows, dtype=np.int64)
