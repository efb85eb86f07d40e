"""Steps to kernel calls, one function per kind of step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_int64
from types import MappingProxyType
from typing import Any

import numpy as np

from tdcompress.engine.binding import (
    BINARIES,
    LINEARS,
    MAX_DIMS,
    POOLS,
    REDUCTIONS,
    BinaryOp,
    BinaryRowsOp,
    CopyOp,
    FillOp,
    LinearOp,
    MapOp,
    MatMulOp,
    PermuteOp,
    PoolOp,
    ReduceOp,
    ReducePlanesOp,
    SoftmaxOp,
)
from tdcompress.engine.choose import choose_linear
from tdcompress.engine.layout import Layout, plain_layout
from tdcompress.engine.lower.conv import lower_conv
from tdcompress.engine.lower.rows import lower_lookup, lower_resample
from tdcompress.engine.lower.state import LayerRecord, Lowering, Place, act_structure
from tdcompress.engine.pool import MemoryPool
from tdcompress.engine.steps import (
    Affine,
    Binary,
    Concat,
    ConstantTensor,
    Conv,
    Floats,
    Linear,
    Lookup,
    MatMul,
    Pad,
    Permute,
    Pool,
    Reduce,
    Resample,
    Shape,
    Softmax,
    Step,
    Take,
    View,
)
from tdcompress.engine.tables import lane_table
from tdcompress.errors import UnsupportedError

_MANY_TOKENS = 4
"""From so many on, a dense layer's weights are laid out so that each serves several tokens."""


