"""Large weights, each with its own decoder: codes by hand, where they are used, what loading them takes, and damage."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from weights import dense_initializers

from tdcompress.errors import ModelError
from tdcompress.onnxfile.encodings.base import LARGE, Room, Section, SectionKey, Weight
from tdcompress.onnxfile.encodings.bits import SHARING, join, part
from tdcompress.onnxfile.encodings.steps import STEPS
from tdcompress.onnxfile.inspect import inspect_model
from tdcompress.onnxfile.optimised import optimised_differently
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.weights import densified

FLOAT32 = np.dtype(np.float32)
KEY = SectionKey(graph=0, encoding="steps", dtype=FLOAT32, stored=FLOAT32)


def constants(section: Section) -> dict[str, np.ndarray]:
    return {tensor.name.removeprefix(KEY.prefix): numpy_helper.to_array(tensor) for tensor in section.initializers}


def test_six_bits_by_hand() -> None:
    # byte 0 holds 1 and the lowest two bits of 0b100111, byte 1 holds 2 and the middle ones, byte 2 holds 3 and the highest
    assert join(np.array([1, 2, 3, 0b100111], np.uint8), 6).tolist() == [[0b11_000001], [0b01_000010], [0b10_000011]]


@given(st.sampled_from(sorted(SHARING)), st.integers(0, 9), st.integers(0, 2**32 - 1))
def test_codes_come_out_as_they_went_in(bits: int, groups: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, groups * SHARING[bits], np.uint8)
    joined = join(codes, bits)
    assert joined.size * 8 == codes.size * bits
    assert part(joined, bits).tolist() == codes.tolist()


def test_codes_of_a_vector_by_hand() -> None:
    array = np.zeros(600, np.float32)
    array[[3, 4, 300]] = [5, 6, 7]
    made = constants(STEPS.write([Weight(name="w", array=array)], KEY))
    # 300 is 296 places after 4: 8 bits tell 255 of them, at 259 a zero is kept
    assert made["codes0"].tolist() == [3, 1, 255, 41]
    assert made["values0"].tolist() == [5, 6, 0, 7]


def test_codes_are_filled_up_by_the_first_zeros() -> None:
    array = np.zeros(64, np.float32)
    array[[0, 2, 30, 50, 63]] = [1, 2, 3, 4, 5]
    made = constants(STEPS.write([Weight(name="w", array=array)], KEY))
    # 4 bits would keep a zero at 17 and at 45; with 8 bits nothing has to be kept, and 5 codes of 5 bytes are fewest
    assert made["codes0"].tolist() == [0, 2, 28, 20, 13]
    array[[7, 9, 11]] = 1  # 8 values: 6 bits in 6 bytes
    made = constants(STEPS.write([Weight(name="w", array=array)], KEY))
    assert part(made["codes0"], 6).tolist() == [0, 2, 5, 2, 2, 19, 20, 13]
    array[11] = 0  # 7 values, and the zero at 1
    made = constants(STEPS.write([Weight(name="w", array=array)], KEY))
    assert made["codes0"].tolist() == [0, 2, 5, 2, 21, 20, 13]


def test_rows_of_a_matrix_by_hand() -> None:
    array = np.zeros((2, 20), np.float32)
    array[0, [0, 5, 18, 19]] = [1, 2, 3, 4]
    array[1, [2, 3, 4, 5]] = [5, 6, 7, 8]
    section = STEPS.write([Weight(name="w", array=array)], KEY)
    made = constants(section)
    assert part(made["codes0"], 4).tolist() == [0, 5, 13, 1, 2, 1, 1, 1]
    assert made["values0"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert section.nodes[-1].op_type == "ScatterElements"  # no Reshape behind it
    assert list(section.nodes[-1].output) == ["w"]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(1, 300), st.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0]), st.integers(0, 2**32 - 1))
def test_no_place_is_written_twice(rows: int, columns: int, zeros: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    array = np.where(random.random((rows, columns)) < zeros, 0, 1).astype(np.float32)
    made = constants(STEPS.write([Weight(name="w", array=array)], KEY))
    values = made["values0"]
    steps = part(made["codes0"], 8 * made["codes0"].size // values.size).reshape(values.shape).astype(int)
    places = np.cumsum(steps, axis=-1)
    assert np.all(np.diff(places, axis=-1) > 0)
    assert np.all(places < (array.size if values.ndim == 1 else columns))


def matrices(random: np.random.Generator, zeros: float, *, even: bool, count: int = 4, size: int = 512) -> onnx.ModelProto:
    """A chain of square matrices; even: as many zeros in every row."""
    nodes, initializers = [], []
    for number in range(count):
        array = random.standard_normal((size, size)).astype(np.float32)
        order = np.abs(array) if even else np.abs(array).reshape(1, -1)
        gone = np.argsort(order, axis=1)[:, : int(zeros * order.shape[1])]
        np.put_along_axis(array if even else array.reshape(1, -1), gone, np.float32(0), axis=1)
        initializers.append(numpy_helper.from_array(array, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"x{number + 1}"]))
    ends = [helper.make_tensor_value_info(f"x{number}", TensorProto.FLOAT, ["batch", size]) for number in (0, count)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("zeros", "even", "values", "most"),
    [
        (0.6, False, "float32", 1.06),
        (0.9, False, "float32", 1.06),
        (0.9, True, "float32", 1.10),
        (0.97, False, "float32", 1.08),
        (0.99, True, "float32", 1.15),
        (0.9, True, "float16", 1.15),
        (0.99, False, "float16", 1.2),
    ],
)
def test_large_weights_are_written_where_they_stay(zeros: float, even: bool, values: str, most: float, arrays: Callable) -> None:
    dense = matrices(np.random.default_rng(0), zeros, even=even)
    assert LARGE <= 512 * 512
    packed, report = pack_model(dense, values=values)  # type: ignore[arg-type]
    assert report.encodings == {"steps": 4}
    assert report.file_bytes <= most * report.bound_bytes
    assert optimised_differently(dense, packed, contents=values == "float32") == ""
    if values == "float32":
        assert arrays(packed) == arrays(dense)


@pytest.mark.parametrize(("values", "encoding"), [("float32", "steps"), ("codebook16", "gap4")])
def test_large_weights_do_without_the_encodings_that_load_in_more_memory(values: str, encoding: str) -> None:
    dense = matrices(np.random.default_rng(1), 0.9, even=False)
    assert set(pack_model(dense, values=values)[1].encodings) == {encoding}  # type: ignore[arg-type]


@pytest.mark.parametrize(("even", "most"), [(True, 1.85), (False, 2.8)])
def test_loading_takes_the_weights_once_or_twice(even: bool, most: float) -> None:
    """In bytes of the dense file: weights, the zeros that they share, codes; once more what is scattered where rows differ."""
    dense = matrices(np.random.default_rng(1), 0.9, even=even)
    found = inspect_model(pack_model(dense)[0])
    assert set(found.encodings) == {"steps"}
    assert found.loading_bytes < most * dense.ByteSize()
    assert 0 < found.decoder_bytes < 1000  # what all four share: the shape, zeros, and numbers of the unpacking
    shared = inspect_model(pack_model(dense, prefer="size")[0])
    assert set(shared.encodings) == {"rice3"}
    assert shared.loading_bytes > 5 * dense.ByteSize()


def test_convolutions_and_small_weights(arrays: Callable) -> None:
    array = np.random.default_rng(0).standard_normal((256, 128, 3, 3)).astype(np.float32)
    array[np.abs(array) < 1.6] = 0
    assert array.size >= LARGE
    small = array[:100].copy()
    nodes = [helper.make_node("Conv", ["x", name], [f"y_{name}"]) for name in ("large", "small")]
    shapes = {"x": [1, 128, 5, 5], "y_large": [1, 256, 3, 3], "y_small": [1, 100, 3, 3]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    weights = [numpy_helper.from_array(array, "large"), numpy_helper.from_array(small, "small")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:], weights), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    packed, report = pack_model(model)
    assert {tensor.name: tensor.encoding for tensor in report.tensors} == {"large": "steps", "small": "gap4"}
    assert optimised_differently(model, packed) == ""
    assert arrays(densified(packed)) == arrays(model)


def damaged(section: Section, name: str, array: np.ndarray) -> Section:
    kept = [tensor for tensor in section.initializers if tensor.name != KEY.prefix + name]
    return Section(initializers=[*kept, numpy_helper.from_array(array, KEY.prefix + name)], nodes=section.nodes)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("codes0", np.array([90, 255, 255, 1], np.uint8), "do not fit"),  # beyond the end
        ("codes0", np.array([3, 0, 255, 41], np.uint8), "do not fit"),  # one place twice
        ("codes0", np.array([3, 1, 255, 41, 1], np.uint8), "do not fit"),
        ("codes0", np.array([3, 1, 100, 41], np.int8), "is of type int8"),
        ("codes0", np.zeros(0, np.uint8), "do not fit"),
        ("values0", np.zeros((2, 2), np.float32), "do not fit"),
        ("values0", np.zeros(4, np.float64), "is of type float64"),
        ("shape600", np.array([2**45], np.int64), "unpacks to"),
        ("shape600", np.array([-600], np.int64), "no valid shapes"),
        ("shape600", np.zeros((0,), np.int64), "do not fit"),
    ],
)
def test_damage_is_named(name: str, array: np.ndarray, message: str) -> None:
    whole = np.zeros(600, np.float32)
    whole[[3, 4, 300]] = [5, 6, 7]
    section = STEPS.write([Weight(name="w", array=whole)], KEY)
    assert constants(section)["codes0"].tolist() == [3, 1, 255, 41]
    with pytest.raises(ModelError, match=message):
        STEPS.read(damaged(section, name, array), KEY, Room(left_bytes=2**30))


def test_edited_nodes_are_refused(edits: Callable) -> None:
    packed, _ = pack_model(matrices(np.random.default_rng(2), 0.9, even=False, count=1))
    edited = list(edits(packed))
    assert len(edited) >= 16
    for model in edited:
        with pytest.raises(ModelError):
            dense_initializers(model)
