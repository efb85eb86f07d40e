"""Files of float64 with an operator that onnxruntime has for float32 alone."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.bench.benchmark import benchmark
from tdcompress.errors import ModelError, VerificationError
from tdcompress.onnxfile.float64 import not_in_float64
from tdcompress.onnxfile.pack import pack_onnx
from tdcompress.onnxfile.verify import verify_onnx

SAID = r"it has no Conv for float64 on a CPU \('conv.weight'\); export the network in float32: model.float\(\)"


@pytest.fixture
def convolution(tmp_path):
    weights = np.zeros((8, 8, 3, 3))
    weights[0] = 1.0
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "conv.weight"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [1, 8, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1, 8, 2, 2])],
        [numpy_helper.from_array(weights, "conv.weight")],
    )
    path = tmp_path / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_verify_names_the_layer_and_what_to_do(convolution, tmp_path):
    with pytest.raises(VerificationError, match=f"double.onnx: onnxruntime does not load the model: {SAID}"):
        verify_onnx(convolution)
    assert pack_onnx(convolution, tmp_path / "packed.onnx").left_as_is == ""
    with pytest.raises(VerificationError, match=SAID):
        verify_onnx(tmp_path / "packed.onnx")


def test_bench_names_the_layer_and_what_to_do(convolution):
    with pytest.raises(ModelError, match=f"double.onnx: onnxruntime cannot load it: {SAID}"):
        benchmark([convolution], baseline=convolution)


def test_other_errors_stay_as_they_are(convolution):
    assert not_in_float64(RuntimeError("no memory"), convolution) == ""
    model = onnx.load(convolution)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((8, 8, 3, 3), np.float32), "conv.weight"))
    assert not_in_float64(RuntimeError("Could not find an implementation for Conv(11) node with name ''"), model) == ""
