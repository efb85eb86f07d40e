"""The session: formats, names, batches, threads, errors."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.engine import Session, explain
from tdcompress.engine.binding import Library
from tdcompress.engine.fuse import fuse
from tdcompress.engine.read import read_graph
from tdcompress.engine.steps import Conv
from tdcompress.engine.translate import state
from tdcompress.engine.translate.graph import translate
from tdcompress.errors import ModelError, UnsupportedError, UserError
from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.pack import pack_onnx
from tdcompress.onnxfile.weights import stored_weights

RNG = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def small(model) -> bytes:
    """conv - relu - pool - flatten - gemm with 80 % zeros."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="gemm"),
    ]
    w, v = floats(8, 3, 3, 3), floats(8 * 36, 10)
    w[RNG.random(w.shape) < 0.8] = 0
    v[RNG.random(v.shape) < 0.8] = 0
    return model(nodes, {"w": w, "v": v}, {"x": ["batch", 3, 12, 12]})


def test_inputs_and_outputs_as_onnxruntime_gives_them(small):
    session = Session(small)
    (x,), (y,) = session.get_inputs(), session.get_outputs()
    assert (x.name, x.shape, x.type) == ("x", ["batch", 3, 12, 12], "tensor(float)")
    assert (y.name, y.type) == ("y", "tensor(float)")
    assert session.run(["y"], {"x": floats(2, 3, 12, 12)})[0].shape == (2, 10)


def test_from_a_path(small, tmp_path):
    (tmp_path / "model.onnx").write_bytes(small)
    x = floats(1, 3, 12, 12)
    np.testing.assert_array_equal(Session(tmp_path / "model.onnx").run(None, {"x": x})[0], Session(small).run(None, {"x": x})[0])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_batch_gives_what_single_images_give(small, threads):
    session, x = Session(small, threads), floats(33, 3, 12, 12)
    alone = np.concatenate([session.run(None, {"x": x[i : i + 1]})[0] for i in range(33)])
    for batch in (1, 2, 7, 33):
        np.testing.assert_array_equal(session.run(None, {"x": x[:batch]})[0], alone[:batch])


def test_one_session_in_many_threads(small):
    session, x = Session(small), floats(4, 3, 12, 12)
    want, wrong = session.run(None, {"x": x})[0], []

    def work() -> None:
        for _ in range(50):
            if not np.array_equal(session.run(None, {"x": x})[0], want):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_results_do_not_share_memory(small):
    session = Session(small)
    first = session.run(None, {"x": floats(1, 3, 12, 12)})[0]
    kept = first.copy()
    session.run(None, {"x": floats(1, 3, 12, 12)})
    np.testing.assert_array_equal(first, kept)


def test_arrays_that_are_not_contiguous_or_read_only(small):
    session, x = Session(small), floats(2, 3, 12, 12)
    want = session.run(None, {"x": x})[0]
    np.testing.assert_array_equal(session.run(None, {"x": np.asfortranarray(x)})[0], want)
    x.flags.writeable = False
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], want)


@pytest.mark.parametrize(
    ("feed", "text"),
    [
        ({"z": (1, 3, 12, 12)}, "the model has"),
        ({"x": (1, 3, 12)}, "shape"),
        ({"x": (1, 3, 12, 13)}, "shape"),
        ({}, "the model has"),
    ],
)
def test_wrong_feeds(small, feed, text):
    with pytest.raises(UserError, match=text):
        Session(small).run(None, {name: floats(*shape) for name, shape in feed.items()})


@pytest.mark.parametrize("threads", [1, 2])
def test_an_empty_batch_gives_empty_outputs_as_in_onnxruntime(small, threads):
    session, nothing, x = Session(small, threads=threads), floats(0, 3, 12, 12), floats(2, 3, 12, 12)
    (want,) = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"]).run(None, {"x": nothing})
    for _ in range(2):
        (got,) = session.run(None, {"x": nothing})
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        assert session.run(None, {"x": x})[0].tobytes() == Session(small).run(None, {"x": x})[0].tobytes()


def test_wrong_type_names_and_threads(small):
    session = Session(small)
    with pytest.raises(UserError, match="float64"):
        session.run(None, {"x": floats(1, 3, 12, 12).astype(np.float64)})
    with pytest.raises(UserError, match="no output 'z'; it has y"):
        session.run(["z"], {"x": floats(1, 3, 12, 12)})
    with pytest.raises(UserError, match="threads"):
        Session(small, 0)
    with pytest.raises(UnsupportedError, match="no 'mmx'"):
        Session(small, isa="mmx")


