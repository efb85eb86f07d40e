"""Convolutions, fully connected layers, normalisation, pooling, softmax."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from tdcompress.engine.read import Node
from tdcompress.engine.steps import (
    NO_ACTIVATION,
    Activation,
    Affine,
    Binary,
    Conv,
    ConvSource,
    Floats,
    Linear,
    MatMul,
    Pool,
    Reduce,
    Shape,
    Softmax,
    View,
)
from tdcompress.engine.translate.state import FIRST, NodeTranslator, Translation
from tdcompress.errors import ModelError, UnsupportedError

_LARGEST_WINDOW = 1 << 20


def _numbers(node: Node, name: str, default: Sequence[int]) -> list[int]:
    values = [int(value) for value in node.attributes.get(name, default)]
    if len(values) != len(default):
        raise ModelError(f"{node.label}: {name} has {len(values)} numbers where {len(default)} are needed")
    if any(not 0 <= value <= _LARGEST_WINDOW for value in values) or (name != "pads" and 0 in values):
        raise UnsupportedError(f"{node.label}: {name} = {values} is not handled; use the onnxruntime backend")
    return values


def _window(node: Node, size: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, dilations, pads (all starts, then all ends) and output size of a window over `size`."""
    rank = len(size)
    strides, dilations = _numbers(node, "strides", [1] * rank), _numbers(node, "dilations", [1] * rank)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    mode = node.attributes.get("auto_pad", b"NOTSET")
    if mode in (b"SAME_UPPER", b"SAME_LOWER"):
        total = [max(0, (-(-n // s) - 1) * s + e - n) for n, s, e in zip(size, strides, extent, strict=True)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = [*small, *large] if mode == b"SAME_UPPER" else [*large, *small]
    elif mode == b"VALID":
        pads = [0] * (2 * rank)
    else:
        pads = _numbers(node, "pads", [0] * (2 * rank))
    out = []
    for i in range(rank):
        free = size[i] + pads[i] + pads[rank + i] - extent[i]
        if free < 0:
            raise ModelError(
                f"{node.label}: a window of {extent[i]} over an axis of {size[i]} (padding {pads[i]} + {pads[rank + i]})"
            )
        steps = free // strides[i]
        if node.attributes.get("ceil_mode", 0):
            steps = -(-free // strides[i])
            if steps * strides[i] >= size[i] + pads[i]:  # a window may not start in the padding behind the image
                steps -= 1
        out.append(steps + 1)
    return strides, dilations, pads, out


def _planes(state: Translation, node: Node) -> tuple[str, tuple[int, int, int], bool]:
    """The input as (C, H, W); a 1-D signal becomes one row."""
    shape = state.shape(node, 0)
    if len(shape) == 3:
        return node.inputs[0], (shape[0], shape[1], shape[2]), False
    if len(shape) != 2:
        raise UnsupportedError(
            f"{node.label}: an input of rank {len(shape) + 1}; one and two spatial axes are handled: use the onnxruntime backend"
        )
    rows = state.own_name(node, "rows")
    state.add(View(name=node.name, output=rows, x=node.inputs[0]), (shape[0], 1, shape[1]))
    return rows, (shape[0], 1, shape[1]), True


def _conv(state: Translation, node: Node) -> None:
    x, (channels, height, width), flat = _planes(state, node)
    weight = state.floats(node, 1)
    if weight.ndim != (3 if flat else 4):
        raise ModelError(f"{node.label}: weights of rank {weight.ndim} for an input of rank {3 if flat else 4}")
    if flat:
        weight = weight[:, :, None, :]
    groups = int(node.attributes.get("group", 1))
    filters, inner = weight.shape[:2]
    if groups < 1 or inner * groups != channels or filters % groups or 0 in weight.shape:
        raise ModelError(
            f"{node.label}: weights {list(weight.shape)} and {groups} groups do not fit an input of {channels} channels"
        )
    kernel = list(weight.shape[2:])
    if "kernel_shape" in node.attributes and list(node.attributes["kernel_shape"]) != kernel[-1 if flat else 0 :]:
        raise ModelError(f"{node.label}: kernel_shape {list(node.attributes['kernel_shape'])} with weights {list(weight.shape)}")
    strides, dilations, pads, out = _window(node, [width] if flat else [height, width], kernel[1:] if flat else kernel)
    if flat:
        strides, dilations, pads, out = [1, *strides], [1, *dilations], [0, pads[0], 0, pads[1]], [1, *out]
    bias = state.constant(node, 2)
    source = ConvSource(
        x=x,
        weight=weight,
        strides=(strides[0], strides[1]),
        pads=(pads[0], pads[1], pads[2], pads[3]),
        dilations=(dilations[0], dilations[1]),
        groups=groups,
    )
    target = state.own_name(node, "out") if flat else node.outputs[0]
    state.add(
        Conv(name=node.name, output=target, sources=(source,), bias=_vector(node, bias, filters)),
        (filters, *out),
    )
    if flat:
        state.add(View(name=node.name, output=node.outputs[0], x=target), (filters, out[1]))


def _vector(node: Node, array: np.ndarray | None, size: int) -> Floats:
    if array is None:
        return np.zeros(size, np.float32)
    flat = np.asarray(array, np.float32)
    if flat.size == 1:
        return np.full(size, flat.reshape(())[()], np.float32)
    if flat.size != size or flat.shape[-1] != size:
        raise UnsupportedError(
            f"{node.label}: a bias of shape {list(flat.shape)} for {size} outputs; use the onnxruntime backend"
        )
    return np.ascontiguousarray(flat.reshape(size))


def _gemm(state: Translation, node: Node) -> None:
    if node.attributes.get("transA", 0):
        raise UnsupportedError(f"{node.label}: transA works across the batch axis; use the onnxruntime backend")
    shape, weight = state.shape(node, 0), state.floats(node, 1)
    if weight.ndim != 2 or len(shape) != 1:
        raise ModelError(f"{node.label}: weights of rank {weight.ndim} for an input of rank {len(shape) + 1}")
    if not node.attributes.get("transB", 0):
        weight = state.transposed(node, 1)
    if weight.shape[1] != shape[0] or 0 in weight.shape:
        raise ModelError(f"{node.label}: {weight.shape[1]} columns of weights for {shape[0]} features")
    alpha, beta = np.float32(node.attributes.get("alpha", 1.0)), np.float32(node.attributes.get("beta", 1.0))
    if alpha != 1:
        weight = weight * alpha
    bias = _vector(node, state.constant(node, 2), weight.shape[0]) * beta
    state.add(Linear(name=node.name, output=node.outputs[0], x=node.inputs[0], weight=weight, bias=bias), (weight.shape[0],))


def _linear(state: Translation, node: Node, computed: int) -> None:
    """A product with one constant matrix, (N, K) of each image's last axis; the batch stays where it is."""
    x, shape = node.inputs[computed], state.shape(node, computed)
    weight = state.floats(node, 0) if computed else state.transposed(node, 1)
    if not shape or weight.shape[1] != shape[-1] or 0 in weight.shape:
        raise ModelError(f"{node.label}: weights {list(weight.shape)} for {list(shape)} per image")
    step = Linear(name=node.name, output=node.outputs[0], x=x, weight=weight, bias=np.zeros(len(weight), np.float32))
    state.add(step, (*shape[:-1], len(weight)))
    state.places[node.outputs[0]] = state.place(x)


def _matmul(state: Translation, node: Node) -> None:
    """With a constant matrix on the right, or on the left where the batch is the last axis; or of two computed tensors."""
    constant = next((i for i in range(2) if state.is_constant(node, i)), None)
    computed = 1 if constant == 0 else 0
    place, rank = state.place(node.inputs[computed]), len(state.full_shape(node, computed))
    if constant is not None and state.floats(node, constant).ndim == 2:
        behind = place.axis == rank - 1
        if behind == (constant == 0) and not (behind and place.joined):
            _linear(state, node, computed)
            return
    places = {state.place(name) for name in node.inputs if name not in state.constants}
    if places != {FIRST} and (constant is not None or len(places) > 1 or place.axis > rank - 3):
        raise UnsupportedError(f"{node.label} works across the batch axis; use the onnxruntime backend")
    shapes = [
        _shape_of_operand(state, node, i, state.shape(node, 1 - i)) if i == constant else state.shape(node, i) for i in range(2)
    ]
    a, b = shapes
    if len(a) < 2 or len(a) != len(b) or a[:-2] != b[:-2]:
        raise UnsupportedError(f"{node.label}: operands of {list(a)} and {list(b)} per image; use the onnxruntime backend")
    if a[-1] != b[-2]:
        raise ModelError(f"{node.label}: {a[-1]} columns times {b[-2]} rows")
    names = [state.tensor(node, i, shapes[i]) for i in range(2)]
    state.add(MatMul(name=node.name, output=node.outputs[0], a=names[0], b=names[1]), (*a[:-1], b[-1]))
    state.places[node.outputs[0]] = place


def _shape_of_operand(state: Translation, node: Node, index: int, other: Shape) -> Shape:
    """Of a constant operand of MatMul, per image: its matrices, repeated for the leading axes of the `other` operand."""
    shape = state.floats(node, index).shape
    if len(shape) < 2 or len(other) < 2 or (len(shape) > len(other) and shape[0] != 1) or len(shape) > len(other) + 1:
        raise UnsupportedError(f"{node.label}: a constant of shape {list(shape)}; use the onnxruntime backend")
    leading = shape[-len(other) : -2] if len(shape) > len(other) else shape[:-2]
    return (*np.broadcast_shapes(other[:-2], leading), *shape[-2:])


def _batch_norm(state: Translation, node: Node) -> None:
    shape = state.shape(node, 0)
    if node.attributes.get("training_mode", 0):
        raise UnsupportedError(f"{node.label}: training_mode; export the model in evaluation mode")
    scale, shift, mean, variance = (np.asarray(state.floats(node, i), np.float64) for i in range(1, 5))
    if not scale.shape == shift.shape == mean.shape == variance.shape == shape[:1]:
        raise ModelError(f"{node.label}: parameters of {list(scale.shape)} for {shape[0]} channels")
    factor = scale / np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
    state.add(
        Affine(
            name=node.name,
            output=node.outputs[0],
            x=node.inputs[0],
            scale=factor.astype(np.float32),
            shift=(shift - mean * factor).astype(np.float32),
        ),
        shape,
    )


def _pool(state: Translation, node: Node) -> None:
    x, (channels, height, width), flat = _planes(state, node)
    size = [width] if flat else [height, width]
    kernel = _numbers(node, "kernel_shape", [0] * len(size))
    strides, dilations, pads, out = _window(node, size, kernel)
    if flat:
        kernel, strides, dilations, pads, out = [1, *kernel], [1, *strides], [1, *dilations], [0, pads[0], 0, pads[1]], [1, *out]
    if any(pads[i] >= (kernel[i % 2] - 1) * dilations[i % 2] + 1 for i in range(4)):
        raise ModelError(f"{node.label}: padding {pads} is not smaller than the window")
    kind = "max" if node.op == "MaxPool" else "average_padded" if node.attributes.get("count_include_pad", 0) else "average"
    target = state.own_name(node, "pooled") if flat else node.outputs[0]
    state.add(
        Pool(
            name=node.name,
            output=target,
            x=x,
            kind=kind,
            kernel=(kernel[0], kernel[1]),
            strides=(strides[0], strides[1]),
            pads=(pads[0], pads[1], pads[2], pads[3]),
            dilations=(dilations[0], dilations[1]),
        ),
        (channels, *out),
    )
    if flat:
        state.add(View(name=node.name, output=node.outputs[0], x=target), (channels, out[1]))


def _global_pool(state: Translation, node: Node) -> None:
    shape = state.shape(node, 0)
    kind = "max" if node.op == "GlobalMaxPool" else "mean"
    if len(shape) < 2:
        raise ModelError(f"{node.label}: an input of rank {len(shape) + 1}")
    step = Reduce(name=node.name, output=node.outputs[0], x=node.inputs[0], kind=kind, axes=tuple(range(1, len(shape))))
    state.add(step, (shape[0], *([1] * (len(shape) - 1))))


def _softmax(state: Translation, node: Node) -> None:
    shape = state.shape(node, 0)
    rank = len(shape) + 1
    logarithm = node.op == "LogSoftmax"
    if state.opset >= 13:
        axis = state.axis(node, int(node.attributes.get("axis", -1)), rank)
        state.add(Softmax(name=node.name, output=node.outputs[0], x=node.inputs[0], axis=axis, logarithm=logarithm), shape)
        return
    # Before opset 13: over all axes from `axis` on.
    axis = state.axis(node, int(node.attributes.get("axis", 1)), rank)
    flat, normal = state.own_name(node, "flat"), state.own_name(node, "softmax")
    state.add(View(name=node.name, output=flat, x=node.inputs[0]), (*shape[:axis], math.prod(shape[axis:])))
    state.add(Softmax(name=node.name, output=normal, x=flat, axis=axis, logarithm=logarithm), state.shapes[flat])
    state.add(View(name=node.name, output=node.outputs[0], x=normal), shape)


def _layer_norm(state: Translation, node: Node) -> None:
    shape = state.shape(node, 0)
    axis = state.axis(node, int(node.attributes.get("axis", -1)), len(shape) + 1)
    scale = state.floats(node, 1)
    shift = np.zeros(1, np.float32) if state.constant(node, 2) is None else state.floats(node, 2)
    if np.broadcast_shapes(scale.shape, shift.shape, shape) != shape:
        raise ModelError(f"{node.label}: parameters of {list(scale.shape)} and {list(shift.shape)} for {list(shape)} per image")
    _normalised(state, node, tuple(range(axis, len(shape))), scale, shift)


def _instance_norm(state: Translation, node: Node) -> None:
    shape, scale, shift = state.shape(node, 0), state.floats(node, 1), state.floats(node, 2)
    if len(shape) < 2 or not scale.shape == shift.shape == shape[:1]:
        raise ModelError(f"{node.label}: parameters of {list(scale.shape)} for {list(shape)} per image")
    columns = (-1, *(1,) * (len(shape) - 1))
    _normalised(state, node, tuple(range(1, len(shape))), scale.reshape(columns), shift.reshape(columns))


def _normalised(state: Translation, node: Node, axes: Sequence[int], scale: Floats, shift: Floats) -> None:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, mean and variance over axes of an image."""
    shape = state.shape(node, 0)
    reduced = tuple(1 if i in axes else size for i, size in enumerate(shape))

    def mean(x: str, purpose: str) -> str:
        name = state.own_name(node, purpose)
        state.add(Reduce(name=node.name, output=name, x=x, kind="mean", axes=tuple(axes)), reduced)
        return name

    def binary(kind: str, a: str, b: str | Floats, purpose: str, *, act: Activation = NO_ACTIVATION) -> str:
        name = state.own_name(node, purpose) if purpose else node.outputs[0]
        state.add(Binary(name=node.name, output=name, kind=kind, a=a, b=b, act=act), state.shapes[a])
        return name

    x = node.inputs[0]
    centred = binary("sub", x, mean(x, "mean"), "centred")
    # The mean was rounded to float32: where all numbers of a row are nearly equal that error is as large as their spread.
    exact = binary("sub", centred, mean(centred, "rest"), "exact")
    variance = mean(binary("mul", exact, exact, "squared"), "variance")
    epsilon = np.full((1,) * len(shape), node.attributes.get("epsilon", 1e-5), np.float32)
    deviation = binary("add", variance, epsilon, "deviation", act=Activation(kind="sqrt"))
    binary("add", binary("mul", binary("div", exact, deviation, "normal"), scale, "scaled"), shift, "")


def _lrn(state: Translation, node: Node) -> None:
    """As x / (bias + alpha / size * s) ** beta; s, the sum of squares over `size` channels around, is a banded convolution."""
    shape, size = state.shape(node, 0), int(node.attributes["size"])
    if len(shape) != 3 or size < 1:
        raise UnsupportedError(f"{node.label}: a window of {size} channels, {list(shape)} per image; use the onnxruntime backend")
    alpha, beta, bias = (
        float(node.attributes.get(name, usual)) for name, usual in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    channels = np.arange(shape[0])
    apart = channels[None] - channels[:, None]
    band = ((apart >= -((size - 1) // 2)) & (apart <= size // 2)).astype(np.float32)
    source = ConvSource(
        x=state.own_name(node, "squared"),
        weight=np.ascontiguousarray((band * np.float32(alpha / size))[:, :, None, None]),
        strides=(1, 1),
        pads=(0, 0, 0, 0),
        dilations=(1, 1),
        groups=1,
    )
    total, power = state.own_name(node, "sum"), state.own_name(node, "power")
    state.add(Binary(name=node.name, output=source.x, kind="mul", a=node.inputs[0], b=node.inputs[0]), shape)
    state.add(Conv(name=node.name, output=total, sources=(source,), bias=np.full(shape[0], bias, np.float32)), shape)
    state.add(Binary(name=node.name, output=power, kind="pow", a=total, b=np.full((1, 1, 1), beta, np.float32)), shape)
    state.add(Binary(name=node.name, output=node.outputs[0], kind="div", a=node.inputs[0], b=power), shape)


LAYERS: Mapping[str, NodeTranslator] = MappingProxyType(
    {
        "AveragePool": _pool,
        "BatchNormalization": _batch_norm,
        "Conv": _conv,
        "Gemm": _gemm,
        "GlobalAveragePool": _global_pool,
        "GlobalMaxPool": _global_pool,
        "InstanceNormalization": _instance_norm,
        "LRN": _lrn,
        "LayerNormalization": _layer_norm,
        "LogSoftmax": _softmax,
        "MatMul": _matmul,
        "MaxPool": _pool,
        "Softmax": _softmax,
    }
)
