"""Which encoding for which weight: the smallest file, when weights of one encoding share one decoder."""

import math
from collections.abc import Mapping, Sequence


def choose(own_costs: Sequence[Mapping[str, float]], shared_costs: Mapping[str, float]) -> list[str]:
    """The cheapest encoding of every weight, decoders included.

    An encoding that nobody uses costs nothing; the first user pays for its decoder. Every set of decoders is tried that could
    be the best, and inside a set every weight takes its cheapest: that is the optimum. Ties go to the encoding named first.

    Args:
        own_costs: per weight, encoding -> what this weight adds, in bytes that may be weighted; every weight names at least
            one encoding whose decoder is free.
        shared_costs: encoding -> what its decoder adds.

    Returns:
        One encoding per weight.
    """
    own = [[costs.get(name, math.inf) for name in shared_costs] for costs in own_costs]
    shared = list(shared_costs.values())
    free = [place for place, cost in enumerate(shared) if cost == 0]
    least = [min(costs[place] for place in free) for costs in own]
    _, used = _fewest(own, shared, least, (), [place for place, cost in enumerate(shared) if cost > 0], math.inf)
    names = list(shared_costs)
    allowed = sorted((*free, *used))
    return [names[min(allowed, key=costs.__getitem__)] for costs in own]


def _fewest(
    own: Sequence[Sequence[float]],
    shared: Sequence[float],
    now: Sequence[float],
    used: tuple[int, ...],
    others: Sequence[int],
    most: float,
) -> tuple[float, tuple[int, ...]]:
    """The cheapest set of decoders that holds `used` and else some of `others`, and its cost; (`most`, ()) where none is cheaper.

    A decoder more saves a set of them no more than it saves a part of that set. So one that does not pay for itself now never
    will, and nothing below costs less than this set, less what each of the others would save alone.

    Args:
        own: per weight and encoding, what it adds.
        shared: what each decoder adds.
        now: what each weight adds with `used`.
        used: places of decoders.
        others: places of decoders that may come, in their order.
        most: the cost that is to be beaten.
    """
    cost = sum(now) + sum(shared[place] for place in used)
    best = (cost, used) if cost < most else (most, ())
    gains = {place: sum(max(0.0, a - b[place]) for a, b in zip(now, own, strict=True)) - shared[place] for place in others}
    others = [place for place in others if gains[place] > 0]
    if cost - sum(gains[place] for place in others) >= best[0]:
        return best
    for number, place in enumerate(others):
        then = [min(a, b[place]) for a, b in zip(now, own, strict=True)]
        found = _fewest(own, shared, then, (*used, place), others[number + 1 :], best[0])
        best = min(best, found, key=lambda entry: entry[0])
    return best