def test_better_instruction_sets_can_be_hidden(small, isa, monkeypatch):
    monkeypatch.delenv("TDCOMPRESS_ENGINE_ISA", raising=False)
    names = [found.name for found in Library().instruction_sets]
    monkeypatch.setenv("TDCOMPRESS_ENGINE_ISA", isa)
    library = Library()
    assert [found.name for found in library.instruction_sets] == names[names.index(isa) :]
    monkeypatch.setattr("tdcompress.engine.session.library", lambda: library)
    assert Session(small).instruction_set == isa
    monkeypatch.setenv("TDCOMPRESS_ENGINE_ISA", "mmx")
    with pytest.raises(UnsupportedError, match=f"no 'mmx'; it has {', '.join(names)} .see TDCOMPRESS_ENGINE_ISA"):
        Library()


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


def test_external_data_is_refused(small):
    data = onnx.load_model_from_string(small)
    tensor = data.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    tensor.ClearField("raw_data")
    with pytest.raises(UnsupportedError, match="another file"):
        Session(data.SerializeToString())


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


def test_an_output_that_is_listed_twice_or_is_an_input(model):
    data = model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": ["b", 5]}, ["y", "x", "y"])
    x = floats(3, 5)
    got = Session(data).run(None, {"x": x})
    for array, want in zip(got, [np.maximum(x, 0), x, np.maximum(x, 0)], strict=True):
        np.testing.assert_array_equal(array, want)
    assert not any(np.shares_memory(a, b) for i, a in enumerate(got) for b in got[:i])


def test_no_names_means_every_output_and_a_name_may_come_twice(small):
    session, x = Session(small), floats(2, 3, 12, 12)
    want = session.run(None, {"x": x})
    assert len(session.run([], {"x": x})) == len(want)
    first, second = session.run(["y", "y"], {"x": x}, None)
    np.testing.assert_array_equal(first, second)
    assert not np.shares_memory(first, second)


@pytest.mark.parametrize("threads", [2.5, "2", None, 257])
def test_threads_that_are_no_number(small, threads):
    with pytest.raises(UserError, match="threads"):
        Session(small, threads)


@pytest.mark.parametrize("source", [None, 5, bytearray(b"model")])
def test_sources_that_are_no_path(source):
    with pytest.raises(UserError, match="path"):
        Session(source)


def test_what_onnxruntime_takes_and_the_engine_does_not(small):
    x = floats(1, 3, 12, 12)
    with pytest.raises(UnsupportedError, match="providers"):
        Session(small, providers=["CPUExecutionProvider"])
    session = Session(small, providers=None)
    with pytest.raises(UnsupportedError, match="run options"):
        session.run(None, {"x": x}, object())
    for feed in (x, None, [("x", x)]):
        with pytest.raises(UserError, match="name: array"):
            session.run(None, feed)
    with pytest.raises(UserError, match="list of names"):
        session.run("y", {"x": x})


def test_outputs_of_other_types_are_refused(model):
    data = onnx.load_model_from_string(
        model([helper.make_node("Identity", ["x"], ["y"])], {}, {"x": ["b", 4]}, dtype=TensorProto.UINT8)
    )
    data.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    with pytest.raises(UnsupportedError, match="output 'y' is uint8"):
        Session(data.SerializeToString())


def test_a_model_of_open_size_is_planned_for_given_shapes(model):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    data = model(nodes, {"w": floats(4, 3, 3, 3)}, {"x": ["b", 3, "h", "w_"]})
    session = Session(data)
    with pytest.raises(UnsupportedError, match=r"'x' \['b', 3, 'h', 'w_'\].*--shape"):
        session.layers()
    session.plan({"x": [1, 3, 20, 24]})
    assert [layer.layer for layer in session.layers()] == ["conv"]
    assert explain(data, shapes={"x": [1, 3, 20, 24]}) == session.layers()
    assert session.run(None, {"x": floats(2, 3, 20, 24)})[0].shape == (2, 4, 18, 22)
    for wrong in ([1, 4, 20, 24], [1, 3, 20], [1, 3, 20, 0]):
        with pytest.raises(UserError, match="cannot have the shape"):
            session.plan({"x": wrong})
    with pytest.raises(UserError, match="shapes of"):
        session.plan({"z": [1, 3, 20, 24]})


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


def test_a_chain_of_many_nodes_keeps_its_readers_while_it_is_fused(model, check):
    """Every residual stream is read twice, every convolution's output once: 3 nodes become 1."""
    nodes = []
    for i in range(60):
        nodes.append(helper.make_node("Conv", [f"t{i}", "w"], [f"a{i}"], pads=[1, 1, 1, 1], name=f"conv{i}"))
        nodes.append(helper.make_node("Add", [f"a{i}", f"t{i}"], [f"s{i}"]))
        nodes.append(helper.make_node("Relu", [f"s{i}"], [f"t{i + 1}" if i < 59 else "y"]))
    data = model(nodes, {"w": np.float32(0.05) * floats(4, 4, 3, 3)}, {"t0": ["b", 4, 8, 8]})
    check(data, {"t0": floats(2, 4, 8, 8)})
    steps = fuse(translate(read_graph(data), {"t0": (4, 8, 8)}, None)).steps
    assert [(type(step), step.residual) for step in steps] == [(Conv, f"t{i}") for i in range(60)]


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
