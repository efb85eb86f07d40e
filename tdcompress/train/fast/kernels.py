"""The selection as Triton kernels: one program a filter, a search of the threshold bit by bit instead of a sort.

The bits of a non-negative float order as the float does, so the k-th lowest |w| is found by 31 comparisons, one a bit. Scores
that are ranked across filters (a layer, the network) take a radix selection in four digits of eight bits instead. Rows lie in
memory as (*kernel, I) and are read in their logical order (I, *kernel), which breaks ties.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from tdcompress.train.fast.layout import VectorLayout
from tdcompress.train.fast.select import Ranked

CHUNK = 4096  # scores that one program of the radix selection counts
DIGITS = 256
SMALLEST_BLOCK = 256

ABS = tl.constexpr(0x7FFFFFFF)  # the bits of a float32 without its sign; as a key it is above every finite score


@triton.jit
def _places(rows, row, BLOCK: tl.constexpr):
    """Where a filter's entries lie, in logical order, and which lanes hold one; ``rows`` as in `_Class`."""
    start, fan_in, kernel = tl.load(rows + 5 * row), tl.load(rows + 5 * row + 1), tl.load(rows + 5 * row + 2)
    at = tl.arange(0, BLOCK)
    return start + (at % kernel) * (fan_in // kernel) + at // kernel, at < fan_in


@triton.jit
def _drop_in_filters(vector, uniform, counts, alpha, rows, dropped, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    place, valid = _places(rows, row, BLOCK)
    count = tl.load(counts + tl.load(rows + 5 * row + 3))
    value = tl.load(vector + place, mask=valid, other=0.0)
    keys = tl.where(valid, value.to(tl.int32, bitcast=True) & ABS, ABS)
    threshold = 0
    for bit in range(31):
        tried = threshold | (1 << (30 - bit))
        below = tl.sum((keys < tried).to(tl.int32))
        threshold = tl.where(below < count, tried, threshold)
    under = keys < threshold
    tied = (keys == threshold) & valid
    wanted = count - tl.sum(under.to(tl.int32))
    chosen = under | (tied & (tl.cumsum(tied.to(tl.int32), 0) <= wanted))
    chance = tl.load(uniform + place, mask=valid, other=1.0) < tl.load(alpha)
    tl.store(dropped + place, (chosen & chance).to(tl.int8), mask=valid)


@triton.jit
def _make_keys(vector, rows, keys, BLOCK: tl.constexpr):
    place, valid = _places(rows, tl.program_id(0), BLOCK)
    value = tl.load(vector + place, mask=valid, other=0.0)
    key = tl.where(valid, value.to(tl.int32, bitcast=True) & ABS, -1)
    at = tl.arange(0, BLOCK)
    protected = tl.max(tl.where(key == tl.max(key), at, -1))
    tl.store(keys + place, tl.where(at == protected, ABS, key), mask=valid)


@triton.jit
def _count_digits(keys, chunks, prefixes, counted, SHIFT: tl.constexpr, CHUNK: tl.constexpr, DIGITS: tl.constexpr):
    chunk = tl.program_id(0)
    start, size, group = tl.load(chunks + 3 * chunk), tl.load(chunks + 3 * chunk + 1), tl.load(chunks + 3 * chunk + 2)
    at = tl.arange(0, CHUNK)
    key = tl.load(keys + start + at, mask=at < size, other=0)
    counts_here = at < size
    if SHIFT < 24:
        counts_here = counts_here & ((key >> (SHIFT + 8)) == tl.load(prefixes + group))
    digit = tl.where(counts_here, (key >> SHIFT) & (DIGITS - 1), DIGITS)
    here = tl.histogram(digit, 2 * DIGITS)
    bins = tl.arange(0, 2 * DIGITS)
    tl.atomic_add(counted + group * DIGITS + bins, here, mask=(bins < DIGITS) & (here > 0))


@triton.jit
def _choose_digit(counted, prefixes, wanted, DIGITS: tl.constexpr):
    group = tl.program_id(0)
    bins = tl.arange(0, DIGITS)
    here = tl.load(counted + group * DIGITS + bins)
    count = tl.load(wanted + group)
    digit = tl.sum((tl.cumsum(here, 0) < count).to(tl.int32))
    tl.store(wanted + group, count - tl.sum(tl.where(bins < digit, here, 0)))
    tl.store(prefixes + group, (tl.load(prefixes + group) << 8) | digit)
    tl.store(counted + group * DIGITS + bins, tl.zeros_like(here))


@triton.jit
def _count_ties(keys, rows, thresholds, ties, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    place, valid = _places(rows, row, BLOCK)
    key = tl.load(keys + place, mask=valid, other=-1)
    tied = key == tl.load(thresholds + tl.load(rows + 5 * row + 3))
    tl.store(ties + tl.load(rows + 5 * row + 4), tl.sum(tied.to(tl.int32)))


@triton.jit
def _drop_below(keys, uniform, alpha, rows, thresholds, wanted, before, dropped, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    place, valid = _places(rows, row, BLOCK)
    group, position = tl.load(rows + 5 * row + 3), tl.load(rows + 5 * row + 4)
    key = tl.load(keys + place, mask=valid, other=ABS)
    threshold = tl.load(thresholds + group)
    tied = (key == threshold) & valid
    rank = tl.load(before + position) + tl.cumsum(tied.to(tl.int32), 0)
    chosen = (key < threshold) | (tied & (rank <= tl.load(wanted + group)))
    chance = tl.load(uniform + place, mask=valid, other=1.0) < tl.load(alpha)
    tl.store(dropped + place, (chosen & chance).to(tl.int8), mask=valid)


@dataclass(frozen=True, kw_only=True)
class _Class:
    """Filters of similar size, which one launch handles.

    Attributes:
        block: lanes of a program, a power of two.
        rows: int32 (rows, 5): start, fan-in, kernel, group (what it is ranked in), place in the logical order of all filters.
    """

    block: int
    rows: Tensor

    @property
    def grid(self) -> tuple[int]:
        return (len(self.rows),)

    @property
    def warps(self) -> int:
        return min(8, max(1, self.block // 256))


class TritonSelection:
    """`tdcompress.train.fast.select.PortableSelection` on a GPU: same arguments, same result.

    Args:
        layout: of the vector.
        ranked: what is ranked together.
        device: of the vector.
    """

    def __init__(self, layout: VectorLayout, ranked: Ranked, device: torch.device) -> None:
        self._ranked = ranked
        rows = _row_table(layout, ranked)
        self._classes = [_Class(block=block, rows=torch.tensor(part, device=device)) for block, part in _by_block(rows).items()]
        size = layout.prunable_size
        self._dropped = torch.zeros(size, dtype=torch.int8, device=device)
        if ranked == "filter":
            return
        groups = 1 if ranked == "network" else len(layout.matrices)
        ends = [(0, size)] if ranked == "network" else [(piece.start, piece.stop) for piece in layout.matrices]
        chunks = [
            (start, min(CHUNK, stop - start), group)
            for group, (first, stop) in enumerate(ends)
            for start in range(first, stop, CHUNK)
        ]
        self._chunks = torch.tensor(chunks, dtype=torch.int32, device=device)
        self._keys = torch.zeros(size, dtype=torch.int32, device=device)
        self._counted = torch.zeros(groups * DIGITS, dtype=torch.int32, device=device)
        self._prefixes = torch.zeros(groups, dtype=torch.int32, device=device)
        self._ties = torch.zeros(len(rows), dtype=torch.int32, device=device)
        in_order = sorted(rows, key=lambda row: row[4])
        self._group_R = torch.tensor([row[3] for row in in_order], device=device)
        firsts = [next(row[4] for row in in_order if row[3] == group) for group in range(groups)]
        self._first_G = torch.tensor(firsts, device=device)

    def __call__(self, vector_P: Tensor, uniform_N: Tensor, counts_C: Tensor, alpha: Tensor) -> Tensor:  # noqa: D102
        if self._ranked == "filter":
            for part in self._classes:
                _drop_in_filters[part.grid](
                    vector_P, uniform_N, counts_C, alpha, part.rows, self._dropped, BLOCK=part.block, num_warps=part.warps
                )
            return self._dropped.view(torch.bool)
        for part in self._classes:
            _make_keys[part.grid](vector_P, part.rows, self._keys, BLOCK=part.block, num_warps=part.warps)
        wanted_G = self._find_thresholds(counts_C)
        for part in self._classes:
            _count_ties[part.grid](self._keys, part.rows, self._prefixes, self._ties, BLOCK=part.block, num_warps=part.warps)
        before_R = self._ties.cumsum(0, dtype=torch.int32) - self._ties
        before_R = before_R - before_R[self._first_G][self._group_R]
        for part in self._classes:
            _drop_below[part.grid](
                self._keys, uniform_N, alpha, part.rows, self._prefixes, wanted_G, before_R, self._dropped,
                BLOCK=part.block, num_warps=part.warps,
            )  # fmt: skip
        return self._dropped.view(torch.bool)

    def _find_thresholds(self, counts_G: Tensor) -> Tensor:
        """Put each group's k-th lowest key into ``_prefixes``; returns how many keys equal to it are wanted."""
        wanted_G = counts_G.clone()
        self._prefixes.zero_()
        for shift in (24, 16, 8, 0):
            _count_digits[(len(self._chunks),)](
                self._keys, self._chunks, self._prefixes, self._counted, SHIFT=shift, CHUNK=CHUNK, DIGITS=DIGITS
            )
            _choose_digit[(len(self._prefixes),)](self._counted, self._prefixes, wanted_G, DIGITS=DIGITS)
        return wanted_G


def _row_table(layout: VectorLayout, ranked: Ranked) -> list[tuple[int, int, int, int, int]]:
    """(start, fan-in, kernel, group, place in the logical order) of every filter."""
    order, place = {}, 0
    by_name = {piece.name: piece for piece in layout.matrices}
    for name in layout.prunable:
        order[name], place = place, place + by_name[name].rows
    run_of = {
        start: index
        for index, run in enumerate(layout.runs)
        for start in range(run.start, run.start + run.rows * run.fan_in, run.fan_in)
    }
    table = []
    for index, piece in enumerate(layout.matrices):
        for row in range(piece.rows):
            start = piece.start + row * piece.fan_in
            group = {"filter": run_of[start], "layer": index, "network": 0}[ranked]
            table.append((start, piece.fan_in, piece.kernel, group, order[piece.name] + row))
    return table


def _by_block(rows: list[tuple[int, int, int, int, int]]) -> dict[int, list[tuple[int, int, int, int, int]]]:
    """The rows by the power of two that holds them."""
    classes: dict[int, list[tuple[int, int, int, int, int]]] = {}
    for row in rows:
        classes.setdefault(max(SMALLEST_BLOCK, triton.next_power_of_2(row[1])), []).append(row)
    return classes
