"""One arena for all tensors of an image: two buffers share memory when no call needs both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tdcompress.engine.binding import LANES
from tdcompress.engine.layout import Layout


@dataclass(eq=False, kw_only=True)
class Buffer:
    """Memory of one tensor: in the arena (space 0; `start` is set by place_buffers), or an array of the caller (space k > 0).

    constant: the same for every image, in the plan's array of constants.
    """

    layout: Layout
    space: int = 0
    dtype: str = "float32"
    start: int = 0
    constant: bool = False


@dataclass(frozen=True, kw_only=True)
class Use:
    """The buffers of one call, in program order."""

    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]


def place_buffers(uses: Sequence[Use], *, guard: int) -> int:
    """Give every arena buffer its start and return the arena's size, both in elements.

    Buffers that live at the same time (from their first writer to their last reader) get disjoint ranges: largest
    first, each at the lowest address that is free for its whole life. `guard` elements are kept before and after
    everything, since displaced loads may look a little outside a plane.
    """
    lives: dict[Buffer, tuple[int, int]] = {}
    for index, use in enumerate(uses):
        for buffer in (*use.reads, *use.writes):
            if buffer.space == 0:
                lives[buffer] = (lives.get(buffer, (index, index))[0], index)
    guard = -(-guard // LANES) * LANES
    end = guard
    placed: list[tuple[int, int, tuple[int, int]]] = []
    for buffer, life in sorted(lives.items(), key=lambda item: -item[0].layout.size):
        size = -(-buffer.layout.size // LANES) * LANES + LANES
        start = guard
        for other_start, other_end, other_life in sorted(placed):
            if other_life[0] <= life[1] and life[0] <= other_life[1] and other_start < start + size and start < other_end:
                start = other_end
        buffer.start = start
        placed.append((start, start + size, life))
        end = max(end, start + size)
    return end + guard
