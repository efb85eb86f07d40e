"""Damaged files: a typed error or a run, never a crash. The same tests run under sanitizers (sanitize.sh)."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tdcompress.engine import Session
from tdcompress.errors import TdcompressError

SIZE = 12


@pytest.fixture(scope="module")
def network(model) -> bytes:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "s", "s", "s"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["d"], strides=[2, 2], group=2, dilations=[1, 2], pads=[0, 2, 1, 1]),
        helper.make_node("MaxPool", ["d"], ["p"], kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node("Concat", ["p", "p"], ["k"], axis=1),
        helper.make_node("Transpose", ["k"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Pad", ["t", "pads"], ["q"]),
        helper.make_node("Slice", ["q", "from", "to", "axes"], ["l"]),
        helper.make_node("Flatten", ["l"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"], axis=1),
    ]
    constants = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "s": np.full(4, 0.5, np.float32),
        "v": rng.standard_normal((6, 2, 3, 2)).astype(np.float32),
        "pads": np.array([0, 1, 0, 0, 0, 0, 1, 2], np.int64),
        "from": np.array([1], np.int64),
        "to": np.array([6], np.int64),
        "axes": np.array([3], np.int64),
    }
    return model(nodes, constants, {"x": ["b", 3, SIZE, SIZE]})


def try_to_run(data: bytes) -> bool:
    """Whether it ran; anything but a typed error fails the test."""
    try:
        session = Session(data)
        shapes = [
            [2 if isinstance(size, str) or size is None else size for size in value.shape] for value in session.get_inputs()
        ]
        if any(np.prod(shape, dtype=float) > 1e6 for shape in shapes):
            return False
        feed = {value.name: np.ones(shape, np.float32) for value, shape in zip(session.get_inputs(), shapes, strict=True)}
        session.run(None, feed)
    except TdcompressError:
        return False
    return True


def test_the_undamaged_network_runs(network, check):
    check(network, {"x": np.random.default_rng(1).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)})


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.floats(0.3, 1.5),
)
def test_changed_bytes(network, changes, cut):
    data = bytearray(network)
    for position, value in changes:
        data[int(position * len(data))] = value
    try_to_run(bytes(data[: int(cut * len(data))]))


ATTRIBUTES = ("pads", "strides", "dilations", "group", "kernel_shape", "axis", "perm", "ceil_mode", "auto_pad")


@settings(max_examples=300, derandomize=True, deadline=None)
@given(data=st.data())
def test_changed_attributes_shapes_and_wiring(network, data):
    model = onnx.load_model_from_string(network)
    number = st.sampled_from([-(2**40), -7, -1, 0, 1, 2, 3, 5, 11, 1000, 2**31, 2**62])
    for _ in range(data.draw(st.integers(1, 3))):
        node = model.graph.node[data.draw(st.integers(0, len(model.graph.node) - 1))]
        what = data.draw(st.sampled_from(["attribute", "weight", "input", "wire", "constant"]))
        if what == "attribute" and node.attribute:
            attribute = node.attribute[data.draw(st.integers(0, len(node.attribute) - 1))]
            if attribute.ints:
                attribute.ints[data.draw(st.integers(0, len(attribute.ints) - 1))] = data.draw(number)
            else:
                attribute.i = data.draw(number)
        elif what == "weight":
            tensor = model.graph.initializer[data.draw(st.integers(0, len(model.graph.initializer) - 1))]
            tensor.dims[0] = data.draw(number)
        elif what == "input":
            dims = model.graph.input[0].type.tensor_type.shape.dim
            dims[data.draw(st.integers(0, 3))].dim_value = data.draw(number)
        elif what == "wire":
            names = ["x", *(output for other in model.graph.node for output in other.output), "w", "s", "pads", ""]
            node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from(names))
        else:
            tensor = model.graph.initializer[data.draw(st.integers(3, len(model.graph.initializer) - 1))]
            values = np.frombuffer(tensor.raw_data, np.int64).copy()
            values[data.draw(st.integers(0, len(values) - 1))] = data.draw(number)
            tensor.raw_data = values.tobytes()
    try_to_run(model.SerializeToString())
