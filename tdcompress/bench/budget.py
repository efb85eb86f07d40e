"""How much time a benchmark may take, as stop rules: a minimum count and a time, both."""

from collections.abc import Mapping
from dataclasses import dataclass

from tdcompress.bench.timing import StopRule
from tdcompress.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Processes, and pairs in each of them.

    Attributes:
        name: as the user writes it.
        processes: fresh processes; each times every file.
        minimum_pairs: pairs of a file in a process, at least; also when that takes longer than planned.
        maximum_pairs: pairs after which more would only fill the disk.
        seconds_per_file: time for the pairs of one file, over all processes.
        seconds_total: time for the pairs of all files together, over all processes.
        warm_up_seconds: when to give up waiting for a steady state, for a file in a process.
        single_calls: calls timed one by one, for the percentiles of a file whose calls are timed in blocks.
    """

    name: str
    processes: int
    minimum_pairs: int
    maximum_pairs: int
    seconds_per_file: float
    seconds_total: float
    warm_up_seconds: float
    single_calls: int

    def stop_rule(self, files: int) -> StopRule:
        """The rule for one file in one process, when `files` (the control included) share the time."""
        seconds = min(self.seconds_per_file, self.seconds_total / files) / self.processes
        return StopRule(minimum=self.minimum_pairs, maximum=self.maximum_pairs, seconds=seconds)


# quick: 6 processes because 4 cannot tell chance from a difference (all four on one side of 1: one time in eight).
# full: what the false-alarm and detection figures in docs/benchmarking.md were found with.
BUDGETS: Mapping[str, Budget] = {
    "quick": Budget(
        name="quick",
        processes=6,
        minimum_pairs=20,
        maximum_pairs=400,
        seconds_per_file=3.0,
        seconds_total=25.0,
        warm_up_seconds=0.2,
        single_calls=120,
    ),
    "full": Budget(
        name="full",
        processes=8,
        minimum_pairs=100,
        maximum_pairs=1000,
        seconds_per_file=30.0,
        seconds_total=600.0,
        warm_up_seconds=2.0,
        single_calls=200,
    ),
}


def find_budget(name: str) -> Budget:
    """The budget of that name.

    Raises:
        UserError: there is none.
    """
    if name not in BUDGETS:
        raise UserError(f"budget {name!r} is unknown; choose one of {', '.join(BUDGETS)}")
    return BUDGETS[name]
