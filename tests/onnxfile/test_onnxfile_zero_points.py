"""Zeros of quantised weights are where their zero point is."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.onnxfile.inspect import inspect_model

SCALE = np.array(0.1, np.float32)


def inspected(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], kind: int = TensorProto.FLOAT) -> dict[str, int]:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return {tensor.name: tensor.zeros for tensor in inspect_model(helper.make_model(graph, opset_imports=opsets)).tensors}


def weight(point: int | list[int], axis: int, kind: type = np.uint8) -> np.ndarray:
    """(4, 6); where i + j is even the zero point, which a vector gives along an axis."""
    points = np.reshape(point, [-1 if place == axis else 1 for place in range(2)]) if isinstance(point, list) else point
    i, j = np.indices((4, 6))
    return np.where((i + j) % 2 == 0, points, 7).astype(kind)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("point", [0, 100])
def test_one_zero_point(kind: type, point: int) -> None:
    node = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["y"])
    found = inspected([node], {"w": weight(point, 0, kind), "s": SCALE, "z": np.array(point, kind)})
    assert found["w"] == 12


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_zero_point_per_channel(axis: int) -> None:
    points = [10, 20, 30, 40, 50, 60][: 4 if axis == 0 else 6]
    node = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["y"], axis=axis)
    weights = {"w": weight(points, axis % 2), "s": np.full(len(points), SCALE), "z": np.array(points, np.uint8)}
    assert inspected([node], weights)["w"] == 12


@pytest.mark.parametrize(
    ("operator", "inputs", "axis", "domain"),
    [
        ("QLinearMatMul", ["x", "s", "a", "w", "s", "z", "s", "a"], 1, ""),
        ("MatMulInteger", ["x", "w", "a", "z"], 1, ""),
        ("MatMulIntegerToFloat", ["x", "w", "s", "s", "a", "z"], 1, "com.microsoft"),
        ("DynamicQuantizeMatMul", ["x", "w", "s", "z"], 1, "com.microsoft"),
    ],
)
def test_every_quantised_operator(operator: str, inputs: list[str], axis: int, domain: str) -> None:
    points = [10, 20, 30, 40, 50, 60]
    weights = {"w": weight(points, axis), "s": SCALE, "a": np.array(3, np.uint8), "z": np.array(points, np.uint8)}
    assert inspected([helper.make_node(operator, inputs, ["y"], domain=domain)], weights, TensorProto.UINT8)["w"] == 12


def test_a_quantised_convolution() -> None:
    points = np.array([10, 20, 30, 40], np.uint8)
    weights = np.where(np.indices((4, 2, 3, 3)).sum(0) % 2 == 0, points[:, None, None, None], 7).astype(np.uint8)
    node = helper.make_node("QLinearConv", ["x", "s", "a", "w", "s", "z", "s", "a"], ["y"])
    found = inspected([node], {"w": weights, "s": SCALE, "a": np.array(3, np.uint8), "z": points}, TensorProto.UINT8)
    assert found["w"] == 36


def test_without_a_zero_point_zero_is_zero() -> None:
    computed = helper.make_node("DequantizeLinear", ["w", "s", "x"], ["y"])
    assert inspected([computed], {"w": weight(0, 0), "s": SCALE}, TensorProto.UINT8)["w"] == 12
    absent = helper.make_node("DequantizeLinear", ["w", "s"], ["y"])
    assert inspected([absent], {"w": weight(0, 0), "s": SCALE})["w"] == 12
