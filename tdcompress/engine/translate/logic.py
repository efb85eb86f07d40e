"""Comparisons, logic, selection and casts. A bool is 1 or 0 in float32 while it is computed, an integer the nearest float32."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
import onnx

from tdcompress.engine.read import Node
from tdcompress.engine.steps import Binary, Floats, View
from tdcompress.engine.translate.arithmetic import operands
from tdcompress.engine.translate.state import NodeTranslator, Translation
from tdcompress.errors import UnsupportedError

_BOOL, _FLOAT32 = np.dtype(np.bool_), np.dtype(np.float32)
_EXACT = 1 << 24
"""Up to here float32 holds every integer; beyond, rounding keeps the order of an integer and of one up to here."""


def _compare(state: Translation, node: Node, kind: str, *, swapped: bool = False) -> None:
    _check_integers(state, node)
    (a, b), shapes = operands(state, node, (1, 0) if swapped else (0, 1))
    state.add(Binary(name=node.name, output=node.outputs[0], kind=kind, a=a, b=b), np.broadcast_shapes(*shapes))
    state.kinds[node.outputs[0]] = _BOOL


def _check_integers(state: Translation, node: Node) -> None:
    """Wide integers are compared rightly with a constant that float32 holds, and not with each other.

    Raises:
        UnsupportedError: they would be compared with each other, or with a larger constant.
    """
    wide = [i for i in range(2) if state.kind(node, i).kind in "iuf" and not np.can_cast(state.kind(node, i), _FLOAT32)]
    small = [
        i
        for i in wide
        if state.is_constant(node, i)
        and state.kind(node, i).kind != "f"
        and np.abs(state.floats(node, i)).max(initial=0) < _EXACT
    ]
    if wide and not small:
        raise UnsupportedError(
            f"{node.label} compares numbers that float32 may not hold; use the onnxruntime backend for this model"
        )


def _not(state: Translation, node: Node) -> None:
    zero = np.zeros(1, np.float32)
    state.add(Binary(name=node.name, output=node.outputs[0], kind="equal", a=node.inputs[0], b=zero), state.shape(node, 0))
    state.kinds[node.outputs[0]] = _BOOL


def _is_nan(state: Translation, node: Node) -> None:
    """NaN alone is not equal to itself."""
    shape, same = state.shape(node, 0), state.own_name(node, "same")
    state.add(Binary(name=node.name, output=same, kind="equal", a=node.inputs[0], b=node.inputs[0]), shape)
    zero = np.zeros(1, np.float32)
    state.add(Binary(name=node.name, output=node.outputs[0], kind="equal", a=same, b=zero), shape)
    state.kinds[node.outputs[0]] = _BOOL


def _logic(state: Translation, node: Node, kind: str) -> None:
    (a, b), shapes = operands(state, node, (0, 1))
    state.add(Binary(name=node.name, output=node.outputs[0], kind=kind, a=a, b=b), np.broadcast_shapes(*shapes))
    state.kinds[node.outputs[0]] = _BOOL


def _xor(state: Translation, node: Node) -> None:
    same = state.own_name(node, "same")
    _logic(state, Node(op=node.op, name=node.name, inputs=node.inputs, outputs=(same,), attributes={}), "equal")
    zero = np.zeros(1, np.float32)
    state.add(Binary(name=node.name, output=node.outputs[0], kind="equal", a=same, b=zero), state.shapes[same])
    state.kinds[node.outputs[0]] = _BOOL


def _where(state: Translation, node: Node) -> None:
    """What of a the condition keeps plus what of b it drops: each is 0 where the other is not."""
    (condition, *values), shapes = operands(state, node, (0, 1, 2))
    parts: list[str | Floats] = []
    for kind, value, shape in zip(("keep", "drop"), values, shapes[1:], strict=True):
        if not isinstance(condition, str) and not isinstance(value, str):
            taken = condition != 0 if kind == "keep" else condition == 0
            parts.append(np.where(taken, value, np.float32(0)))
            continue
        parts.append(state.own_name(node, kind))
        state.add(
            Binary(name=node.name, output=str(parts[-1]), kind=kind, a=condition, b=value), np.broadcast_shapes(shapes[0], shape)
        )
    state.add(Binary(name=node.name, output=node.outputs[0], kind="add", a=parts[0], b=parts[1]), np.broadcast_shapes(*shapes))
    if state.kind(node, 1) != _FLOAT32:
        state.kinds[node.outputs[0]] = state.kind(node, 1)


def _cast(state: Translation, node: Node) -> None:
    """To float32 from anything; to bool; of a bool or an integer to a wider integer."""
    to, source, shape = int(node.attributes["to"]), state.kind(node, 0), state.shape(node, 0)
    name = onnx.TensorProto.DataType.Name(to)
    if to == onnx.TensorProto.BOOL:
        zero, empty = np.zeros(1, np.float32), state.own_name(node, "empty")
        state.add(Binary(name=node.name, output=empty, kind="equal", a=node.inputs[0], b=zero), shape)
        state.add(Binary(name=node.name, output=node.outputs[0], kind="equal", a=empty, b=zero), shape)
        state.kinds[node.outputs[0]] = _BOOL
        return
    state.add(View(name=node.name, output=node.outputs[0], x=node.inputs[0]), shape)
    if to == onnx.TensorProto.FLOAT:
        return
    target = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(to))
    if source.kind not in "biu" or target.kind not in "iu" or not np.can_cast(source, target):
        raise UnsupportedError(
            f"{node.label} from {source} to {name}; the engine computes in float32: use the onnxruntime backend"
        )
    state.kinds[node.outputs[0]] = target


LOGIC: Mapping[str, NodeTranslator] = MappingProxyType(
    {
        "And": partial(_logic, kind="min"),
        "Cast": _cast,
        "Equal": partial(_compare, kind="equal"),
        "Greater": partial(_compare, kind="less", swapped=True),
        "GreaterOrEqual": partial(_compare, kind="less_equal", swapped=True),
        "IsNaN": _is_nan,
        "Less": partial(_compare, kind="less"),
        "LessOrEqual": partial(_compare, kind="less_equal"),
        "Not": _not,
        "Or": partial(_logic, kind="max"),
        "Where": _where,
        "Xor": _xor,
    }
)
