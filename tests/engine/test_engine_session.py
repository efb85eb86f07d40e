"""The session: names, batches, threads, memory, wrong arguments."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from small_models import normal

from tdcompress.engine import Session, explain
from tdcompress.engine.binding import Library
from tdcompress.engine.fuse import fuse
from tdcompress.engine.read import read_graph
from tdcompress.engine.steps import Conv
from tdcompress.engine.translate.graph import translate
from tdcompress.errors import UnsupportedError, UserError

RNG = np.random.default_rng(3)
floats = partial(normal, RNG)


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
