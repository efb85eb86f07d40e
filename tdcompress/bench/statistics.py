"""What paired timings mean: ratio, interval, percentiles, claim. Pure functions of numbers already measured.

Words: a *pair* is one block of the baseline and one of the candidate, timed next to each other in random order; its
*ratio* is candidate time / baseline time, below 1 = faster. Each fresh process gives one array of ratios, in the
order they were measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from tdcompress.bench.timing import BLOCK_PAIRS
from tdcompress.records.latency import LatencyClaim

FloatArray = NDArray[np.float64]

DRAWS = 2000
LEVEL = 0.95
CLAIM_EFFECT = 0.01
SPREAD_FLAG = 0.10
P90_RUNS = 64
P99_RUNS = 662


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A latency ratio (candidate time / baseline time) with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_one(self) -> bool:
        """Whether the interval shows a difference at all."""
        return self.high < 1.0 or self.low > 1.0


def measure_ratio(ratios: Sequence[FloatArray], *, generator: np.random.Generator) -> Ratio:
    """Estimate with its 95 % interval: `measure` of the logarithms.

    The estimate is the geometric mean over processes of the median pair ratio, so that swapping the two files inverts it. The
    median makes a process deaf to disturbed pairs without deleting any; the mean over fresh processes averages what one cannot
    see of itself: memory layout, page placement, the core it landed on.

    Args:
        ratios: of each process its positive pair ratios, (pairs,), a multiple of `BLOCK_PAIRS`.
        generator: draws the resamples.

    Raises:
        ValueError: fewer than two processes, a process without whole blocks, or a ratio that is not positive.
    """
    if any(not (np.isfinite(process).all() and (process > 0).all()) for process in ratios):
        raise ValueError("a pair ratio is not a positive number")
    value, low, high = (float(np.exp(end)) for end in measure([np.log(process) for process in ratios], generator=generator))
    return Ratio(value=value, low=min(low, value), high=max(high, value))


def measure(differences: Sequence[FloatArray], *, generator: np.random.Generator) -> tuple[float, float, float]:
    """(mean over processes of their medians, low, high): a 95 % interval from a bootstrap of processes, then blocks of ten.

    A percentile interval of few clusters is too narrow: resampling n processes understates the variance between them by
    (n-1)/n, and n of them do not make a normal distribution. So the deviations from the estimate are widened by
    sqrt(n/(n-1)) * t(n-1) / z, which is 1.44 for 6 processes, 1.29 for 8, and 1 for many.

    Args:
        differences: of each process its pairs in the order measured, (pairs,), a multiple of `BLOCK_PAIRS`.
        generator: draws the resamples.

    Raises:
        ValueError: fewer than two processes, or a process without whole blocks.
    """
    processes = len(differences)
    if processes < 2:
        raise ValueError("an interval needs at least two processes")
    for process in differences:
        if process.size == 0 or process.size % BLOCK_PAIRS:
            raise ValueError(f"{process.size} pairs are not whole blocks of {BLOCK_PAIRS}")
    value = float(np.mean([np.median(process) for process in differences]))
    deviations = _bootstrap_means(differences, generator) - value
    tail = (1 - LEVEL) / 2
    low, high = value + widening(processes) * np.quantile(deviations, [tail, 1 - tail])
    return value, float(low), float(high)


def widening(processes: int) -> float:
    """What the deviations of a percentile bootstrap of so many processes are multiplied by; see `measure`."""
    tail = (1 - LEVEL) / 2
    return float(np.sqrt(processes / (processes - 1)) * stdtrit(processes - 1, 1 - tail) / stdtrit(np.inf, 1 - tail))


def widened_by_control(ratio: Ratio, control: Ratio) -> Ratio:
    """The ratio with an interval wider by how far the control is from 1, on both sides.

    The baseline against itself is 1. What is measured instead tells how far this machine can be off now.

    Args:
        ratio: a file against the baseline.
        control: the baseline against a copy of itself, in the same run.
    """
    off = np.exp(abs(np.log(control.value)))
    return Ratio(value=ratio.value, low=float(ratio.low / off), high=float(ratio.high * off))


def _bootstrap_means(differences: Sequence[FloatArray], generator: np.random.Generator) -> FloatArray:
    """`DRAWS` resampled values of the estimate."""
    chosen = generator.integers(len(differences), size=(DRAWS, len(differences)))
    medians = np.empty(chosen.shape)
    for index, process in enumerate(differences):
        slots = chosen == index
        blocks = process.reshape(-1, BLOCK_PAIRS)
        picks = generator.integers(len(blocks), size=(int(slots.sum()), len(blocks)))
        medians[slots] = np.median(blocks[picks].reshape(len(picks), process.size), axis=1)
    means: FloatArray = medians.mean(axis=1)
    return means


def spread(times: ArrayLike) -> float:
    """Interquartile range over median: how noisy the machine was while this was timed."""
    low, middle, high = np.quantile(np.asarray(times, dtype=np.float64), [0.25, 0.5, 0.75])
    return float((high - low) / middle) if middle > 0 else float("inf")


def percentile(times: ArrayLike, share: float, *, minimum_runs: int) -> int | None:
    """Smallest observed time that at least `share` of the runs do not exceed; None below `minimum_runs`.

    The minimum counts (`P90_RUNS`, `P99_RUNS`) are those of MLPerf LoadGen's early stopping: with fewer runs a tail
    percentile says nothing with confidence.

    Args:
        times: of single runs, in ns, (N,).
        share: 0..1.
        minimum_runs: fewer give None.
    """
    values = np.asarray(times)
    if values.size < minimum_runs:
        return None
    return int(np.quantile(values, share, method="inverted_cdf"))


def decide_claim(ratio: Ratio, *, control: Ratio | None) -> tuple[LatencyClaim, str]:
    """Whether a difference may be claimed, and why (not).

    Args:
        ratio: the file against the baseline, `widened_by_control`.
        control: the baseline against a copy of itself in the same run; None where it could not be measured.
    """
    if control is None or not 0 < control.value < np.inf:
        return "none", "the baseline against itself could not be measured, so nothing says how far this machine is off"
    beside = f"(widened by the baseline against itself, {control.value:.3f})"
    if not ratio.excludes_one:
        return "none", f"the 95 % interval {beside} contains 1"
    if abs(ratio.value - 1) < CLAIM_EFFECT:
        return "none", f"the difference is smaller than {CLAIM_EFFECT:.0%}"
    claim: LatencyClaim = "faster" if ratio.value < 1 else "slower"
    return claim, f"the 95 % interval {beside} excludes 1 and the difference is at least {CLAIM_EFFECT:.0%}"
