"""Quantised weights whose zeros stand at another number than 0 are packed as differences from it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from weights import dense_initializers

from tdcompress.errors import ModelError
from tdcompress.onnxfile.inspect import inspect_model
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.runtime import open_session, run_session
from tdcompress.onnxfile.weights import densified

ROWS, COLUMNS = 64, 128
PREFIX = "tdc1.0.shift.u1."


def quantised(point: object, kind: type = np.uint8, axis: int = 0, opset: int = 17, share: float = 0.9) -> onnx.ModelProto:
    """x (n, 64) through DequantizeLinear of w and MatMul; of w this share is its zero point, the rest any number."""
    points = np.array(point, kind)
    generator = np.random.default_rng(0)
    shaped = np.expand_dims(points, 1 - axis) if points.ndim else points
    limits = np.iinfo(kind)
    w = generator.integers(limits.min, limits.max, (ROWS, COLUMNS), dtype=kind, endpoint=True)
    w = np.where(generator.random((ROWS, COLUMNS)) < share, shaped, w).astype(kind)
    scales = np.full(points.shape, 0.5, np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=axis),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    weights = {"w": w, "s": scales, "z": points}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", ROWS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", COLUMNS])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def same_weights(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """By names, types and bytes."""
    left, right = dense_initializers(one), dense_initializers(other)
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and left[name].tobytes() == right[name].tobytes() for name in left
    )


POINTS = {
    "uint8": (128, np.uint8, 0),
    "uint8, all the way up": (255, np.uint8, 0),
    "int8": (-7, np.int8, 0),
    "a row": (list(range(100, 100 + ROWS)), np.uint8, 0),
    "a column": ([*range(COLUMNS)], np.uint8, 1),
    "a column of int8": ([*range(-64, 64)], np.int8, 1),
}


@pytest.mark.parametrize("kind", POINTS)
def test_zeros_at_a_zero_point_are_packed_bit_for_bit(kind: str) -> None:
    point, dtype, axis = POINTS[kind]
    model = quantised(point, dtype, axis)
    packed, report = pack_model(model)
    assert report.left_as_is == ""
    assert report.kept_dense == {}
    (weight,) = (tensor for tensor in report.tensors if tensor.name == "w")
    before = {tensor.name: tensor for tensor in inspect_model(model).tensors}["w"]
    assert (weight.encoding, weight.stored, weight.shape) == ("step4", dtype.__name__, (ROWS, COLUMNS))
    assert weight.zeros == before.zeros > 7000
    assert weight.file_bytes < 1.3 * weight.bound_bytes
    assert packed.ByteSize() < 0.45 * model.ByteSize()
    onnx.checker.check_model(packed, full_check=True)
    assert same_weights(packed, model)
    assert same_weights(densified(packed), model)
    x = {"x": np.random.default_rng(1).standard_normal((3, ROWS)).astype(np.float32)}
    outputs = [run_session(open_session(each), x)[0] for each in (model, packed)]
    assert outputs[0].tobytes() == outputs[1].tobytes()
    assert pack_model(packed)[0].SerializeToString(deterministic=True) == packed.SerializeToString(deterministic=True)


def test_what_the_file_counts_adds_up() -> None:
    report = inspect_model(pack_model(quantised(128))[0])
    assert report.file_bytes == report.decoder_bytes + report.graph_bytes + sum(tensor.file_bytes for tensor in report.tensors)
    assert set(report.operators) == {"DequantizeLinear", "MatMul"}
    assert report.loading_bytes > ROWS * COLUMNS


def test_two_types_and_a_weight_without_a_zero_point() -> None:
    model = quantised(128)
    other = np.where(np.arange(4096) % 10 == 0, 3, -7).astype(np.int8).reshape(COLUMNS, 32)
    plain = np.where(np.arange(4096) % 10 == 0, 3, 0).astype(np.uint8).reshape(COLUMNS, 32)
    for name, array in {"v": other, "vz": np.array(-7, np.int8), "u": plain, "one": np.array(1, np.float32)}.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    model.graph.node.extend(
        [
            helper.make_node("DequantizeLinear", ["v", "one", "vz"], ["dv"]),
            helper.make_node("DequantizeLinear", ["u", "one"], ["du"]),
            helper.make_node("Add", ["dv", "du"], ["sum"]),
            helper.make_node("MatMul", ["y", "sum"], ["more"]),
        ]
    )
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["n", 32]))
    packed, report = pack_model(model)
    assert {tensor.name for tensor in report.tensors if tensor.encoding != "dense"} == {"u", "v", "w"}
    assert same_weights(packed, model)
    assert {node.output[0] for node in packed.graph.node if node.input[0].startswith("tdc1.0.shift.")} == {"v", "w"}


def test_operator_set_13_cannot_add_them_back() -> None:
    packed, report = pack_model(quantised(128, opset=13))
    assert report.kept_dense == {
        "w": "its zeros stand at a zero point, which takes operator set 14 to bring back: export it anew"
    }
    assert same_weights(packed, quantised(128, opset=13))


def test_a_weight_that_saves_less_than_its_add_stays_dense() -> None:
    packed, report = pack_model(quantised(128, share=0.05))
    assert report.encodings["dense"] == 3
    assert not any(tensor.name.startswith("tdc1.") for tensor in packed.graph.initializer)


def damage_zero(model: onnx.ModelProto, array: np.ndarray) -> None:
    (zero,) = (tensor for tensor in model.graph.initializer if tensor.name == f"{PREFIX}z0")
    zero.CopyFrom(numpy_helper.from_array(array, zero.name))


def add_node(model: onnx.ModelProto) -> onnx.NodeProto:
    (node,) = (node for node in model.graph.node if node.input[0] == f"{PREFIX}w0")
    return node


DAMAGES: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "zero points of another shape": (lambda model: damage_zero(model, np.zeros(7, np.uint8)), "are not of its shape and type"),
    "that make it larger": (lambda model: damage_zero(model, np.zeros((2, 1, 1), np.uint8)), "are not of its shape and type"),
    "of another type": (lambda model: damage_zero(model, np.array(1, np.int32)), "are not of its shape and type"),
    "another operator": (lambda model: setattr(add_node(model), "op_type", "Sub"), "not as this format writes them"),
    "a second reader": (
        lambda model: model.graph.node.append(helper.make_node("Relu", [f"{PREFIX}w0"], ["r"])),
        "not as this format writes them|which is no packed weight",
    ),
    "no zero point": (lambda model: model.graph.initializer.pop(), "which is no packed weight"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_was_edited_is_refused(kind: str) -> None:
    packed, _ = pack_model(quantised(128))
    names = [tensor.name for tensor in packed.graph.initializer]
    assert names[-1] == f"{PREFIX}z0"
    change, said = DAMAGES[kind]
    change(packed)
    with pytest.raises(ModelError, match=said):
        dense_initializers(packed)


def test_a_difference_that_nothing_reads_is_refused() -> None:
    packed, _ = pack_model(quantised(128))
    nodes = [node for node in packed.graph.node if node.input[0] != f"{PREFIX}w0"]
    del packed.graph.node[:]
    packed.graph.node.extend(nodes)
    packed.graph.initializer.pop()
    with pytest.raises(ModelError, match="is packed, but no weight of the network"):
        dense_initializers(packed)


def test_a_difference_that_nothing_makes_is_refused() -> None:
    packed, _ = pack_model(quantised(128))
    kept = [
        tensor for tensor in packed.graph.initializer if tensor.name.startswith(PREFIX) or not tensor.name.startswith("tdc1.")
    ]
    nodes = [node for node in packed.graph.node if not node.input[0].startswith("tdc1.") or node.input[0].startswith(PREFIX)]
    del packed.graph.initializer[:], packed.graph.node[:]
    packed.graph.initializer.extend(kept)
    packed.graph.node.extend(nodes)
    with pytest.raises(ModelError, match="is read, but not packed"):
        dense_initializers(packed)


class Samples(CalibrationDataReader):
    def __init__(self) -> None:
        generator = np.random.default_rng(2)
        self.left = [{"x": generator.standard_normal((4, ROWS)).astype(np.float32)} for _ in range(2)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


@pytest.mark.parametrize("per_channel", [False, True])
def test_files_of_onnxruntimes_own_quantiser(per_channel: bool, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    w = np.where(generator.random((ROWS, COLUMNS)) < 0.9, 0, generator.standard_normal((ROWS, COLUMNS)) + 0.5)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", ROWS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", COLUMNS])],
        [numpy_helper.from_array(w.astype(np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "quint8.onnx",
        Samples(),
        quant_format=QuantFormat.QDQ,
        weight_type=QuantType.QUInt8,
        activation_type=QuantType.QUInt8,
        per_channel=per_channel,
    )
    model = onnx.load(tmp_path / "quint8.onnx")
    packed, report = pack_model(model)
    (weight,) = (tensor for tensor in report.tensors if tensor.name == "w_quantized")
    assert (report.left_as_is, weight.encoding, weight.dtype) == ("", "step4", "uint8")
    assert weight.zeros >= 7000
    assert report.kept_dense == {}
    assert same_weights(packed, model)
