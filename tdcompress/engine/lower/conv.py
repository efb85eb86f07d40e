"""Convolutions to kernel calls: the grid, the inputs on it, sparse or dense, the tables, the fused ending."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import numpy as np

from tdcompress.engine.binding import LANES, ConvOp, Epilogue, TapGroup
from tdcompress.engine.choose import ConvBlock, KernelChoice, choose_conv, conv_cost
from tdcompress.engine.layout import Layout, planes
from tdcompress.engine.lower.state import LayerRecord, Lowering, Place, act_structure
from tdcompress.engine.steps import NO_ACTIVATION, Conv, ConvSource, Network, Shape
from tdcompress.engine.tables import PlacedSource, Taps, dense_table, make_taps, row_range, sparse_table


def _phase_shape(source: ConvSource, shape: Shape) -> Shape:
    channels, height, width = shape
    stride_y, stride_x = source.strides
    return channels * stride_y * stride_x, -(-height // stride_y), -(-width // stride_x)


def grids(step: Conv, shapes: Mapping[str, Shape]) -> tuple[Layout, tuple[Layout, ...]]:
    """The output's layout (without halo) and, per source, the layout in which its input (after the split into phases) is read."""
    out = shapes[step.output]
    inputs = [_phase_shape(source, shapes[source.x]) for source in step.sources]
    height, width = max(out[1], *(shape[1] for shape in inputs)), max(out[2], *(shape[2] for shape in inputs))
    grid = planes((out[0], out[1], out[2]), grid_height=height, grid_width=width)
    wanted = []
    for source, shape in zip(step.sources, inputs, strict=True):
        layout = planes((shape[0], shape[1], shape[2]), grid_height=height, grid_width=width)
        lowest, highest = row_range(source.weight.shape[2], source.strides[0], source.pads[0], source.dilations[0])
        # Taps that never touch the image are dropped from the tables, so a halo need not be deeper than the plane.
        top = min(max(0, -lowest), out[1])
        if layout.segments == 1:
            bottom = min(max(0, out[1] - 1 + highest - (shape[1] - 1)), out[1])
        else:
            bottom = min(max(0, highest), shape[1])
        wanted.append(layout.with_halo(top, bottom))
    return grid, tuple(wanted)


def wanted_layouts(network: Network) -> dict[str, list[Layout]]:
    """Per tensor, the layouts in which convolutions of stride 1 read it."""
    wanted: dict[str, list[Layout]] = {}
    for step in network.steps:
        if isinstance(step, Conv):
            for source, layout in zip(step.sources, grids(step, network.shapes)[1], strict=True):
                if source.strides == (1, 1):
                    wanted.setdefault(source.x, []).append(layout)
    return wanted


def _sparse_block(step: Conv, grid: Layout, most: int) -> ConvBlock:
    """The blocks in which the sparse kernel would work on a convolution.

    Args:
        step: the convolution.
        grid: the output's layout.
        most: vectors of a block, as the instruction set has it.
    """
    vectors = min(most, grid.rows * grid.row_vectors)
    read = 0
    for source in step.sources:
        inner, kernel = source.weight.shape[1], source.weight.shape[2:]
        lowest, highest = row_range(kernel[0], source.strides[0], source.pads[0], source.dilations[0])
        phases = min(kernel[0], source.strides[0]) * min(kernel[1], source.strides[1])
        read += inner * phases * (vectors + min(highest - lowest, grid.rows) * grid.row_vectors)
    return ConvBlock(vectors=vectors, most=most, row_bytes=4 * LANES * read)


def _choose(step: Conv, state: Lowering, grid: Layout) -> KernelChoice:
    weights = sum(source.weight.size for source in step.sources)
    zeros = weights - sum(int(np.count_nonzero(source.weight)) for source in step.sources)
    groups = step.sources[0].groups
    choice = choose_conv(
        weights=weights,
        zeros=zeros,
        filters=len(step.bias),
        groups=groups,
        filter_block=state.isa.dense_filters,
        cost=conv_cost(state.isa.name, _sparse_block(step, grid, state.isa.max_block)),
    )
    for index, source in enumerate(step.sources):
        kept = int(np.count_nonzero(source.weight))
        state.records.append(
            LayerRecord(
                layer=step.name if index == 0 else f"{step.name} (joined shortcut)",
                op="conv",
                shape=source.weight.shape,
                weights=source.weight.size,
                zeros=source.weight.size - kept,
                kernel=choice.kernel,
                why=choice.why,
            )
        )
    return choice


