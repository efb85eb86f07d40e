"""However a file stores its weights, the session computes with the same ones: sparse, packed, beside the file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import normal

from tdcompress.engine import Session, explain
from tdcompress.errors import ModelError, UnsupportedError
from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.pack import pack_onnx
from tdcompress.onnxfile.weights import stored_weights

RNG = np.random.default_rng(3)
floats = partial(normal, RNG)


def sparse_copy(data: bytes) -> bytes:
    """The same model with COO initializers."""
    model = onnx.load_model_from_string(data)
    for tensor in list(model.graph.initializer):
        array = numpy_helper.to_array(tensor)
        flat = np.flatnonzero(array)
        values = numpy_helper.from_array(array.reshape(-1)[flat], tensor.name)
        indices = numpy_helper.from_array(flat.astype(np.int64), f"{tensor.name}_indices")
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, array.shape))
        model.graph.initializer.remove(tensor)
    return model.SerializeToString()


def test_sparse_initializers(small):
    x = floats(2, 3, 12, 12)
    np.testing.assert_array_equal(Session(sparse_copy(small)).run(None, {"x": x})[0], Session(small).run(None, {"x": x})[0])


def gap_decoder(data: bytes) -> bytes:
    """The same model with weights as uint8 gaps and values, decoded by standard operators."""
    model = onnx.load_model_from_string(data)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    flat = np.concatenate([array.reshape(-1) for array in arrays.values()])
    gaps, values, last = [], [], -1
    for index in np.flatnonzero(flat):
        gap = int(index) - last
        while gap >= 255:
            gaps.append(255)
            gap -= 255
        gaps.append(gap)
        values.append(flat[index])
        last = int(index)
    constants = {
        "gaps": np.array(gaps, np.uint8),
        "values": np.concatenate(([0.0], values)).astype(np.float32),
        "skip": np.array(255, np.int64),
        "axis": np.array(0, np.int64),
        "start": np.array(-1, np.int64),
        "zeros": np.array([flat.size + 1], np.int64),
        "last": np.array(flat.size, np.int64),
        "sizes": np.array([array.size for array in arrays.values()] + [1], np.int64),
    }
    spec = [
        ("Cast", ["gaps"], ["g"], {"to": TensorProto.INT64}),
        ("Equal", ["g", "skip"], ["is_skip"], {}),
        ("Not", ["is_skip"], ["is_value"], {}),
        ("Cast", ["is_value"], ["one"], {"to": TensorProto.INT64}),
        ("CumSum", ["one", "axis"], ["rank"], {}),
        ("Gather", ["values", "rank"], ["picked"], {}),
        ("CumSum", ["g", "axis"], ["sums"], {}),
        ("Add", ["sums", "start"], ["positions"], {}),
        ("Where", ["is_value", "positions", "last"], ["targets"], {}),
        ("ConstantOfShape", ["zeros"], ["blank"], {}),
        ("ScatterElements", ["blank", "targets", "picked"], ["flat"], {}),
        ("Split", ["flat", "sizes"], [*(f"{name}_flat" for name in arrays), "rest"], {}),
    ]
    for name, array in arrays.items():
        constants[f"{name}_shape"] = np.array(array.shape, np.int64)
        spec.append(("Reshape", [f"{name}_flat", f"{name}_shape"], [name], {}))
    nodes = [helper.make_node(op, inputs, outputs, **attributes) for op, inputs, outputs, attributes in spec]
    old = list(model.graph.node)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend([*nodes, *old])
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return model.SerializeToString()


def test_packed_weights_are_decoded_at_load(small, check):
    x = floats(2, 3, 12, 12)
    packed = gap_decoder(small)
    np.testing.assert_array_equal(check(packed, {"x": x})[0], Session(small).run(None, {"x": x})[0])


@pytest.mark.parametrize("prefer", ["speed", "size"])
def test_the_projects_own_packed_files(small, tmp_path, prefer):
    (tmp_path / "dense.onnx").write_bytes(small)
    pack_onnx(tmp_path / "dense.onnx", tmp_path / "packed.onnx", prefer=prefer)
    x = floats(2, 3, 12, 12)
    np.testing.assert_array_equal(Session(tmp_path / "packed.onnx").run(None, {"x": x})[0], Session(small).run(None, {"x": x})[0])


@pytest.mark.parametrize("encoding", sorted(set(ENCODINGS) - {"dense"}))
def test_packed_files_of_every_decoder(small, encoding):
    model = onnx.load_from_string(small)
    members = [weight for weight in stored_weights(model) if weight.array.dtype == np.float32]
    section = ENCODINGS[encoding].write(members, replace(members[0].key, encoding=encoding))
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in {weight.name for weight in members}]
    nodes = [*section.nodes, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend([*kept, *section.initializers])
    model.graph.sparse_initializer.extend(section.sparse_initializers)
    model.graph.node.extend(nodes)
    x = floats(2, 3, 12, 12)
    got = Session(model.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(got, Session(small).run(None, {"x": x})[0])


def test_external_data_is_refused(small):
    data = onnx.load_model_from_string(small)
    tensor = data.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    tensor.ClearField("raw_data")
    with pytest.raises(UnsupportedError, match="another file"):
        Session(data.SerializeToString())


def external_copy(data: bytes, folder: Path) -> Path:
    """The same model with its weights in a file beside it, as torch's exporter writes it."""
    path = folder / "model.onnx"
    onnx.save(onnx.load_model_from_string(data), path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    return path


def test_weights_in_a_file_beside_the_model(small, tmp_path):
    path, x = external_copy(small, tmp_path), floats(2, 3, 12, 12)
    assert (tmp_path / "model.onnx.data").stat().st_size > 1000
    with pytest.raises(ModelError, match="external_data=True"):
        Session(path)
    session = Session(path, external_data=True)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], Session(small).run(None, {"x": x})[0])
    assert explain(path, external_data=True) == explain(small)


def test_weights_outside_the_folder_are_not_read(small, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = external_copy(small, inner)
    (inner / "model.onnx.data").rename(tmp_path / "secret")
    with pytest.raises(ModelError, match="not a file beside the model"):
        Session(path, external_data=True)
    (inner / "model.onnx.data").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="not a file beside the model"):
        Session(path, external_data=True)
    (inner / "model.onnx.data").unlink()
    (inner / "model.onnx.data").write_bytes((tmp_path / "secret").read_bytes()[:-1])
    with pytest.raises(ModelError, match="truncated"):
        Session(path, external_data=True)
