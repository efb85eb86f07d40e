"""Which encoding for which weight: the smallest file, when weights of one encoding share one decoder."""

from collections.abc import Mapping, Sequence
from itertools import combinations


def choose(own_costs: Sequence[Mapping[str, float]], shared_costs: Mapping[str, float]) -> list[str]:
    """The cheapest encoding of every weight, decoders included.

    An encoding that nobody uses costs nothing; the first user pays for its decoder. There are few encodings, so every
    set of decoders is tried that could pay for themselves, and inside a set every weight takes its cheapest: that is the
    optimum. Ties go to the encoding named first.

    Args:
        own_costs: per weight, encoding -> what this weight adds, in bytes that may be weighted; every weight names at least
            one encoding whose decoder is free.
        shared_costs: encoding -> what its decoder adds.

    Returns:
        One encoding per weight.
    """
    free = [name for name, cost in shared_costs.items() if cost == 0]
    saved = dict.fromkeys(shared_costs, 0.0)  # by an encoding alone, beside those whose decoder is free: in no set is it more
    for costs in own_costs:
        least = min(costs[name] for name in free if name in costs)
        for name, cost in costs.items():
            saved[name] += max(0.0, least - cost)
    paid = [name for name, cost in shared_costs.items() if 0 < cost < saved[name]]
    best: tuple[float, list[str]] | None = None
    for count in range(len(paid) + 1):
        for extra in combinations(paid, count):
            allowed = [name for name in shared_costs if name in free or name in extra]
            picks = [min((name for name in allowed if name in costs), key=costs.__getitem__) for costs in own_costs]
            total = sum(costs[pick] for costs, pick in zip(own_costs, picks, strict=True))
            total += sum(shared_costs[name] for name in set(picks))
            if best is None or total < best[0]:
                best = (total, picks)
    assert best is not None  # the empty set of paid decoders is always tried
    return best[1]