def _output(state: Lowering, name: str, grid: Layout, over: Place | None = None) -> Place:
    """The home of a convolution's output: its grid, with the halos that its readers on the same grid want.

    over: memory of which nobody needs an element any more once it was read. It is taken if it has the same layout, which keeps
    the arena small: memory outside the cache costs more than the arithmetic of a sparse layer.
    """
    layout = grid
    for wanted in state.wanted.get(name, ()):
        if wanted.same_grid(grid):
            layout = layout.with_halo(wanted.halo_top, wanted.halo_bottom)
    state.homes[name] = over if over is not None and over.layout == layout == over.buffer.layout else state.new(layout)
    return state.homes[name]


def _reusable(state: Lowering, step: Conv, inputs: list[Place], residual: Place | None) -> Place | None:
    """The residual's memory, if the convolution itself does not read it and is its last reader."""
    if residual is None or any(place.buffer is residual.buffer for place in inputs):
        return None
    return residual if state.dies_with(residual, step) else None


def _groups(state: Lowering, taps: Taps) -> object:
    array = (TapGroup * max(1, len(taps.groups)))()
    for structure, group in zip(array, taps.groups, strict=False):
        structure.shift = group.shift
        structure.bits, structure.lanes = state.pointer(group.bits), state.pointer(group.lanes)
    return ctypes.cast(state.pool.array(np.frombuffer(bytes(array), np.uint8)), ctypes.POINTER(TapGroup))


def lower_conv(state: Lowering, step: Conv) -> None:
    """Append the calls of one convolution step."""
    grid, wanted = grids(step, state.network.shapes)
    inputs = [
        state.grid(source.x, layout) if source.strides == (1, 1) else state.phases(source.x, source.strides, layout)
        for source, layout in zip(step.sources, wanted, strict=True)
    ]
    residual = state.grid(step.residual, grid) if step.residual else None
    choice = _choose(step, state, grid)
    output = _output(state, step.output, grid, _reusable(state, step, inputs, residual)) if step.keep_output else None
    second = _output(state, step.second.output, grid) if step.second else None

    def fill() -> ConvOp:
        epilogue = Epilogue(bias=state.pointer(step.bias), act=act_structure(step.act))
        if step.second:
            epilogue.scale2, epilogue.shift2 = state.pointer(step.second.scale), state.pointer(step.second.shift)
        epilogue.act2 = act_structure(step.second.act if step.second else NO_ACTIVATION)
        for name, place in (("residual", residual), ("output", output), ("output2", second)):
            if place is not None:
                setattr(epilogue, name, place.tensor())
                setattr(epilogue, f"has_{name}", 1)
        op = ConvOp(input=inputs[0].tensor(), epilogue=epilogue, filters=len(step.bias), row_vectors=grid.row_vectors)
        op.vectors = grid.rows * grid.row_vectors
        _fill_tables(state, step, op, inputs, grid, choice)
        return op

    writes = [place for place in (output, second) if place is not None]
    reads = [*inputs, *([residual] if residual else [])]
    state.call(f"conv_{choice.kernel}", reads, writes, fill)


def _fill_tables(state: Lowering, step: Conv, op: ConvOp, inputs: list[Place], grid: Layout, choice: KernelChoice) -> None:
    origin = inputs[0].buffer.start + inputs[0].layout.first
    sources = [
        PlacedSource(
            weight=source.weight,
            layout=place.layout,
            start=place.buffer.start + place.layout.first - origin,
            strides=source.strides,
            pads=source.pads,
            dilations=source.dilations,
            groups=source.groups,
        )
        for source, place in zip(step.sources, inputs, strict=True)
    ]
    taps = make_taps(sources, grid, shifted=choice.kernel == "sparse", max_block=state.isa.max_block)
    first = sources[0]
    filters, inner = first.weight.shape[:2]
    planes_per_group = inner * first.strides[0] * first.strides[1]
    group = np.arange(filters) // (filters // first.groups)
    channel_offsets = 4 * group * planes_per_group * first.layout.plane_stride
    op.group_count, op.groups = max(1, len(taps.groups)), _groups(state, taps)
    if choice.kernel == "sparse":
        pairs, rows = sparse_table(taps, channel_offsets)
        op.rows, op.pairs = state.pointer(rows), state.pointer(pairs)
        return
    block = state.isa.dense_filters
    offsets, group_counts, weights = dense_table(taps, channel_offsets, sets=first.groups, block=block)
    op.offsets, op.group_counts, op.weights = state.pointer(offsets), state.pointer(group_counts), state.pointer(weights)
    op.taps, op.sets, op.filters_per_set = taps.weight.shape[1], first.groups, filters // first.groups
    op.blocks_per_set = -(-op.filters_per_set // block)
