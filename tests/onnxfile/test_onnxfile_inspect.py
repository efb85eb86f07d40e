"""What inspect says adds up, and is what is in the file."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from weights import dense_initializers

from tdcompress.errors import ModelError
from tdcompress.onnxfile.inspect import inspect_model, inspect_onnx
from tdcompress.onnxfile.load import save_model
from tdcompress.onnxfile.metadata import set_metadata
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.reports import FileReport


def test_a_dense_file(tmp_path: Path, make_small_net: Callable[..., onnx.ModelProto]) -> None:
    model = make_small_net(0.75)
    set_metadata(model, {"author": "x"})
    path = tmp_path / "m.onnx"
    save_model(model, path)
    report = inspect_onnx(path)
    assert report.file_bytes == path.stat().st_size
    assert report.gzip_bytes == len(gzip.compress(path.read_bytes(), 6, mtime=0))
    assert (report.opset, report.ir_version, report.metadata) == (20, 9, {"author": "x"})
    assert [(v.name, v.dtype, v.shape) for v in report.inputs] == [("input", "float", ("batch", 3, 8, 8))]
    assert [(v.name, v.shape) for v in report.outputs] == [("output", ("batch", 10))]
    assert report.operators == {
        "BatchNormalization": 2,
        "Conv": 2,
        "Flatten": 1,
        "Gemm": 1,
        "GlobalAveragePool": 1,
        "Relu": 2,
    }
    # 16 filters of 27 lose 20 each, 32 of 144 lose 108, 10 of 32 lose 24
    assert report.zeros == 16 * 20 + 32 * 108 + 10 * 24
    assert report.parameters == 16 * 27 + 32 * 144 + 10 * 32 + 4 * 48 + 10
    assert report.sparsity == report.zeros / report.parameters
    assert report.decoder_bytes == 0
    first = report.tensors[0]
    assert (first.name, first.shape, first.zeros, first.encoding) == ("conv1.weight", (16, 3, 3, 3), 320, "dense")
    p = 112 / 432
    entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    assert first.bound_bytes == pytest.approx(112 * 4 + 432 * entropy / 8)
    assert first.file_bytes == 432 * 4 + len("conv1.weight") + 18  # tags, lengths, shape and type
    assert FileReport.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize("values", ["float32", "float16"])
@pytest.mark.parametrize("prefer", ["speed", "size"])
def test_a_packed_file_adds_up(make_resnet32: Callable[..., onnx.ModelProto], values: str, prefer: str) -> None:
    dense = make_resnet32(0.75)
    packed, packing = pack_model(dense, values=values, prefer=prefer)
    report = inspect_model(packed)
    total = sum(tensor.file_bytes for tensor in report.tensors) + report.decoder_bytes + report.graph_bytes
    assert total - report.names_saved_bytes == report.file_bytes == packing.file_bytes == packed.ByteSize()
    assert (report.names_saved_bytes > 5000) == (prefer == "size")
    assert report.decoder_bytes > 0
    assert 0 < report.graph_bytes < 25_000
    assert report.operators == inspect_model(dense).operators
    assert (report.parameters, report.zeros) == (inspect_model(dense).parameters, np.sum(zeros(packed)))
    assert report.ratio_to_bound == report.file_bytes / report.bound_bytes
    assert all(tensor.file_bytes >= tensor.bound_bytes for tensor in report.tensors)
    stored = {tensor.stored for tensor in report.tensors if len(tensor.shape) > 1}
    assert stored == {values}


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.FLOAT16])
@pytest.mark.parametrize("raw", [True, False])
def test_two_byte_floats_however_they_are_written(kind: int, raw: bool, tmp_path: Path) -> None:
    """Exporters write them as raw bytes, or as int32_data: 1 byte for a zero and 3 for most other values."""
    weights = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    weights[:24] = 0
    tensor = helper.make_tensor("w", kind, [32, 32], weights.reshape(-1))
    if raw:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(TensorProto(name="w", data_type=kind, dims=[32, 32], raw_data=array.tobytes()))
    values = [helper.make_tensor_value_info(name, kind, [1, 32]) for name in ("x", "y")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], [tensor]), ir_version=9)
    save_model(model, tmp_path / "m.onnx")
    report = inspect_onnx(tmp_path / "m.onnx")
    (found,) = report.tensors
    assert (found.dtype, found.elements, found.zeros) == (TensorProto.DataType.Name(kind).lower(), 1024, 768)
    assert found.file_bytes == tensor.ByteSize() + 3  # its tag and length in the graph
    assert (found.file_bytes > 1024 * 2) == raw
    assert found.bound_bytes == pytest.approx(256 * 2 + 1024 * (0.25 * 2 + 0.75 * np.log2(4 / 3)) / 8)
    assert (report.parameters, report.sparsity) == (1024, 0.75)
    assert report.file_bytes == found.file_bytes + report.graph_bytes == (tmp_path / "m.onnx").stat().st_size


def test_weights_in_constant_nodes_are_weights(make_small_net: Callable[..., onnx.ModelProto]) -> None:
    model = make_small_net(0.75)
    wanted = inspect_model(model)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "conv2.weight")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["conv2.weight"], value=weight))
    model.graph.initializer.remove(weight)
    report = inspect_model(model)
    assert (report.parameters, report.zeros, report.bound_bytes) == (wanted.parameters, wanted.zeros, wanted.bound_bytes)
    (found,) = (tensor for tensor in report.tensors if tensor.encoding == "constant")
    assert (found.name, found.shape) == ("conv2.weight", (32, 16, 3, 3))
    assert report.file_bytes == sum(tensor.file_bytes for tensor in report.tensors) + report.graph_bytes


def test_half_bytes_are_half_bytes() -> None:
    weights = helper.make_tensor("w", TensorProto.INT4, [4, 64], [0, 1, -2, 3] * 64)
    values = [helper.make_tensor_value_info(name, TensorProto.INT4, [4, 64]) for name in ("w", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], values[1:], [weights])
    (found,) = inspect_model(helper.make_model(graph, ir_version=10)).tensors
    assert (found.zeros, found.dtype) == (64, "int4")
    assert found.bound_bytes == pytest.approx(192 / 2 + 256 * (0.25 * 2 + 0.75 * np.log2(4 / 3)) / 8)
    assert found.bound_bytes < 4 * 64 / 2 < found.file_bytes


def test_external_data_counts_as_if_it_were_inside(make_small_net: Callable[..., onnx.ModelProto], tmp_path: Path) -> None:
    model = make_small_net(0.75)
    save_model(model, tmp_path / "one.onnx")
    onnx.save_model(model, tmp_path / "two.onnx", save_as_external_data=True, location="two.data", size_threshold=0)
    with pytest.raises(ModelError, match="kept in another file"):
        inspect_onnx(tmp_path / "two.onnx")
    assert inspect_onnx(tmp_path / "two.onnx", external_data=True) == inspect_onnx(tmp_path / "one.onnx")


def zeros(model: onnx.ModelProto) -> list[int]:
    return [int(np.count_nonzero(array == 0)) for array in dense_initializers(model).values()]
