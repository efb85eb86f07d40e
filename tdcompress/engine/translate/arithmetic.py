"""Elementwise operators, activations and reductions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import numpy as np

from tdcompress.engine.constants.operands import axes_of
from tdcompress.engine.read import Node
from tdcompress.engine.steps import Activation, Affine, Binary, Floats, Reduce, Shape, View
from tdcompress.engine.translate.state import FIRST, NodeTranslator, Translation
from tdcompress.errors import UnsupportedError

SQUARED = Activation(kind="squared")
"""No activation of the kernels: the product of a tensor with itself."""


def _act(state: Translation, node: Node, make: Callable[[Translation, Node], Activation]) -> None:
    state.add(Affine(name=node.name, output=node.outputs[0], x=node.inputs[0], act=make(state, node)), state.shape(node, 0))


def _plain(kind: str) -> NodeTranslator:
    return partial(_act, make=lambda state, node: Activation(kind=kind))


def _clip(state: Translation, node: Node) -> Activation:
    bounds = []
    for index, default in ((1, -np.inf), (2, np.inf)):
        bound = state.constant(node, index)
        bounds.append(default if bound is None else float(bound.reshape(())))
    return Activation(kind="clip", a=bounds[0], b=bounds[1])


def _leaky(state: Translation, node: Node) -> Activation:
    return Activation(kind="leaky", a=float(node.attributes.get("alpha", 0.01)))


def _hard_sigmoid(state: Translation, node: Node) -> Activation:
    return Activation(kind="hardsigmoid", a=float(node.attributes.get("alpha", 0.2)), b=float(node.attributes.get("beta", 0.5)))


def _hard_swish(state: Translation, node: Node) -> Activation:
    return Activation(kind="hardswish", a=1 / 6, b=0.5)


def operands(state: Translation, node: Node, indices: Sequence[int]) -> tuple[list[str | Floats], list[Shape]]:
    """Inputs that are broadcast against each other, per image: names of computed tensors, and constants; and their shapes.

    Args:
        state: the translation so far.
        node: the operator.
        indices: which of its inputs.

    Raises:
        UnsupportedError: what is broadcast would reach the batch axis.
    """
    found: list[str | Floats] = []
    shapes: list[Shape] = []
    computed = [i for i in indices if not state.is_constant(node, i)]
    ranks = [len(state.shape(node, i)) for i in computed]
    place = state.place(node.inputs[computed[0]])
    for index in indices:
        if not state.is_constant(node, index):
            found.append(node.inputs[index])
            shapes.append(state.shape(node, index))
            continue
        varying = state.varying(node, index, ranks[0]) if place == FIRST else None
        if varying is not None:
            found.append(varying)
            shapes.append(state.shapes[varying])
            continue
        array = state.floats(node, index)
        if place != FIRST:
            # What lies behind the batch is counted from the end, as in an image.
            array = array.reshape(()) if array.size == 1 else array
            reaches = array.ndim > ranks[0] - place.axis - place.joined
        else:
            array = array[0] if array.ndim == ranks[0] + 1 and array.shape[0] == 1 else array
            reaches = array.ndim > ranks[0]
        if reaches:
            raise UnsupportedError(
                f"{node.label}: a constant of shape {list(array.shape)} reaches the batch axis; use the onnxruntime backend"
            )
        found.append(array)
        shapes.append(array.shape)
    if len(set(ranks)) > 1:
        raise UnsupportedError(
            f"{node.label}: operands of different ranks broadcast across the batch axis; use the onnxruntime backend"
        )
    return found, shapes


def _binary(state: Translation, node: Node, kind: str) -> None:
    """Two operands; of Max, Min and Sum any number, one after the other."""
    if len(node.inputs) == 1:
        state.add(View(name=node.name, output=node.outputs[0], x=node.inputs[0]), state.shape(node, 0))
        return
    found, shapes = operands(state, node, range(len(node.inputs)))
    divisor = found[-1]
    if kind == "div" and not isinstance(divisor, str) and ((divisor != 0) & (np.abs(divisor) < np.finfo(np.float32).tiny)).any():
        raise UnsupportedError(
            f"{node.label} divides by a subnormal number, which the engine takes for zero; use the onnxruntime backend"
        )
    # a constant cannot meet a constant: a computed one comes first
    order = sorted(range(len(found)), key=lambda i: not isinstance(found[i], str)) if len(found) > 2 else range(2)
    total, shape = found[order[0]], shapes[order[0]]
    for place in order[1:]:
        last = place == order[-1]
        name = node.outputs[0] if last else state.own_name(node, "part")
        shape = np.broadcast_shapes(shape, shapes[place])
        state.add(Binary(name=node.name, output=name, kind=kind, a=total, b=found[place]), shape)
        total = name


def _mean(state: Translation, node: Node) -> None:
    """The mean of several tensors: their sum times 1 / n."""
    total = state.own_name(node, "sum")
    _binary(state, replace(node, outputs=(total,)), kind="add")
    share = np.array([1 / len(node.inputs)], np.float32)
    state.add(Binary(name=node.name, output=node.outputs[0], kind="mul", a=total, b=share), state.shapes[total])


def _reduce(state: Translation, node: Node, kind: str, before: Activation | None = None, after: Activation | None = None) -> None:
    """Over axes of act(x), or of x * x for `before` SQUARED; an activation after it."""
    shape, x = state.shape(node, 0), node.inputs[0]
    axes = axes_of([None, state.constant(node, 1)], node, 1)
    if axes is None or not axes:
        if node.attributes.get("noop_with_empty_axes", 0) and before is None and after is None:
            state.add(View(name=node.name, output=node.outputs[0], x=x), shape)
            return
        raise UnsupportedError(f"{node.label} over all axes works across the batch axis; use the onnxruntime backend")
    image_axes = tuple(sorted({state.axis(node, axis, len(shape) + 1) for axis in axes}))
    if before == SQUARED:
        x = state.own_name(node, "squared")
        state.add(Binary(name=node.name, output=x, kind="mul", a=node.inputs[0], b=node.inputs[0]), shape)
    elif before is not None:
        x = state.own_name(node, "before")
        state.add(Affine(name=node.name, output=x, x=node.inputs[0], act=before), shape)
    kept = tuple(1 if i in image_axes else size for i, size in enumerate(shape))
    keeps = bool(node.attributes.get("keepdims", 1))
    reduced = node.outputs[0] if keeps and after is None else state.own_name(node, "kept")
    state.add(Reduce(name=node.name, output=reduced, x=x, kind=kind, axes=image_axes), kept)
    if after is not None:
        x, reduced = reduced, node.outputs[0] if keeps else state.own_name(node, "after")
        state.add(Affine(name=node.name, output=reduced, x=x, act=after), kept)
    if not keeps:
        state.add(
            View(name=node.name, output=node.outputs[0], x=reduced), [size for i, size in enumerate(shape) if i not in image_axes]
        )


def _prelu(state: Translation, node: Node) -> None:
    """PRelu as max(x, 0) + slope * min(x, 0)."""
    shape, slope, x = state.shape(node, 0), state.floats(node, 1), node.inputs[0]
    if slope.ndim == len(shape) + 1 and slope.shape[0] == 1:  # the batch axis of (1, C, 1, 1)
        slope = slope[0]
    if np.broadcast_shapes(slope.shape, shape) != shape:
        raise UnsupportedError(f"{node.label}: a slope of shape {list(slope.shape)}; use the onnxruntime backend")
    positive, negative, scaled = (state.own_name(node, purpose) for purpose in ("positive", "negative", "scaled"))
    state.add(Affine(name=node.name, output=positive, x=x, act=Activation(kind="relu")), shape)
    state.add(Affine(name=node.name, output=negative, x=x, act=Activation(kind="clip", a=-np.inf, b=0.0)), shape)
    state.add(Binary(name=node.name, output=scaled, kind="mul", a=negative, b=slope), shape)
    state.add(Binary(name=node.name, output=node.outputs[0], kind="add", a=positive, b=scaled), shape)


def _gelu(state: Translation, node: Node) -> None:
    """0.5 x (1 + erf(x / sqrt 2))."""
    if node.attributes.get("approximate", b"none") != b"none":
        raise UnsupportedError(f"{node.label}: approximate = tanh is not handled; use the onnxruntime backend")
    shape, x = state.shape(node, 0), node.inputs[0]
    erf, gate, half = (state.own_name(node, purpose) for purpose in ("erf", "gate", "half"))
    root, one, factor = (np.array([value], np.float32) for value in (np.sqrt(0.5), 1.0, 0.5))
    state.add(Binary(name=node.name, output=erf, kind="mul", a=x, b=root, act=Activation(kind="erf")), shape)
    state.add(Binary(name=node.name, output=gate, kind="add", a=erf, b=one), shape)
    state.add(Binary(name=node.name, output=half, kind="mul", a=x, b=factor), shape)
    state.add(Binary(name=node.name, output=node.outputs[0], kind="mul", a=half, b=gate), shape)


def _elu(state: Translation, node: Node) -> None:
    """As gamma (max(x, 0) + alpha (exp(min(x, 0) / scale) - 1)): Elu; Selu (with gamma), Celu (with scale)."""
    defaults = {"Elu": (1.0, 1.0), "Selu": (1.67326319217681884765625, 1.05070102214813232421875), "Celu": (1.0, 1.0)}[node.op]
    alpha, gamma = (float(node.attributes.get(name, usual)) for name, usual in zip(("alpha", "gamma"), defaults, strict=True))
    scale = alpha if node.op == "Celu" else 1.0
    shape, x = state.shape(node, 0), node.inputs[0]
    positive, negative, power, less, scaled = (
        state.own_name(node, p) for p in ("positive", "negative", "power", "less", "scaled")
    )
    state.add(Affine(name=node.name, output=positive, x=x, act=Activation(kind="relu")), shape)
    state.add(Affine(name=node.name, output=negative, x=x, act=Activation(kind="clip", a=-np.inf, b=0.0)), shape)
    divisor = np.array([scale], np.float32)
    state.add(Binary(name=node.name, output=power, kind="div", a=negative, b=divisor, act=Activation(kind="exp")), shape)
    state.add(Binary(name=node.name, output=less, kind="sub", a=power, b=np.ones(1, np.float32)), shape)
    state.add(Binary(name=node.name, output=scaled, kind="mul", a=less, b=np.array([alpha], np.float32)), shape)
    total = node.outputs[0] if gamma == 1 else state.own_name(node, "total")
    state.add(Binary(name=node.name, output=total, kind="add", a=positive, b=scaled), shape)
    if gamma != 1:
        factor = np.array([gamma], np.float32)
        state.add(Binary(name=node.name, output=node.outputs[0], kind="mul", a=total, b=factor), shape)


def _softplus(state: Translation, node: Node) -> None:
    """max(x, 0) + log(1 + exp(-|x|))."""
    shape, x = state.shape(node, 0), node.inputs[0]
    names = ("positive", "size", "against", "power", "logarithm")
    positive, size, against, power, logarithm = (state.own_name(node, purpose) for purpose in names)
    state.add(Affine(name=node.name, output=positive, x=x, act=Activation(kind="relu")), shape)
    state.add(Affine(name=node.name, output=size, x=x, act=Activation(kind="abs")), shape)
    state.add(Affine(name=node.name, output=against, x=size, act=Activation(kind="neg")), shape)
    state.add(Affine(name=node.name, output=power, x=against, act=Activation(kind="exp")), shape)
    one = np.ones(1, np.float32)
    state.add(Binary(name=node.name, output=logarithm, kind="add", a=power, b=one, act=Activation(kind="log")), shape)
    state.add(Binary(name=node.name, output=node.outputs[0], kind="add", a=positive, b=logarithm), shape)


def _softsign(state: Translation, node: Node) -> None:
    """As x / (1 + |x|)."""
    shape, x = state.shape(node, 0), node.inputs[0]
    size, divisor = state.own_name(node, "size"), state.own_name(node, "divisor")
    state.add(Affine(name=node.name, output=size, x=x, act=Activation(kind="abs")), shape)
    state.add(Binary(name=node.name, output=divisor, kind="add", a=size, b=np.ones(1, np.float32)), shape)
    state.add(Binary(name=node.name, output=node.outputs[0], kind="div", a=x, b=divisor), shape)


ARITHMETIC: Mapping[str, NodeTranslator] = MappingProxyType(
    {
        "Abs": _plain("abs"),
        "Add": partial(_binary, kind="add"),
        "Celu": _elu,
        "Clip": partial(_act, make=_clip),
        "Div": partial(_binary, kind="div"),
        "Elu": _elu,
        "Erf": _plain("erf"),
        "Exp": _plain("exp"),
        "Gelu": _gelu,
        "HardSigmoid": partial(_act, make=_hard_sigmoid),
        "HardSwish": partial(_act, make=_hard_swish),
        "LeakyRelu": partial(_act, make=_leaky),
        "Log": _plain("log"),
        "Max": partial(_binary, kind="max"),
        "Mean": _mean,
        "Min": partial(_binary, kind="min"),
        "Mul": partial(_binary, kind="mul"),
        "Neg": _plain("neg"),
        "PRelu": _prelu,
        "Pow": partial(_binary, kind="pow"),
        "Reciprocal": _plain("reciprocal"),
        "ReduceL1": partial(_reduce, kind="sum", before=Activation(kind="abs")),
        "ReduceL2": partial(_reduce, kind="sum", before=SQUARED, after=Activation(kind="sqrt")),
        "ReduceLogSum": partial(_reduce, kind="sum", after=Activation(kind="log")),
        "ReduceMax": partial(_reduce, kind="max"),
        "ReduceMean": partial(_reduce, kind="mean"),
        "ReduceMin": partial(_reduce, kind="min"),
        "ReduceSum": partial(_reduce, kind="sum"),
        "ReduceSumSquare": partial(_reduce, kind="sum", before=SQUARED),
        "Relu": _plain("relu"),
        "Selu": _elu,
        "Sigmoid": _plain("sigmoid"),
        "Softplus": _softplus,
        "Softsign": _softsign,
        "Sqrt": _plain("sqrt"),
        "Sub": partial(_binary, kind="sub"),
        "Sum": partial(_binary, kind="add"),
        "Tanh": _plain("tanh"),
    }
)
