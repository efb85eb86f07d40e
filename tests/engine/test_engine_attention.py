"""What exported attention does with its axes: batch joined with heads, batch behind, a past without elements, positions, NaN."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import make_model, normal

from tdcompress.engine import Session
from tdcompress.engine.constants.evaluate import evaluate
from tdcompress.engine.read import Node
from tdcompress.errors import UnsupportedError

RNG = np.random.default_rng(11)
floats = partial(normal, RNG)


def chain(*spec: tuple) -> list:
    """(operator, inputs, output, attributes) -> nodes named after their outputs."""
    return [
        helper.make_node(op, inputs, [output], name=output, **(rest[0] if rest else {})) for op, inputs, output, *rest in spec
    ]


SIZES = [
    ("Shape", ["x"], "batch", {"end": 1}),
    ("Shape", ["x"], "length", {"start": 2, "end": 3}),
]
CONSTANTS = {
    "joint": np.array([-1, 5, 6]),
    "apart": np.array([-1, 4, 5, 6]),
    "turned": np.array([-1, 4, 6, 5]),
    "four": np.array([4]),
    "six": np.array([6]),
    "minus": np.array([-1]),
    "scale": np.array([0.25], np.float32),
    "bias": floats(6),
    "rows": floats(5, 1),
    "right": floats(6, 3),
    "left": floats(7, 6),
    "flat": np.array([0, -1]),
}
JOINED = {
    "turned": [
        ("Reshape", ["x", "joint"], "j"),
        ("Transpose", ["j"], "t", {"perm": [0, 2, 1]}),
        ("Reshape", ["t", "turned"], "y"),
    ],
    "with sizes that are looked up": [
        *SIZES,
        ("Concat", ["minus", "length", "six"], "to", {"axis": 0}),
        ("Concat", ["batch", "four", "six", "length"], "again", {"axis": 0}),
        ("Reshape", ["x", "to"], "j"),
        ("Transpose", ["j"], "t", {"perm": [0, 2, 1]}),
        ("Reshape", ["t", "again"], "y"),
    ],
    "arithmetic": [
        ("Reshape", ["x", "joint"], "j"),
        ("Mul", ["j", "scale"], "m"),
        ("Add", ["m", "bias"], "a"),
        ("Sub", ["a", "rows"], "b"),
        ("Tanh", ["b"], "h"),
        ("Max", ["h", "j"], "n"),
        ("Reshape", ["n", "apart"], "y"),
    ],
    "products": [
        ("Reshape", ["x", "joint"], "j"),
        ("Transpose", ["j"], "t", {"perm": [0, 2, 1]}),
        ("MatMul", ["j", "t"], "p"),
        ("MatMul", ["p", "j"], "q"),
        ("MatMul", ["q", "right"], "r"),
        ("Reshape", ["r", "back"], "y"),
    ],
}


@pytest.mark.parametrize("case", JOINED)
def test_batch_joined_with_heads(model, check, isa, case):
    data = model(chain(*JOINED[case]), {**CONSTANTS, "back": np.array([-1, 4, 5, 3])}, {"x": ["b", 4, 5, 6]})
    for batch in (1, 3):
        check(data, {"x": floats(batch, 4, 5, 6)}, isa)


BEHIND = {
    "logits": [
        ("Transpose", ["x"], "t", {"perm": [1, 0]}),
        ("MatMul", ["left", "t"], "m"),
        ("Relu", ["m"], "r"),
        ("Mul", ["r", "scale"], "s"),
        ("Transpose", ["s"], "y", {"perm": [1, 0]}),
    ],
    "no perm": [("Transpose", ["x"], "t"), ("Neg", ["t"], "n"), ("Transpose", ["n"], "y")],
}


@pytest.mark.parametrize("case", BEHIND)
def test_batch_as_the_last_axis(model, check, isa, case):
    data = model(chain(*BEHIND[case]), CONSTANTS, {"x": ["b", 6]})
    for batch in (1, 3):
        check(data, {"x": floats(batch, 6)}, isa)


def test_batch_as_the_middle_axis(model, check, isa):
    """(tokens, batch, features), as torch's own attention has it."""
    nodes = chain(
        ("Transpose", ["x"], "t", {"perm": [1, 0, 2]}),
        ("MatMul", ["t", "right"], "m"),
        ("Add", ["m", "c"], "a"),
        ("Reshape", ["a", "heads"], "h"),  # (tokens, batch * 3, 1)
        ("Transpose", ["h"], "f", {"perm": [1, 0, 2]}),
        ("Reshape", ["f", "back"], "y"),
    )
    constants = {**CONSTANTS, "c": floats(3), "heads": np.array([5, -1, 1]), "back": np.array([-1, 3, 5])}
    data = model(nodes, constants, {"x": ["b", 5, 6]})
    for batch in (1, 3):
        check(data, {"x": floats(batch, 5, 6)}, isa)


