"""How often a benchmark claims a difference, on simulated machines: A/A (a false claim), and true 5 %, 20 % and 2x.

A machine has a lasting effect of each fresh process on each pair of sessions (memory layout), a speed that drifts from call to
call, noise, and bursts that slow a call or a pair. A benchmark is what `tdcompress bench` does: the file and the control in
the same processes, the interval of the file widened by the control.

    python benchmarks/claims.py --runs 200
"""

import argparse
from collections import Counter
from dataclasses import dataclass

import numpy as np
from counts import at_least

from tdcompress.bench.budget import BUDGETS
from tdcompress.bench.statistics import decide_claim, measure_ratio, widened_by_control

TRUE = (1.0, 1.05, 1.2, 2.0)
PAIRS = {"quick": 60, "full": 100}  # of the numbers that the budgets allow, those of a call of about 8 ms


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What disturbs times. All are standard deviations of logarithms, but `bursts`.

    Attributes:
        effect: of a process on the ratio of a pair of sessions, lasting as long as the process.
        drift: of the machine's speed, over a process (a random walk).
        noise: of a call.
        bursts: share of calls, and of pairs, that take up to twice as long.
    """

    effect: float
    drift: float
    noise: float
    bursts: float


def pair_ratios(machine: Machine, *, true: float, pairs: int, generator: np.random.Generator) -> np.ndarray:
    """The pair ratios of one process, in the order they are measured."""
    walk = np.cumsum(generator.normal(0, machine.drift / np.sqrt(2 * pairs), 2 * pairs)).reshape(pairs, 2)
    times = walk + generator.normal(0, machine.noise, (pairs, 2))
    times += np.where(generator.random((pairs, 2)) < machine.bursts / 2, np.log1p(generator.random((pairs, 2))), 0)
    times += np.where(generator.random((pairs, 1)) < machine.bursts, np.log1p(generator.random((pairs, 1))), 0)
    swapped = generator.random(pairs) < 0.5
    first, second = times.T
    ratios: np.ndarray = np.exp(np.where(swapped, first - second, second - first) + generator.normal(0, machine.effect)) * true
    return ratios


def claim_rate(machine: Machine, *, true: float, runs: int, seed: int, budget: str = "quick") -> dict[str, float]:
    """Share of benchmarks that claim "faster", "slower" and "none" of a file that takes `true` times as long as the baseline."""
    generator = np.random.default_rng(seed)
    processes, pairs = BUDGETS[budget].processes, PAIRS[budget]
    found = Counter(dict.fromkeys(("faster", "slower", "none"), 0))
    for _ in range(runs):
        control, ratio = (
            measure_ratio(
                [pair_ratios(machine, true=value, pairs=pairs, generator=generator) for _ in range(processes)],
                generator=generator,
            )
            for value in (1.0, true)
        )
        found[decide_claim(widened_by_control(ratio, control), control=control)[0]] += 1
    return {claim: count / runs for claim, count in found.items()}


def main() -> None:
    """Print the table of docs/benchmarking.md."""
    parser = argparse.ArgumentParser(description="how often a benchmark claims a difference, on simulated machines")
    parser.add_argument("--runs", type=at_least(1), default=200)
    parser.add_argument("--budget", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--effect", nargs="+", type=float, default=[0.0, 0.01, 0.02, 0.03, 0.05], help="of a process")
    arguments = parser.parse_args()
    print("| budget | process effect | A/A claims | 5 % claimed | 20 % claimed | 2x claimed |")
    print("|---|---:|---:|---:|---:|---:|")
    for budget in arguments.budget:
        for effect in arguments.effect:
            machine = Machine(effect=effect, drift=0.02, noise=0.03, bursts=0.1)
            rates = [claim_rate(machine, true=true, runs=arguments.runs, seed=0, budget=budget) for true in TRUE]
            shares = (
                f"{rate['faster'] + rate['slower'] if true == 1 else rate['slower']:.1%}"
                for true, rate in zip(TRUE, rates, strict=True)
            )
            print(f"| {budget} | {effect:.0%} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