def _strides(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def _dims(step: Step, values: Sequence[int]) -> Any:
    if len(values) > MAX_DIMS:
        raise UnsupportedError(
            f"{step.name!r} works on {len(values)} axes; at most {MAX_DIMS} are handled: use the onnxruntime backend"
        )
    return (c_int64 * MAX_DIMS)(*values)


def _linear(state: Lowering, step: Linear) -> None:
    x, y = state.plain(step.x), state.output_plain(step.output)
    outputs, features = step.weight.shape
    kept = state.once(step.weight, "kept", lambda pool: int(np.count_nonzero(step.weight)))
    choice = choose_linear(weights=step.weight.size, zeros=step.weight.size - kept, outputs=outputs, lanes=state.isa.linear_lanes)
    state.records.append(
        LayerRecord(
            layer=step.name,
            op="linear",
            shape=step.weight.shape,
            weights=step.weight.size,
            zeros=step.weight.size - kept,
            kernel=choice.kernel,
            why=choice.why,
        )
    )
    tokens = math.prod(state.shape(step.x)[:-1])
    many = choice.kernel == "dense" and tokens >= _MANY_TOKENS
    kernel = "tokens" if many else choice.kernel
    fields = state.once(step.weight, kernel, lambda pool: _linear_tables(pool, step.weight, kernel))
    bias = state.pointer(step.bias)

    def fill() -> LinearOp:
        return LinearOp(
            input=x.tensor(),
            output=y.tensor(),
            tokens=tokens,
            features=features,
            outputs=outputs,
            bias=bias,
            act=act_structure(step.act),
            **fields,
        )

    state.call("linear", [x], [y], fill)


def _linear_tables(pool: MemoryPool, weight: Floats, kernel: str) -> dict[str, int | None]:
    """The fields of LinearOp that hold the weights."""
    fields: dict[str, int | None] = {"kind": LINEARS.index(kernel)}
    if kernel == "dense":
        fields["weights"] = pool.array(weight)
    elif kernel == "tokens":
        fields["weights"] = pool.array(weight.T)
    elif kernel == "lanes":
        weights, positions, steps = lane_table(weight)
        fields["weights"], fields["positions"], fields["step_counts"] = (
            pool.array(array) for array in (weights, positions, steps)
        )
    else:
        rows, columns = np.nonzero(weight)
        fields["weights"] = pool.array(weight[rows, columns])
        fields["row_starts"] = pool.array(np.searchsorted(rows, np.arange(len(weight) + 1)).astype(np.uint32))
        narrow = weight.shape[1] <= 1 << 16
        fields["columns16" if narrow else "columns32"] = pool.array(columns.astype(np.uint16 if narrow else np.uint32))
    return fields


def _by_channel(place: Place, shape: Shape) -> Place:
    """A place whose first axis is the channel, also for vectors."""
    return place if len(shape) > 1 else Place(buffer=place.buffer, layout=Layout(channels=shape[0], height=1, width=1, pitch=1))


def _affine(state: Lowering, step: Affine) -> None:
    x = state.rows(step.x)
    y = state.output_rows(step.output, like=x)
    scale, shift = state.pointer(step.scale), state.pointer(step.shift)
    shape = state.shape(step.output)
    source, target = (_by_channel(x, shape), _by_channel(y, shape)) if step.scale is not None and shape else (x, y)
    state.call(
        "map",
        [x],
        [y],
        lambda: MapOp(input=source.tensor(), output=target.tensor(), scale=scale, shift=shift, act=act_structure(step.act)),
    )


def _binary(state: Lowering, step: Binary) -> None:
    shape, code = state.shape(step.output), BINARIES.index(step.kind)
    if isinstance(step.a, str) and isinstance(step.b, str) and state.shape(step.a) == state.shape(step.b):
        a, b = state.rows(step.a), state.rows(step.b)
        y = state.output_rows(step.output, like=a)
        state.call(
            "binary_rows",
            [a, b],
            [y],
            lambda: BinaryRowsOp(a=a.tensor(), b=b.tensor(), output=y.tensor(), operation=code, act=act_structure(step.act)),
        )
        return
    full = shape or (1,)
    y = state.output_plain(step.output)
    places: dict[str, Place] = {}
    pointers: dict[str, int | None] = {"a": None, "b": None}
    strides: dict[str, Any] = {}
    for side, operand in (("a", step.a), ("b", step.b)):
        if isinstance(operand, str):
            own: tuple[int, ...] = state.shape(operand)
            places[side] = state.plain(operand)
        else:
            own = operand.shape
            pointers[side] = state.pointer(operand)
        own = (1,) * (len(full) - len(own)) + own
        strides[side] = _dims(step, [0 if size == 1 else stride for size, stride in zip(own, _strides(own), strict=True)])
    dims = _dims(step, full)

    def fill() -> BinaryOp:
        op = BinaryOp(output=y.tensor(), operation=code, ndim=len(full), dims=dims, act=act_structure(step.act))
        op.stride_a, op.stride_b = strides["a"], strides["b"]
        op.constant_a, op.constant_b = pointers["a"], pointers["b"]
        for side, place in places.items():
            setattr(op, side, place.tensor())
        return op

    state.call("binary", list(places.values()), [y], fill)


def _pool(state: Lowering, step: Pool) -> None:
    x, y = state.rows(step.x), state.output_rows(step.output)
    scratch = state.new(plain_layout((x.layout.width,)))

    def fill() -> PoolOp:
        return PoolOp(
            input=x.tensor(),
            output=y.tensor(),
            scratch=scratch.tensor(),
            kind=POOLS.index(step.kind),
            kernel_y=step.kernel[0],
            kernel_x=step.kernel[1],
            stride_y=step.strides[0],
            stride_x=step.strides[1],
            pad_top=step.pads[0],
            pad_left=step.pads[1],
            pad_bottom=step.pads[2],
            pad_right=step.pads[3],
            dilation_y=step.dilations[0],
            dilation_x=step.dilations[1],
        )

    state.call("pool", [x], [y, scratch], fill)


def _reduce(state: Lowering, step: Reduce) -> None:
    shape, kind = state.shape(step.x), REDUCTIONS.index(step.kind)
    if len(shape) == 3 and step.axes == (1, 2):
        x, y = state.rows(step.x), state.output_rows(step.output)
        state.call("reduce_planes", [x], [y], lambda: ReducePlanesOp(input=x.tensor(), output=y.tensor(), kind=kind))
        return
    x, y = state.plain(step.x), state.output_plain(step.output)
    order = [axis for axis in range(len(shape)) if axis not in step.axes] + list(step.axes)
    strides = _strides(shape)
    dims, steps = _dims(step, [shape[axis] for axis in order]), _dims(step, [strides[axis] for axis in order])
    kept = len(shape) - len(step.axes)
    state.call(
        "reduce",
        [x],
        [y],
        lambda: ReduceOp(input=x.tensor(), output=y.tensor(), kind=kind, kept=kept, ndim=len(shape), dims=dims, strides=steps),
    )


def _softmax(state: Lowering, step: Softmax) -> None:
    x, y, shape = state.plain(step.x), state.output_plain(step.output), state.shape(step.x)
    outer, inner = math.prod(shape[: step.axis]), math.prod(shape[step.axis + 1 :])
    state.call(
        "softmax",
        [x],
        [y],
        lambda: SoftmaxOp(
            input=x.tensor(), output=y.tensor(), outer=outer, size=shape[step.axis], inner=inner, logarithm=int(step.logarithm)
        ),
    )


def _strided(
    state: Lowering,
    step: Step,
    x: Place,
    y: Place,
    dims: Sequence[int],
    *,
    start: tuple[int, int],
    strides: tuple[Sequence[int], Sequence[int]],
) -> None:
    """A strided copy; start and strides: of the input, of the output."""
    walk = [(1, 1, 1)]  # size and both strides, axes that are one walk in input and output joined
    for size, step_in, step_out in zip(dims, *strides, strict=True):
        last, last_in, last_out = walk[-1]
        if last == 1:
            walk[-1] = (size, step_in, step_out)
        elif (last_in, last_out) == (size * step_in, size * step_out):
            walk[-1] = (last * size, step_in, step_out)
        elif size > 1:
            walk.append((size, step_in, step_out))
    dims = [size for size, *_ in walk]
    sizes, stride_in, stride_out = _dims(step, dims), *(_dims(step, [axis[i] for axis in walk]) for i in (1, 2))

    def fill() -> PermuteOp:
        return PermuteOp(
            input=x.tensor(),
            output=y.tensor(),
            input_start=start[0],
            output_start=start[1],
            ndim=len(dims),
            dims=sizes,
            stride_in=stride_in,
            stride_out=stride_out,
        )

    state.call("permute", [x], [y], fill)


def _permute(state: Lowering, step: Permute) -> None:
    x, y = state.plain(step.x), state.output_plain(step.output)
    strides, out = _strides(state.shape(step.x)), state.shape(step.output)
    _strided(state, step, x, y, out, start=(0, 0), strides=([strides[axis] for axis in step.order], _strides(out)))


def _take(state: Lowering, step: Take) -> None:
    x, y = state.plain(step.x), state.output_plain(step.output)
    strides, out = _strides(state.shape(step.x)), state.shape(step.output)
    start = sum(part.start * stride for part, stride in zip(step.slices, strides, strict=True))
    steps = [part.step * stride for part, stride in zip(step.slices, strides, strict=True)]
    _strided(state, step, x, y, out, start=(start, 0), strides=(steps, _strides(out)))


def _pad(state: Lowering, step: Pad) -> None:
    x, y, shape = state.plain(step.x), state.output_plain(step.output), state.shape(step.x)
    strides = _strides(state.shape(step.output))
    state.call("fill", [], [y], lambda: FillOp(output=y.tensor(), value=step.value))
    start = sum(before * stride for before, stride in zip(step.before, strides, strict=True))
    _strided(state, step, x, y, shape, start=(0, start), strides=(_strides(shape), strides))


def _concat(state: Lowering, step: Concat) -> None:
    shape = state.shape(step.output)
    if step.axis == 0 and len(shape) == 3:
        y = state.output_rows(step.output, like=state.rows(step.parts[0]))
        first = 0
        for name in step.parts:
            _concat_channels(state, state.rows(name), y, first)
            first += state.shape(name)[0]
        return
    y = state.output_plain(step.output)
    strides, start = _strides(shape), 0
    for name in step.parts:
        own = state.shape(name)
        _strided(state, step, state.plain(name), y, own, start=(0, start), strides=(_strides(own), strides))
        start += own[step.axis] * strides[step.axis]


def _concat_channels(state: Lowering, x: Place, y: Place, first: int) -> None:
    def fill() -> CopyOp:
        output = y.tensor()
        output.offset += first * output.plane_stride
        output.channels = x.layout.channels
        return CopyOp(input=x.tensor(), output=output)

    state.call("copy", [x], [y], fill)


def _constant(state: Lowering, step: ConstantTensor) -> None:
    state.constant(step)


def _view(state: Lowering, step: View) -> None:
    place = state.plain(step.x)
    state.homes[step.output] = Place(buffer=place.buffer, layout=plain_layout(state.shape(step.output)))


def _matmul(state: Lowering, step: MatMul) -> None:
    a, b, y = state.plain(step.a), state.plain(step.b), state.output_plain(step.output)
    shape_a, shape_b = state.shape(step.a), state.shape(step.b)
    rows, inner, columns = shape_a[-2], shape_a[-1], shape_b[-1]
    state.call(
        "matmul",
        [a, b],
        [y],
        lambda: MatMulOp(
            a=a.tensor(),
            b=b.tensor(),
            output=y.tensor(),
            batch=math.prod(shape_a[:-2]),
            rows=rows,
            inner=inner,
            columns=columns,
            stride_a=rows * inner,
            stride_b=inner * columns,
        ),
    )


LOWERINGS: Mapping[type[Step], Callable[[Lowering, Any], None]] = MappingProxyType(
    {
        Affine: _affine,
        Binary: _binary,
        Concat: _concat,
        ConstantTensor: _constant,
        Conv: lower_conv,
        Linear: _linear,
        Lookup: lower_lookup,
        MatMul: _matmul,
        Pad: _pad,
        Permute: _permute,
        Pool: _pool,
        Reduce: _reduce,
        Resample: lower_resample,
        Softmax: _softmax,
        Take: _take,
        View: _view,
    }
)
"""What turns each kind of step into calls."""