REFUSED = {
    "softmax": [("Transpose", ["x"], "t", {"perm": [2, 1, 0]}), ("Softmax", ["t"], "s"), ("Transpose", ["s"], "y")],
    "a sum": [("Transpose", ["x"], "t"), ("ReduceSum", ["t", "ones"], "y")],
    "an output": [("Transpose", ["x"], "y", {"perm": [1, 0, 2]})],
    "an output with heads": [("Reshape", ["x", "pairs"], "y")],
    "a constant along it": [("Transpose", ["x"], "t"), ("Add", ["t", "three"], "a"), ("Transpose", ["a"], "y")],
    "a product along it": [("Transpose", ["x"], "t", {"perm": [2, 1, 0]}), ("MatMul", ["t", "square"], "y")],
    "a product that sums over it": [("Transpose", ["x"], "t", {"perm": [2, 1, 0]}), ("MatMul", ["x", "t"], "y")],
    "two places": [("Transpose", ["x"], "t", {"perm": [1, 0, 2]}), ("Add", ["x", "t"], "y")],
    "a join that is no join": [("Reshape", ["x", "mixed"], "y")],
    "a join behind another axis": [("Transpose", ["x"], "t", {"perm": [1, 0, 2]}), ("Reshape", ["t", "pairs"], "y")],
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_works_across_the_batch_is_refused(model, case):
    constants = {
        "ones": np.array([1]),
        "pairs": np.array([-1, 2]),
        "three": floats(3),
        "square": floats(3, 3),
        "mixed": np.array([3, -1, 4]),
    }
    with pytest.raises(UnsupportedError, match=r"batch.*onnxruntime"):
        Session(model(chain(*REFUSED[case]), constants, {"x": ["b", 3, 4]}))


def past(nodes, **constants):
    return make_model(nodes, constants, {"x": ["b", 2, 1, 4], "past": ["b", 2, "past", 4]})


GROWS = {
    "joined": [("Concat", ["past", "x"], "y", {"axis": 2})],
    "scaled": [("Mul", ["past", "scale"], "s"), ("Concat", ["s", "x"], "y", {"axis": 2})],
    "turned": [
        ("Transpose", ["past"], "t", {"perm": [0, 1, 3, 2]}),
        ("Transpose", ["x"], "u", {"perm": [0, 1, 3, 2]}),
        ("Concat", ["t", "u"], "y", {"axis": 3}),
    ],
    "its length, with the sine of it": [
        ("Shape", ["past"], "n", {"start": 2, "end": 3}),
        ("Cast", ["n"], "f", {"to": TensorProto.FLOAT}),
        ("Sin", ["f"], "s"),
        ("Cos", ["f"], "c"),
        ("Mul", ["x", "c"], "m"),
        ("Add", ["m", "s"], "a"),
        ("Concat", ["past", "a"], "y", {"axis": 2}),
    ],
    "its batch": [
        ("Shape", ["past"], "n", {"end": 1}),
        ("Concat", ["n", "rest"], "t", {"axis": 0}),
        ("Reshape", ["x", "t"], "r"),
        ("Concat", ["past", "r"], "y", {"axis": 2}),
    ],
}


@pytest.mark.parametrize("case", GROWS)
def test_a_past_that_begins_without_elements(reference, close, isa, case):
    data = past(chain(*GROWS[case]), scale=np.float32(0.5), rest=np.array([2, 1, 4]))
    session = Session(data, isa=isa)
    for length in (0, 1, 3, 0):
        feed = {"x": floats(3, 2, 1, 4), "past": floats(3, 2, length, 4)}
        close(session.run(None, feed), reference(data, feed))


@pytest.mark.parametrize(
    "nodes",
    [
        [("ReduceSum", ["past", "two"], "s"), ("Add", ["x", "s"], "y")],
        [("Transpose", ["past"], "t", {"perm": [1, 0, 2, 3]}), ("Concat", ["t", "x"], "y", {"axis": 2})],
        [("Shape", ["past"], "n", {"end": 1}), ("Cast", ["n"], "f", {"to": TensorProto.FLOAT}), ("Mul", ["x", "f"], "y")],
    ],
    ids=["a sum of none", "moved", "the batch as a number"],
)
def test_what_is_made_out_of_no_elements_is_refused(nodes):
    session = Session(past(chain(*nodes), two=np.array([2])))
    with pytest.raises(UnsupportedError, match=r"axis of size 0|computed from the batch size"):
        session.run(None, {"x": floats(3, 2, 1, 4), "past": floats(3, 2, 0, 4)})


@pytest.mark.parametrize("fused", [False, True])
def test_is_nan(model, check, isa, fused):
    nodes = [("IsNaN", ["x"], "n"), ("Where", ["n", "zero", "x"], "y")]
    if fused:
        nodes = [("Softmax", ["x"], "s"), ("IsNaN", ["s"], "n"), ("Where", ["n", "zero", "s"], "y")]
    x = floats(2, 3, 20)
    x[0, 1, ::3] = np.nan
    if fused:
        x[1, 2, 5], x[1, 0, :2] = np.inf, -np.inf
    (found,) = check(model(chain(*nodes), {"zero": np.float32(0)}, {"x": ["b", 3, 20]}), {"x": x}, isa)
    assert not np.isnan(found).any()


@pytest.mark.parametrize("op", ["Sin", "Cos", "IsNaN"])
def test_folded_as_onnxruntime_computes_it(model, reference, op):
    """Positions are whole numbers up to the length of a sentence, times rates up to 1."""
    x = np.concatenate([floats(50), np.arange(300, dtype=np.float32), [np.float32(np.nan)]]).astype(np.float32)[None]
    data = model([helper.make_node(op, ["x"], ["f"]), helper.make_node("Cast", ["f"], ["y"], to=1)], {}, {"x": ["b", 351]})
    (mine,) = evaluate(Node(op=op, name="f", inputs=("x",), outputs=("f",), attributes={}), [x], 18)
    (theirs,) = reference(data, {"x": x})
    np.testing.assert_allclose(mine.astype(np.float32), theirs, atol=3e-7)


def test_positions_of_an_open_length(model, check, isa):
    """Sines and cosines of the places in a sentence, as the encoder of a translator has them."""
    nodes = chain(
        ("Shape", ["x"], "n", {"start": 1, "end": 2}),
        ("Squeeze", ["n"], "s"),
        ("Range", ["zero", "s", "one"], "r"),
        ("Cast", ["r"], "f", {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["f", "ones"], "u"),
        ("Mul", ["u", "rates"], "a"),
        ("Sin", ["a"], "sin"),
        ("Cos", ["a"], "cos"),
        ("Concat", ["sin", "cos"], "p", {"axis": 1}),
        ("Add", ["x", "p"], "y"),
    )
    constants = {"zero": np.array(0), "one": np.array(1), "ones": np.array([1]), "rates": np.exp(-(floats(1, 3) ** 2))}
    data = model(nodes, constants, {"x": ["b", "n", 6]})
    for length in (1, 9, 4):
        check(data, {"x": floats(2, length, 6)}, isa)
