"""Models that a session refuses, by name: no models, what the engine cannot compute, what would fill the memory."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import normal

from tdcompress.engine import Session
from tdcompress.engine.translate import state
from tdcompress.errors import ModelError, UnsupportedError

RNG = np.random.default_rng(3)
floats = partial(normal, RNG)


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x08\x07"])
def test_files_that_are_no_models(content, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        Session(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        Session(tmp_path / "model.onnx")


UNSUPPORTED = {
    "Hardmax": (helper.make_node("Hardmax", ["x"], ["y"], name="hardmax"), {}, "no operator Hardmax"),
    "quantised": (helper.make_node("QuantizeLinear", ["x", "s"], ["y"], name="q"), {"s": np.float32(1)}, "quantised"),
    "domain": (helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft"), {}, "com.microsoft"),
    "batch axis": (helper.make_node("Transpose", ["x"], ["y"], name="t", perm=[1, 0, 2, 3]), {}, "batch"),
    "batch reshape": (helper.make_node("Reshape", ["x", "s"], ["y"], name="r"), {"s": np.array([-1, 4])}, "batch"),
    "batch mean": (helper.make_node("ReduceMean", ["x", "a"], ["y"]), {"a": np.array([0])}, "batch"),
    "half": (helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16), {}, "FLOAT16"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_unsupported_is_named(model, case):
    node, constants, text = UNSUPPORTED[case]
    with pytest.raises(UnsupportedError, match=text):
        Session(model([node], constants, {"x": ["b", 3, 4, 4]}))


def test_weights_that_do_not_fit(model):
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv1")
    data = onnx.load_model_from_string(model([node], {"w": floats(2, 3, 3, 3)}, {"x": ["b", 3, 8, 8]}))
    data.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    with pytest.raises(ModelError, match="conv1"):
        Session(data.SerializeToString())


def test_a_decoder_that_would_fill_the_memory(model):
    nodes = [helper.make_node("ConstantOfShape", ["n"], ["w"], name="bomb"), helper.make_node("Add", ["x", "w"], ["y"])]
    with pytest.raises((ModelError, UnsupportedError), match="bomb"):
        Session(model(nodes, {"n": np.array([2**20, 2**20])}, {"x": ["b", 4]}))


def test_outputs_of_other_types_are_refused(model):
    data = onnx.load_model_from_string(
        model([helper.make_node("Identity", ["x"], ["y"])], {}, {"x": ["b", 4]}, dtype=TensorProto.UINT8)
    )
    data.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    with pytest.raises(UnsupportedError, match="output 'y' is uint8"):
        Session(data.SerializeToString())


def test_constants_that_would_fill_the_memory_together(model, monkeypatch):
    monkeypatch.setattr(state, "MAX_CONSTANT_BYTES", 1 << 20)
    nodes = [helper.make_node("ConstantOfShape", ["n"], [f"c{i}"]) for i in range(9)]
    data = model([*nodes, helper.make_node("Add", ["x", "c0"], ["y"])], {"n": np.array([1 << 15])}, {"x": ["b", 1]})
    with pytest.raises(UnsupportedError, match=r"1048576 bytes \(at 'c7'\)"):
        Session(data)


def test_sparse_initializers_that_would_fill_the_memory_together(model):
    data = onnx.load_model_from_string(model([helper.make_node("Add", ["x", "w0"], ["y"])], {}, {"x": ["b", 4]}))
    for i in range(5):
        values, indices = (
            numpy_helper.from_array(np.ones(1, np.float32), f"w{i}"),
            numpy_helper.from_array(np.array([0]), f"i{i}"),
        )
        data.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 28]))
    with pytest.raises(UnsupportedError, match="sparse initializers"):
        Session(data.SerializeToString())


def test_refusals_name_the_file_once(model, tmp_path):
    hardmax = helper.make_node("Hardmax", ["x"], ["y"])
    for name, data in {
        "operator.onnx": model([hardmax], {}, {"x": ["b", 3, 4, 4]}),
        "opset.onnx": model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": ["b", 3]}, opset=27),
        "scalar.onnx": model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": []}),
        "noise.onnx": b"noise",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises((ModelError, UnsupportedError)) as caught:
            Session(tmp_path / name)
        assert str(caught.value).count(name) == 1
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
