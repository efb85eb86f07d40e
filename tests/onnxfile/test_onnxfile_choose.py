"""The choice of encodings is the optimum: compared with every assignment there is."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from tdcompress.onnxfile.choose import choose


def total(own: list[dict[str, int]], shared: dict[str, int], picks: list[str]) -> int:
    return sum(costs[pick] for costs, pick in zip(own, picks, strict=True)) + sum(shared[name] for name in set(picks))


def test_a_decoder_has_to_pay_for_itself() -> None:
    shared = {"dense": 0, "gap8": 500}
    assert choose([{"dense": 1000, "gap8": 600}], shared) == ["dense"]
    assert choose([{"dense": 1000, "gap8": 600}] * 2, shared) == ["gap8", "gap8"]
    assert choose([{"dense": 1000, "gap8": 600}] * 2 + [{"dense": 30, "gap8": 40}], shared) == ["gap8", "gap8", "dense"]
    assert choose([{"dense": 1000, "gap8": 500}], shared) == ["dense"]  # a tie goes to the simpler
    assert choose([], shared) == []


COSTS = st.fixed_dictionaries({name: st.integers(1, 60) for name in ("dense", "coo", "gap8", "gap4")})


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(COSTS, max_size=5), st.integers(1, 40), st.integers(1, 40))
def test_choice_is_the_optimum(own: list[dict[str, int]], gap8: int, gap4: int) -> None:
    shared = {"dense": 0, "coo": 0, "gap8": gap8, "gap4": gap4}
    best = min(total(own, shared, list(picks)) for picks in product(shared, repeat=len(own)))
    assert total(own, shared, choose(own, shared)) == best
