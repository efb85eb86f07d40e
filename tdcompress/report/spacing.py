"""Labels that would touch, moved as little as possible."""

from collections.abc import Sequence
from itertools import pairwise


def spread(wanted: Sequence[float], needed: Sequence[float]) -> list[float]:
    """Centres as near to the wanted ones as can be (least squares), in the same order, each with the room it needs.

    Take from each centre its offset in the tightest packing; what is left has to be non-decreasing, and the nearest such sequence
    is found by pooling adjacent violators: neighbours that would touch form a block at the mean of what its members want.

    Args:
        wanted: centres.
        needed: sizes, of the same length.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    offsets = [0.0] * len(wanted)
    for before, after in pairwise(order):
        offsets[after] = offsets[before] + (needed[before] + needed[after]) / 2
    blocks: list[tuple[float, int]] = []  # mean of wanted - offset, members
    for index in order:
        mean, count = wanted[index] - offsets[index], 1
        while blocks and blocks[-1][0] >= mean:
            earlier, members = blocks.pop()
            mean, count = (earlier * members + mean * count) / (members + count), members + count
        blocks.append((mean, count))
    means = (mean for mean, count in blocks for _ in range(count))
    centres = [0.0] * len(wanted)
    for index, mean in zip(order, means, strict=True):
        centres[index] = mean + offsets[index]
    return centres
