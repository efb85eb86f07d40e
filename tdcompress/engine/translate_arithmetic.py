"""Elementwise operators, activations and reductions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np

from tdcompress.engine.constants import axes_of
from tdcompress.engine.read import Node
from tdcompress.engine.steps import Act, Affine, Binary, Floats, Reduce, View
from tdcompress.engine.translation import Translation, Translator
from tdcompress.errors import UnsupportedError


def _act(state: Translation, node: Node, make: Callable[[Translation, Node], Act]) -> None:
    state.add(Affine(name=node.name, output=node.outputs[0], x=node.inputs[0], act=make(state, node)), state.shape(node, 0))


def _plain(kind: str) -> Translator:
    return partial(_act, make=lambda state, node: Act(kind=kind))


def _clip(state: Translation, node: Node) -> Act:
    bounds = []
    for index, default in ((1, -np.inf), (2, np.inf)):
        bound = state.constant(node, index)
        bounds.append(default if bound is None else float(bound.reshape(())))
    return Act(kind="clip", a=bounds[0], b=bounds[1])


def _leaky(state: Translation, node: Node) -> Act:
    return Act(kind="leaky", a=float(node.attributes.get("alpha", 0.01)))


def _hard_sigmoid(state: Translation, node: Node) -> Act:
    return Act(kind="hardsigmoid", a=float(node.attributes.get("alpha", 0.2)), b=float(node.attributes.get("beta", 0.5)))


def _hard_swish(state: Translation, node: Node) -> Act:
    return Act(kind="hardswish", a=1 / 6, b=0.5)


def _binary(state: Translation, node: Node, kind: str) -> None:
    if len(node.inputs) != 2:
        raise UnsupportedError(f"{node.label} with {len(node.inputs)} inputs; two are handled: use the onnxruntime backend")
    operands: list[str | Floats] = []
    shapes = []
    ranks = [len(state.shape(node, i)) for i in range(2) if not state.is_constant(node, i)]
    for index, name in enumerate(node.inputs):
        if not state.is_constant(node, index):
            operands.append(name)
            shapes.append(state.shape(node, index))
            continue
        array = state.floats(node, index)
        if array.ndim == ranks[0] + 1 and array.shape[0] == 1:
            array = array[0]
        if array.ndim > ranks[0]:
            raise UnsupportedError(
                f"{node.label}: a constant of shape {list(array.shape)} reaches the batch axis; use the onnxruntime backend"
            )
        if kind == "div" and index == 1 and ((array != 0) & (np.abs(array) < np.finfo(np.float32).tiny)).any():
            raise UnsupportedError(
                f"{node.label} divides by a subnormal number, which the engine takes for zero; use the onnxruntime backend"
            )
        operands.append(array)
        shapes.append(array.shape)
    if len(set(ranks)) > 1:
        raise UnsupportedError(
            f"{node.label}: operands of different ranks broadcast across the batch axis; use the onnxruntime backend"
        )
    state.add(
        Binary(name=node.name, output=node.outputs[0], kind=kind, a=operands[0], b=operands[1]), np.broadcast_shapes(*shapes)
    )


def _reduce(state: Translation, node: Node, kind: str) -> None:
    shape = state.shape(node, 0)
    state.constant(node, 1)
    inputs = [None, state.constant(node, 1)]
    axes = axes_of(inputs, node, 1)
    if axes is None or not axes:
        raise UnsupportedError(f"{node.label} over all axes works across the batch axis; use the onnxruntime backend")
    image_axes = tuple(sorted({state.axis(node, axis, len(shape) + 1) for axis in axes}))
    kept = tuple(1 if i in image_axes else size for i, size in enumerate(shape))
    if not node.attributes.get("keepdims", 1):
        reduced = state.own_name(node, "kept")
        state.add(Reduce(name=node.name, output=reduced, x=node.inputs[0], kind=kind, axes=image_axes), kept)
        state.add(
            View(name=node.name, output=node.outputs[0], x=reduced), [size for i, size in enumerate(shape) if i not in image_axes]
        )
        return
    state.add(Reduce(name=node.name, output=node.outputs[0], x=node.inputs[0], kind=kind, axes=image_axes), kept)


def _prelu(state: Translation, node: Node) -> None:
    """PRelu as max(x, 0) + slope * min(x, 0)."""
    shape, slope, x = state.shape(node, 0), state.floats(node, 1), node.inputs[0]
    if np.broadcast_shapes(slope.shape, shape) != shape:
        raise UnsupportedError(f"{node.label}: a slope of shape {list(slope.shape)}; use the onnxruntime backend")
    positive, negative, scaled = (state.own_name(node, purpose) for purpose in ("positive", "negative", "scaled"))
    state.add(Affine(name=node.name, output=positive, x=x, act=Act(kind="relu")), shape)
    state.add(Affine(name=node.name, output=negative, x=x, act=Act(kind="clip", a=-np.inf, b=0.0)), shape)
    state.add(Binary(name=node.name, output=scaled, kind="mul", a=negative, b=slope), shape)
    state.add(Binary(name=node.name, output=node.outputs[0], kind="add", a=positive, b=scaled), shape)


def _gelu(state: Translation, node: Node) -> None:
    """0.5 x (1 + erf(x / sqrt 2))."""
    if node.attributes.get("approximate", b"none") != b"none":
        raise UnsupportedError(f"{node.label}: approximate = tanh is not handled; use the onnxruntime backend")
    shape, x = state.shape(node, 0), node.inputs[0]
    erf, gate, half = (state.own_name(node, purpose) for purpose in ("erf", "gate", "half"))
    root, one, factor = (np.array([value], np.float32) for value in (np.sqrt(0.5), 1.0, 0.5))
    state.add(Binary(name=node.name, output=erf, kind="mul", a=x, b=root, act=Act(kind="erf")), shape)
    state.add(Binary(name=node.name, output=gate, kind="add", a=erf, b=one), shape)
    state.add(Binary(name=node.name, output=half, kind="mul", a=x, b=factor), shape)
    state.add(Binary(name=node.name, output=node.outputs[0], kind="mul", a=half, b=gate), shape)


ARITHMETIC: Mapping[str, Translator] = MappingProxyType(
    {
        "Abs": _plain("abs"),
        "Add": partial(_binary, kind="add"),
        "Clip": partial(_act, make=_clip),
        "Div": partial(_binary, kind="div"),
        "Erf": _plain("erf"),
        "Exp": _plain("exp"),
        "Gelu": _gelu,
        "HardSigmoid": partial(_act, make=_hard_sigmoid),
        "HardSwish": partial(_act, make=_hard_swish),
        "LeakyRelu": partial(_act, make=_leaky),
        "Log": _plain("log"),
        "Max": partial(_binary, kind="max"),
        "Min": partial(_binary, kind="min"),
        "Mul": partial(_binary, kind="mul"),
        "Neg": _plain("neg"),
        "PRelu": _prelu,
        "Pow": partial(_binary, kind="pow"),
        "Reciprocal": _plain("reciprocal"),
        "ReduceMax": partial(_reduce, kind="max"),
        "ReduceMean": partial(_reduce, kind="mean"),
        "ReduceSum": partial(_reduce, kind="sum"),
        "Relu": _plain("relu"),
        "Sigmoid": _plain("sigmoid"),
        "Sqrt": _plain("sqrt"),
        "Sub": partial(_binary, kind="sub"),
        "Tanh": _plain("tanh"),
    }
)
