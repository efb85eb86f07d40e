"""The tables that the convolution kernels walk: which input rows a filter reads, and with which weight.

A tap is one weight position (source, channel, row dy, column dx). Taps with the same dx form a group. On a grid whose
rows fill whole blocks the kernel loads aligned vectors and shifts a group's sums by dx once; on wider rows the
displacement goes into the load address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tdcompress.engine.binding import LANES
from tdcompress.engine.layout import Layout
from tdcompress.engine.read import Array
from tdcompress.engine.steps import Floats

PAIR = np.dtype([("offset", np.int32, 2), ("weight", np.float32, 2)])
_LARGEST_BLOCK = 16


@dataclass(frozen=True, kw_only=True)
class PlacedSource:
    """A source with its place: `layout` after the split into phases, `start` in elements from the first source's input.

    weight: (O, I / groups, kernel_y, kernel_x).
    """

    weight: Floats
    layout: Layout
    start: int
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    groups: int


@dataclass(frozen=True, kw_only=True)
class Displacement:
    """One displacement: lanes to shift; masks per vector of a row, None if nothing is cleared.

    bits: uint16 (vectors,), a bit per lane; lanes: int32 (vectors, LANES), all bits set or none.
    """

    shift: int
    bits: Array | None
    lanes: Array | None


@dataclass(frozen=True, kw_only=True)
class Taps:
    """All T taps of a convolution, sorted by group, then by address.

    group_of: (T,), the index in `groups`; offset: (T,) in bytes; weight: (O, T), zero where a filter does not have the tap.
    """

    groups: tuple[Displacement, ...]
    group_of: Array
    offset: Array
    weight: Floats


def phase_of(position: int, stride: int) -> tuple[int, int]:
    """An input coordinate (at output 0) as (phase, coordinate inside the phase): position = stride * inside + phase."""
    inside, phase = divmod(position, stride)
    return phase, inside


def row_range(kernel: int, stride: int, pad: int, dilation: int) -> tuple[int, int]:
    """The smallest and largest displacement dy inside the phases.

    Args:
        kernel: its rows.
        stride: in rows.
        pad: rows above the image.
        dilation: in rows.
    """
    steps = [phase_of(k * dilation - pad, stride)[1] for k in (0, *range(kernel))]
    return min(steps), max(steps)


def _masks(grid: Layout, dx: int, width: int, out_width: int) -> tuple[Array, Array] | None:
    """Which lanes of each vector of a row read a column inside [0, width); repeated, so that a block may start at any vector."""
    vectors = grid.row_vectors
    column = (np.arange(vectors * LANES) % grid.pitch) + dx
    valid = (column >= 0) & (column < width)
    if valid[np.arange(vectors * LANES) % grid.pitch < out_width].all():
        return None
    repeats = -(-(vectors + _LARGEST_BLOCK) // vectors)
    per_vector = np.tile(valid.reshape(vectors, LANES), (repeats, 1))
    bits = (per_vector.astype(np.uint32) << np.arange(LANES, dtype=np.uint32)).sum(axis=1).astype(np.uint16)
    return np.ascontiguousarray(bits), np.ascontiguousarray(np.where(per_vector, np.int32(-1), np.int32(0)))


def make_taps(sources: Sequence[PlacedSource], grid: Layout, *, shifted: bool, max_block: int) -> Taps:
    """Every tap that can touch the image.

    Args:
        sources: ungrouped, or one of them; the weight (O, I / groups, ky, kx) is taken as if `groups` were 1.
        grid: the output's layout.
        shifted: shift lanes after aligned loads where the grid allows it; else displaced loads.
        max_block: vectors in the kernel's largest block.
    """
    shifted = shifted and grid.row_vectors <= max_block and max_block % grid.row_vectors == 0
    found: dict[tuple[int, int], list[tuple[int, Floats]]] = {}
    for source in sources:
        layout, (stride_y, stride_x) = source.layout, source.strides
        for ky in range(source.weight.shape[2]):
            phase_y, dy = phase_of(ky * source.dilations[0] - source.pads[0], stride_y)
            if not -grid.height < dy < layout.height:
                continue
            for kx in range(source.weight.shape[3]):
                phase_x, dx = phase_of(kx * source.dilations[1] - source.pads[1], stride_x)
                if not -grid.width < dx < layout.width:
                    continue
                aligned = shifted and abs(dx) < LANES
                step = source.start + dy * layout.row_stride + (0 if aligned else dx)
                column = found.setdefault((dx, layout.width), [])
                for channel in range(source.weight.shape[1]):
                    plane = (channel * stride_y + phase_y) * stride_x + phase_x
                    column.append((4 * (step + plane * layout.plane_stride), source.weight[:, channel, ky, kx]))
    groups: list[Displacement] = []
    group_of: list[int] = []
    offsets: list[int] = []
    columns: list[Floats] = []
    # The group without displacement comes last: its taps are added straight to the total.
    for (dx, width), taps in sorted(found.items(), key=lambda item: (item[0][0] == 0, item[0])):
        shift = dx if shifted and abs(dx) < LANES else 0
        masks = _masks(grid, dx, width, grid.width)
        if masks is None and shift != 0:
            everything = np.full((grid.row_vectors + _LARGEST_BLOCK, LANES), -1, np.int32)
            masks = np.full(len(everything), 0xFFFF, np.uint16), everything
        bits, lanes = masks if masks is not None else (None, None)
        taps.sort(key=lambda tap: tap[0])
        group_of.extend([len(groups)] * len(taps))
        offsets.extend(offset for offset, _ in taps)
        columns.extend(weights for _, weights in taps)
        groups.append(Displacement(shift=shift, bits=bits, lanes=lanes))
    filters = sources[0].weight.shape[0]
    weight = np.stack(columns, axis=1) if columns else np.zeros((filters, 0), np.float32)
    return Taps(groups=tuple(groups), group_of=np.array(group_of, np.int64), offset=np.array(offsets, np.int64), weight=weight)


def sparse_table(taps: Taps, channel_offsets: Array) -> tuple[Array, Array]:
    """(pairs, rows) of the sparse kernel: per filter and group, the taps whose weight is not zero.

    rows: (O, 1 + groups), the filter's number, then its kept weights in each group. Filters come in the order of these
    counts, so that one loop after the other has the same length and the processor foresees its end.

    Args:
        taps: of all filters.
        channel_offsets: (O,) bytes added to each filter's addresses: where its convolution group's channels start.
    """
    group_count = max(1, len(taps.groups))
    of_group = np.array([np.count_nonzero(taps.weight[:, taps.group_of == group], axis=1) for group in range(group_count)])
    order = np.lexsort(of_group[::-1])
    counts = of_group[:, order].T.reshape(-1)
    rank_of, positions = np.nonzero(taps.weight[order])
    filters = order[rank_of]
    cell = rank_of * group_count + taps.group_of[positions]
    # Every cell starts a new pair: the slot of a tap is its cell's start plus its rank inside the cell.
    starts = np.concatenate(([0], np.cumsum(counts + counts % 2)))
    ranks = np.arange(len(cell)) - np.concatenate(([0], np.cumsum(counts)))[cell]
    slots = starts[cell] + ranks
    offset, weight = np.zeros(starts[-1], np.int32), np.zeros(starts[-1], np.float32)
    offset[slots] = taps.offset[positions] + channel_offsets[filters]
    weight[slots] = taps.weight[filters, positions]
    pairs = np.empty(starts[-1] // 2, PAIR)
    pairs["offset"], pairs["weight"] = offset.reshape(-1, 2), weight.reshape(-1, 2)
    return pairs, np.column_stack((order, counts.reshape(-1, group_count))).astype(np.uint32)


def lane_table(weight: Floats) -> tuple[Floats, Array, Array]:
    """(weights, positions, step_counts) of the fully connected kernel that keeps 16 outputs in its lanes.

    Outputs go in blocks of 16, features in blocks of 32. Per pair of blocks, as many steps as the fullest output has
    weights; a step is one weight and one position (0..31) per lane, zero where a lane has no weight left.
    """
    outputs, features = weight.shape
    tall, wide = -(-outputs // LANES), -(-features // (2 * LANES))
    padded = np.zeros((tall * LANES, wide * 2 * LANES), np.float32)
    padded[:outputs, :features] = weight
    cells = padded.reshape(tall, LANES, wide, 2 * LANES).transpose(0, 2, 1, 3)  # (tall, wide, lane, position)
    kept = cells != 0
    step_counts = kept.sum(axis=3).max(axis=2)
    starts = np.concatenate(([0], np.cumsum(step_counts.reshape(-1))))
    ranks = np.cumsum(kept, axis=3) - 1
    row, column, lane, position = np.nonzero(kept)
    step = starts[row * wide + column] + ranks[row, column, lane, position]
    weights, positions = np.zeros((starts[-1], LANES), np.float32), np.zeros((starts[-1], LANES), np.uint8)
    weights[step, lane] = cells[row, column, lane, position]
    positions[step, lane] = position
    return weights, positions, step_counts.reshape(-1).astype(np.uint8)


def dense_table(taps: Taps, channel_offsets: Array, *, sets: int, block: int) -> tuple[Array, Array, Array]:
    """(offsets, group_counts, weights) of the dense kernel; weights: (sets, blocks, taps, block), filters padded with zeros.

    Args:
        taps: all taps of the convolution, (O, T).
        channel_offsets: (O,) bytes added to each filter's addresses: where its convolution group's channels start.
        sets: groups of the convolution.
        block: filters at a time.
    """
    filters, count = taps.weight.shape
    per_set = filters // sets
    blocks = -(-per_set // block)
    offsets = (taps.offset[None, :] + channel_offsets[::per_set][:sets, None]).astype(np.int32)
    group_counts = np.tile(np.bincount(taps.group_of, minlength=max(1, len(taps.groups))).astype(np.uint32), (sets, 1))
    padded = np.zeros((sets, blocks * block, count), np.float32)
    padded[:, :per_set] = taps.weight.reshape(sets, per_set, count)
    weights = padded.reshape(sets, blocks, block, count).transpose(0, 1, 3, 2)
    return np.ascontiguousarray(offsets), np.ascontiguousarray(group_counts), np.ascontiguousarray(weights)
