"""What depends on the batch size: the batch axis may move through shapes; as a number it is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tdcompress.engine import Session
from tdcompress.engine.provenance import DERIVED, FREE, IS_BATCH
from tdcompress.engine.read import read_graph
from tdcompress.engine.translate.graph import translate_node
from tdcompress.engine.translate.state import Translation
from tdcompress.errors import UnsupportedError


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def chain(*spec: tuple) -> list:
    """(operator, inputs, output, attributes) -> nodes named after their outputs."""
    return [
        helper.make_node(op, inputs, [output], name=output, **(rest[0] if rest else {})) for op, inputs, output, *rest in spec
    ]


CONSTANTS = {
    "zero": np.array(0),
    "zeros": np.array([0]),
    "ones": np.array([1]),
    "ten": np.array(10),
    "one": np.float32(1),
    "two": np.float32(2),
    "minus": np.array([-1]),
    "minus_ones": np.array([-1, -1]),
    "rest": np.array([6]),
    "tail": np.array([1, 6]),
    "token": floats(1, 1, 6),
    "short": floats(1, 6),
}
BATCH = [("Shape", ["x"], "s"), ("Gather", ["s", "zero"], "b")]

LAST = [
    ("Gather", ["m", "last"], "l"),
    ("Cast", ["l"], "f", {"to": TensorProto.FLOAT}),
    ("Mul", ["x", "f"], "y"),
]
"""What is last in `m`, as a number."""

AS_A_NUMBER = {
    "times the batch": [*BATCH, ("Cast", ["b"], "f", {"to": TensorProto.FLOAT}), ("Mul", ["x", "f"], "y")],
    "over the size": [("Size", ["x"], "n"), ("Cast", ["n"], "f", {"to": TensorProto.FLOAT}), ("Div", ["x", "f"], "y")],
    "a choice": [*BATCH, ("Greater", ["b", "ten"], "g"), ("Where", ["g", "two", "one"], "w"), ("Mul", ["x", "w"], "y")],
    "without a bound": [
        *BATCH,
        ("Clip", ["b", ""], "c"),
        ("Cast", ["c"], "f", {"to": TensorProto.FLOAT}),
        ("Mul", ["x", "f"], "y"),
    ],
    "a bound": [*BATCH, ("Cast", ["b"], "f", {"to": TensorProto.FLOAT}), ("Clip", ["x", "f"], "y")],
    "another size": [
        *BATCH,
        ("Sub", ["b", "b"], "d"),
        ("Unsqueeze", ["d", "zeros"], "e"),
        ("Add", ["e", "rest"], "r"),
        ("Concat", ["zeros", "ones", "r"], "t", {"axis": 0}),
        ("Reshape", ["x", "t"], "y"),
    ],
    "not the batch": [
        ("Shape", ["x"], "s"),
        ("Slice", ["s", "zeros", "ones"], "b"),
        ("Min", ["b", "many"], "m"),
        ("Concat", ["m", "minus"], "t", {"axis": 0}),
        ("Reshape", ["x", "t"], "y"),
    ],
    "where a slice ends": [
        ("Shape", ["x"], "s"),
        ("Slice", ["s", "zeros", "ones"], "b"),
        ("Slice", ["x", "zeros", "b", "ones"], "y"),
    ],
    "a sum over sizes": [("Shape", ["x"], "s"), ("CumSum", ["s", "zero"], "m"), *LAST],
    "a product of sizes": [
        ("Shape", ["x"], "s"),
        ("Concat", ["ones", "s"], "s4", {"axis": 0}),
        ("Reshape", ["s4", "pairs"], "p"),
        ("MatMul", ["square", "p"], "q"),
        ("Reshape", ["q", "minus"], "m"),
        *LAST,
    ],
    "a size in another place": [("Shape", ["x"], "s"), ("ScatterElements", ["sizes", "places", "s"], "m"), *LAST],
    "a share of sizes": [("Shape", ["x"], "s"), ("Cast", ["s"], "c", {"to": TensorProto.FLOAT}), ("Softmax", ["c"], "m"), *LAST],
    "how long a range is": [
        *BATCH,
        ("Range", ["zero", "b", "step"], "r"),
        ("Shape", ["r"], "n"),
        ("Cast", ["n"], "f", {"to": TensorProto.FLOAT}),
        ("Mul", ["x", "f"], "y"),
    ],
    "how many are not zero": [
        ("Shape", ["x"], "s"),
        ("Sub", ["s", "sizes"], "d"),
        ("NonZero", ["d"], "r"),
        ("Size", ["r"], "n"),
        ("Cast", ["n"], "f", {"to": TensorProto.FLOAT}),
        ("Mul", ["x", "f"], "y"),
    ],
    "an axis behind the batch": [
        ("Shape", ["x"], "s"),
        ("Slice", ["s", "zeros", "ones"], "b"),
        ("Concat", ["b", "rest"], "t", {"axis": 0}),
        ("Slice", ["x", "zeros", "ones", "ones"], "r"),
        ("Expand", ["r", "t"], "y"),
    ],
    "a range": [*BATCH, ("Range", ["zero", "b", "step"], "r"), ("Cast", ["r"], "f", {"to": 1}), ("Add", ["x", "f"], "y")],
}


@pytest.mark.parametrize("case", AS_A_NUMBER)
def test_a_number_that_is_computed_from_the_batch_size_is_refused(model, check, case):
    constants = {**CONSTANTS, "many": np.array([2_000_000]), "step": np.array(1), "sizes": np.array([2, 5, 6])}
    constants |= {
        "last": np.array(-1),
        "pairs": np.array([2, 2]),
        "square": np.ones((2, 2), np.int64),
        "places": np.array([2, 1, 0]),
    }
    nodes = chain(*AS_A_NUMBER[case])
    with pytest.raises(UnsupportedError, match="batch size"):
        Session(model(nodes, constants, {"x": ["b", 5, 6]}))
    if case not in ("not the batch", "where a slice ends", "a range", "another size"):
        check(model(nodes, constants, {"x": [3, 5, 6]}), {"x": floats(3, 5, 6)})  # a fixed batch is a number like others


AS_A_SHAPE = {
    "view": [
        *BATCH,
        ("Unsqueeze", ["b", "zeros"], "u"),
        ("Concat", ["u", "minus"], "t", {"axis": 0}),
        ("Reshape", ["x", "t"], "y"),
    ],
    "by a mean": [
        ("Shape", ["x"], "s"),
        ("Gather", ["s", "last"], "n"),
        ("Cast", ["n"], "f", {"to": TensorProto.FLOAT}),
        ("Div", ["x", "f"], "y"),
    ],
    "times one": [
        ("Shape", ["x"], "s"),
        ("Slice", ["s", "zeros", "ones"], "b"),
        ("Mul", ["b", "ones"], "m"),
        ("Concat", ["m", "minus"], "t", {"axis": 0}),
        ("Reshape", ["x", "t"], "y"),
    ],
    "all of the batch": [
        ("Shape", ["x"], "s"),
        ("Slice", ["s", "zeros", "ones"], "b"),
        ("Slice", ["x", "zeros", "b", "zeros"], "y"),
    ],
    "a class token": [
        ("Shape", ["x"], "s"),
        ("Slice", ["s", "zeros", "ones"], "b"),
        ("Concat", ["b", "tail"], "t", {"axis": 0}),
        ("Expand", ["token", "t"], "c"),
        ("Concat", ["c", "x"], "y", {"axis": 1}),
    ],
    "a class token as older exporters write it": [
        ("Shape", ["x"], "s"),
        ("Slice", ["s", "zeros", "ones"], "b"),
        ("Concat", ["b", "minus_ones"], "wish", {"axis": 0}),
        ("ConstantOfShape", ["three"], "all_ones", {"value": helper.make_tensor("v", TensorProto.INT64, [1], [1])}),
        ("Mul", ["all_ones", "minus"], "all_minus"),
        ("Equal", ["wish", "all_minus"], "free"),
        ("Where", ["free", "all_ones", "wish"], "t"),
        ("Expand", ["token", "t"], "c"),
        ("Concat", ["x", "c"], "y", {"axis": 1}),
    ],
    "zeros in front": [
        ("Shape", ["x"], "s"),
        ("Slice", ["s", "zeros", "ones"], "b"),
        ("Concat", ["b", "tail"], "t", {"axis": 0}),
        ("ConstantOfShape", ["t"], "c"),
        ("Concat", ["c", "x"], "y", {"axis": 1}),
    ],
}


@pytest.mark.parametrize("case", AS_A_SHAPE)
def test_the_batch_may_move_through_shapes(model, check, case):
    constants = {**CONSTANTS, "last": np.array(2), "three": np.array([3])}
    data = model(chain(*AS_A_SHAPE[case]), constants, {"x": ["b", 5, 6]})
    for batch in (1, 2, 7):
        check(data, {"x": floats(batch, 5, 6)}, threads=2)


def test_marks_follow_the_elements(model):
    nodes = chain(
        ("Shape", ["x"], "s"),
        ("Mul", ["s", "twos"], "m"),
        ("Gather", ["s", "order"], "g"),
        ("Cast", ["s"], "bits", {"to": TensorProto.BOOL}),
        ("Relu", ["x"], "y"),
    )
    constants = {"twos": np.array([2, 2, 2]), "order": np.array([2, 0, 0])}
    graph = read_graph(model(nodes, constants, {"x": ["b", 5, 6]}))
    state = Translation(graph, None)
    state.shapes["x"] = (5, 6)
    for node in graph.nodes:
        translate_node(state, node)
    assert {name: marks.tolist() for name, marks in state.marks.items()} == {
        "s": [IS_BATCH, FREE, FREE],
        "m": [DERIVED, FREE, FREE],
        "g": [FREE, IS_BATCH, IS_BATCH],
        "bits": [DERIVED, FREE, FREE],
    }


def test_squeeze_without_axes_would_take_the_batch_of_one_image(model, check):
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["g"]), helper.make_node("Squeeze", ["g"], ["y"], name="squeeze")]
    for batch in ("b", 1):
        with pytest.raises(UnsupportedError, match="squeeze"):
            Session(model(nodes, {}, {"x": [batch, 3, 4, 4]}))
    check(model(nodes, {}, {"x": [2, 3, 4, 4]}), {"x": floats(2, 3, 4, 4)})
