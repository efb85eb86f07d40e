"""One program for all lengths that a model leaves open: the same numbers as a plan for each, and who has to have that."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_models import make_model, normal

from tdcompress.engine import Session, lengths
from tdcompress.engine.lengths import GrowingPlan, OpenLengths
from tdcompress.engine.polynomials import fit, monomials, sample_points
from tdcompress.engine.pool import SharedTables
from tdcompress.engine.read import read_graph
from tdcompress.engine.translate.follow import LengthError
from tdcompress.engine.translate.graph import with_folded_constants
from tdcompress.errors import UnsupportedError

RNG = np.random.default_rng(5)
floats = partial(normal, RNG)


def chain(*spec: tuple) -> list:
    """(operator, inputs, output, attributes) -> nodes named after their outputs."""
    return [
        helper.make_node(op, inputs, [output], name=output, **(rest[0] if rest else {})) for op, inputs, output, *rest in spec
    ]


ATTENTION = [
    ("Shape", ["past"], "n", {"start": 2, "end": 3}),
    ("Cast", ["n"], "f", {"to": TensorProto.FLOAT}),
    ("Mul", ["f", "rates"], "angles"),
    ("Sin", ["angles"], "place"),
    ("Add", ["x", "place"], "here"),
    ("MatMul", ["here", "w"], "q"),
    ("Add", ["q", "b"], "query"),
    ("Concat", ["past", "here"], "keys", {"axis": 2}),
    ("Shape", ["keys"], "s"),
    ("Slice", ["s", "two", "three"], "m"),
    ("Concat", ["minus", "m", "eight"], "joint", {"axis": 0}),
    ("Reshape", ["keys", "joint"], "j"),
    ("Transpose", ["j"], "t", {"perm": [0, 2, 1]}),
    ("Concat", ["minus", "heads", "eight", "m"], "apart", {"axis": 0}),
    ("Reshape", ["t", "apart"], "turned"),
    ("MatMul", ["query", "turned"], "scores"),
    ("Softmax", ["scores"], "share"),
    ("MatMul", ["share", "keys"], "y"),
]
CONSTANTS = {
    "rates": floats(8),
    "w": floats(8, 8) * (RNG.random((8, 8)) < 0.3),
    "b": floats(8),
    "two": np.array([2]),
    "three": np.array([3]),
    "minus": np.array([-1]),
    "eight": np.array([8]),
    "heads": np.array([2]),
}


@pytest.fixture(scope="module")
def attention() -> bytes:
    return make_model(chain(*ATTENTION), CONSTANTS, {"x": ["b", 2, "new", 8], "past": ["b", 2, "past", 8]}, ("y", "keys"))


def feed(new: int, past: int, batch: int = 2) -> dict[str, np.ndarray]:
    return {"x": floats(batch, 2, new, 8), "past": floats(batch, 2, past, 8)}


def test_any_lengths_give_what_onnxruntime_gives(attention, reference, close, isa):
    session = Session(attention, isa=isa)
    for new, past in [
        (3, 4),
        (1, 1),
        (1, 2),
        (2, 1),
        (40, 3),
        (1, 200),
        (33, 70),
        (1, 1),
        (64, 64),
        (5, 0),
        (1, 0),
        (2, 0),
        (65, 0),
    ]:
        given = feed(new, past)
        close(session.run(None, given), reference(attention, given))
    assert {present: program is not None for present, program in session._growing.items()} == {
        (True, True): True,
        (True, False): True,
    }


def test_a_plan_of_its_own_gives_the_same_bits(attention):
    grown = Session(attention)
    for past in (9, 10):
        grown.run(None, feed(1, past))
    assert grown._growing
    for new, past in [(2, 1), (4, 37), (6, 5), (70, 130)]:  # of four rows on, a dense layer has the same kernel
        given = feed(new, past)
        for mine, theirs in zip(grown.run(None, given), Session(attention).run(None, given), strict=True):
            assert mine.tobytes() == theirs.tobytes()


def test_one_length_is_planned_for_alone_and_the_second_for_all(attention, monkeypatch):
    planned = []
    monkeypatch.setattr(lengths, "_sample", lambda *given, made=lengths._sample: planned.append(given[1]) or made(*given))
    session = Session(attention)
    for _ in range(3):
        session.run(None, feed(1, 7))
    assert planned == []
    for past in range(8, 40):
        session.run(None, feed(1, past))
    assert len(planned) == 7  # six numbers of a polynomial in two lengths, and one to check it
    assert len(session._programs) == 1


def test_weights_are_in_memory_once(attention):
    session = Session(attention)
    session.run(None, feed(1, 7))
    for past in range(8, 20):
        session.run(None, feed(1, past))
    before = session._tables.nbytes
    for past in range(20, 60):
        session.run(None, feed(2, past))
    assert session._tables.nbytes == before
    weight = CONSTANTS["w"].T.tobytes()
    assert b"".join(block.tobytes() for block in session._tables.blocks).count(weight) <= 1


def test_calls_at_the_same_time_have_lengths_of_their_own(attention, reference, close):
    session = Session(attention)
    fed = [feed(1 + i % 3, 1 + i) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for given, found in zip(fed, pool.map(lambda each: session.run(None, each), fed), strict=True):
            close(found, reference(attention, given))


def made(nodes, inputs=None, **constants):
    return make_model(chain(*nodes), constants, inputs or {"x": ["b", "n", 8]})


EACH_ITS_OWN = {
    "a slice": (
        [("Slice", ["x", "from", "to", "axis"], "y")],
        {"from": np.array([0]), "to": np.array([25]), "axis": np.array([1])},
    ),
    "a slice from the end": (
        [("Slice", ["x", "from", "to", "axis"], "y")],
        {"from": np.array([-4]), "to": np.array([2**40]), "axis": np.array([1])},
    ),
    "a choice by length": (
        [
            ("Shape", ["x"], "n", {"start": 1, "end": 2}),
            ("Min", ["n", "some"], "m"),
            ("Concat", ["zero", "m", "minus"], "t", {"axis": 0}),
            ("Expand", ["c", "ones"], "e"),
            ("Reshape", ["x", "t"], "r"),
            ("ReduceSum", ["r", "last"], "y"),
        ],
        {
            "some": np.array([4]),
            "zero": np.array([0]),
            "minus": np.array([-1]),
            "c": floats(1),
            "ones": np.array([1]),
            "last": np.array([2]),
        },
    ),
    "a row": ([("Gather", ["x", "i"], "y", {"axis": 1})], {"i": np.array([3])}),
    "repeated": ([("Tile", ["x", "r"], "y")], {"r": np.array([1, 2, 1])}),
    "padded": ([("Pad", ["x", "p"], "y")], {"p": np.array([0, 1, 0, 0, 2, 0])}),
    "a size that is rounded": (
        [
            ("Shape", ["x"], "n", {"start": 1, "end": 2}),
            ("Cast", ["n"], "f", {"to": TensorProto.FLOAT}),
            ("Mul", ["f", "share"], "s"),
            ("Cast", ["s"], "w", {"to": TensorProto.INT64}),
            ("Add", ["w", "one"], "o"),
            ("Concat", ["zero", "o", "minus"], "t", {"axis": 0}),
            ("Reshape", ["x", "t"], "y"),
        ],
        {"share": np.float32(1 / 66), "one": np.array([1]), "zero": np.array([0]), "minus": np.array([-1])},
    ),
    "a slice at a length": (
        [
            ("Shape", ["x"], "n", {"start": 1, "end": 2}),
            ("Sub", ["n", "one"], "m"),
            ("Slice", ["x", "m", "n", "two"], "y"),
        ],
        {"one": np.array([1]), "two": np.array([2])},
    ),
    "weights of a length": (
        [
            ("Shape", ["x"], "n", {"start": 1, "end": 2}),
            ("Cast", ["n"], "f", {"to": TensorProto.FLOAT}),
            ("Mul", ["w", "f"], "v"),
            ("MatMul", ["x", "v"], "y"),
        ],
        {"w": floats(8, 3)},
    ),
}


@pytest.mark.parametrize("case", EACH_ITS_OWN)
def test_what_is_no_sum_of_lengths_is_planned_for_each(reference, close, case):
    nodes, constants = EACH_ITS_OWN[case]
    data = made(nodes, **constants)
    session = Session(data)
    for length in (4, 8, 6, 7) if case == "a slice at a length" else (4, 8, 12, 24, 28, 64, 72):
        given = {"x": floats(2, length, 8)}
        close(session.run(None, given), reference(data, given))
    assert list(session._growing.values()) == [None]


def test_a_table_of_positions_has_an_end(reference, close):
    nodes = [
        ("Shape", ["x"], "n", {"start": 1, "end": 2}),
        ("Slice", ["table", "zero", "n"], "p"),
        ("Add", ["x", "p"], "y"),
    ]
    data = made(nodes, table=floats(100, 8), zero=np.array([0]))
    session = Session(data)
    for length in (5, 6, 99, 100):
        given = {"x": floats(2, length, 8)}
        close(session.run(None, given), reference(data, given))
    assert session._growing[(True,)] is not None
    with pytest.raises(UnsupportedError, match="do not reach so far; give it shorter inputs"):
        session.run(None, {"x": floats(2, 101, 8)})
    close(session.run(None, given), reference(data, given))


def test_convolutions_are_planned_for_each_size(reference, close):
    data = make_model([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": floats(4, 3, 3, 3)}, {"x": ["b", 3, "h", "w_"]})
    session = Session(data)
    for size in ((8, 9), (12, 9), (20, 33), (8, 9)):
        given = {"x": floats(2, 3, *size)}
        close(session.run(None, given), reference(data, given))
    assert list(session._growing.values()) == [None]


def test_axes_of_one_name_with_two_lengths_have_a_plan_of_their_own(reference, close):
    data = make_model([helper.make_node("Concat", ["x", "z"], ["y"], axis=1)], {}, {"x": ["b", "n", 4], "z": ["b", "n", 4]})
    session = Session(data)
    for a, b in ((3, 3), (4, 4), (3, 5), (6, 6), (2, 7)):
        given = {"x": floats(2, a, 4), "z": floats(2, b, 4)}
        close(session.run(None, given), reference(data, given))
    assert session._growing[(True,)] is not None


def test_more_lengths_than_are_handled(reference, close):
    inputs = {name: ["b", None, 4] for name in ("x", "p", "q", "r")}
    data = make_model([helper.make_node("Concat", list(inputs), ["y"], axis=1)], {}, inputs)
    session = Session(data)
    for first in (3, 4, 9):
        given = {name: floats(2, first + i, 4) for i, name in enumerate(inputs)}
        close(session.run(None, given), reference(data, given))
    assert list(session._growing.values()) == [None]


def test_a_dense_layer_adds_its_bias_in_the_same_call(isa, check, model):
    nodes = chain(("MatMul", ["x", "w"], "m"), ("Add", ["m", "b"], "a"), ("Relu", ["a"], "y"))
    for shape in ((5,), (1, 5), (1, 1, 5), ()):
        data = model(nodes, {"w": floats(8, 5), "b": floats(*shape)}, {"x": ["b", 3, 8]})
        check(data, {"x": floats(2, 3, 8)}, isa)
    session = Session(model(nodes, {"w": floats(8, 5), "b": floats(5)}, {"x": ["b", 3, 8]}))
    assert next(iter(session._programs.values())).plan.op_count == 1


coefficients = st.lists(st.integers(-1000, 1000), min_size=6, max_size=6)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(rows=st.lists(coefficients, min_size=1, max_size=5))
def test_a_polynomial_is_found_exactly(rows):
    points = sample_points(2)
    wanted = np.array(rows, np.int64).T
    values = np.array([monomials(point) for point in points]) @ wanted
    np.testing.assert_array_equal(fit(points, values), wanted)


def test_what_is_no_polynomial_is_noticed():
    for count in (1, 2, 3):
        points = sample_points(count)
        for wrong in (lambda *n: min(n[0], 40), lambda *n: n[0] // 2, lambda *n: n[0] ** 3):
            with pytest.raises(LengthError):
                fit(points, np.array([[wrong(*point)] for point in points], np.int64))


def test_the_names_of_lengths(attention):
    graph = with_folded_constants(read_graph(attention))
    found = OpenLengths.of(graph)
    assert found.names == ("new", "past")
    assert found.found(((2, 3, 8), (2, 5, 8))) == (3, 5)
    assert found.shapes((3, 5)) == ((2, 3, 8), (2, 5, 8))
    with pytest.raises(LengthError, match="0 lengths"):
        GrowingPlan(graph, found, (False, False), None, Session(attention)._isa, SharedTables())
