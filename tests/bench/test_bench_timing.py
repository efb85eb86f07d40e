import numpy as np
import pytest

from tdcompress.bench.budget import BUDGETS, find_budget
from tdcompress.bench.timing import (
    BLOCK_PAIRS,
    WARM_UP_RUNS,
    WINDOW_RUNS,
    StopRule,
    block_calls,
    time_block,
    time_pairs,
    timer_overhead_ns,
    warm_up,
)
from tdcompress.errors import UserError


class Machine:
    """A clock that only calls move, each reading costing `reading` ns."""

    def __init__(self, reading: int = 0) -> None:
        self.now = 0
        self.reading = reading
        self.order: list[str] = []

    def clock(self) -> int:
        self.now += self.reading
        return self.now

    def call(self, name: str, durations):
        """A call that takes the next of `durations` each time, and the last of them for ever."""
        remaining = list(durations)

        def run() -> None:
            self.order.append(name)
            self.now += remaining.pop(0) if len(remaining) > 1 else remaining[0]

        return run


def test_timer_overhead_and_block_by_hand():
    machine = Machine(reading=40)
    assert timer_overhead_ns(machine.clock) == 40
    assert time_block(machine.call("a", [100]), 3, machine.clock) == 3 * 100 + 40
    assert timer_overhead_ns() > 0


@pytest.mark.parametrize(
    ("call_ns", "overhead_ns", "calls"),
    [
        (1_000_000, 50, 1),
        (100_000, 5_000, 1),  # from 100 us on, one call a block
        (50_000, 50, 1),  # 50 ns are exactly 0.1 %
        (50_000, 60, 2),  # 60 / (2 * 50,000) = 0.06 %
        (1_000, 50, 50),
        (0, 50, 50_000),
    ],
)
def test_short_calls_are_timed_in_blocks(call_ns, overhead_ns, calls):
    assert block_calls(call_ns, overhead_ns) == calls


def test_warm_up_waits_for_two_equal_windows_of_both_calls():
    machine = Machine()
    slow_start = [1000] * 25 + [500]  # its first 10 runs, one window, and half a window are slow
    settled = warm_up(machine.call("a", slow_start), machine.call("b", [700]), seconds=1.0, clock=machine.clock)
    # 10 runs, then windows with medians 1000, 750, 500, 500.
    assert settled.steady
    assert settled.runs == 10 + 4 * 10
    assert settled.call_ns == (500, 700)
    assert machine.order[:4] == ["a", "b", "a", "b"]


def test_warm_up_gives_up_unsteady_when_times_keep_falling():
    machine = Machine()
    falling = [int(1e9 * 0.99**run) for run in range(2000)]
    settled = warm_up(machine.call("a", falling), machine.call("b", [10]), seconds=30.0, clock=machine.clock)
    assert not settled.steady


def test_pairs_are_whole_blocks_in_random_order_and_attributed_to_the_right_side():
    machine = Machine()
    stop = StopRule(minimum=20, maximum=400, seconds=0.0)
    times = time_pairs(
        machine.call("dense", [3]),
        machine.call("ours", [2]),
        calls=(5, 2),
        stop=stop,
        generator=np.random.default_rng(0),
        clock=machine.clock,
    )
    assert times.shape == (20, 2)
    assert (times == [15, 4]).all()
    firsts = machine.order[::7]  # each pair is 5 + 2 calls
    assert len(firsts) == 20
    assert 3 <= firsts.count("dense") <= 17
    assert machine.order.count("dense") == 100
    assert machine.order.count("ours") == 40


@pytest.mark.parametrize(
    ("stop", "pairs"),
    [
        (StopRule(minimum=30, maximum=400, seconds=0.0), 30),  # the count holds when the time is over
        (StopRule(minimum=10, maximum=400, seconds=1e-6), 200),  # 1000 ns of 5 ns pairs
        (StopRule(minimum=10, maximum=50, seconds=10.0), 50),
    ],
)
def test_stop_rules_hold_both_count_and_time(stop, pairs):
    machine = Machine()
    looks: list[int] = []
    times = time_pairs(
        machine.call("dense", [3]),
        machine.call("ours", [2]),
        calls=(1, 1),
        stop=stop,
        generator=np.random.default_rng(0),
        between_blocks=lambda: looks.append(machine.now),
        clock=machine.clock,
    )
    assert len(times) == pairs
    assert len(looks) == pairs / BLOCK_PAIRS


def test_budgets_keep_the_protocol():
    for budget in BUDGETS.values():
        assert budget.minimum_pairs % BLOCK_PAIRS == budget.maximum_pairs % BLOCK_PAIRS == budget.single_calls % BLOCK_PAIRS == 0
        least = budget.processes * (WARM_UP_RUNS + 2 * WINDOW_RUNS + budget.minimum_pairs)
        assert least == {"quick": 300, "full": 1040}[budget.name]  # as docs/benchmarking.md and the recipe's key say
    assert BUDGETS["full"].processes == 8
    assert BUDGETS["full"].minimum_pairs == 100
    # Many files share quick's time: one gets half a second in each process, fifteen together 25 s.
    assert BUDGETS["quick"].stop_rule(2).seconds == pytest.approx(0.5)
    assert BUDGETS["quick"].stop_rule(15).seconds == pytest.approx(25 / 15 / 6)
    with pytest.raises(UserError, match="'fast' is unknown; choose one of quick, full"):
        find_budget("fast")
