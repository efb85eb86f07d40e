"""int8 sums are the same on every processor: no portable weight saturates, and a file that can says so where it would."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pair_sums
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tdcompress.bench.modelfile import read_model_file
from tdcompress.errors import VerificationError
from tdcompress.onnxfile.load import load_model, save_model
from tdcompress.onnxfile.quantise import quantise_int8
from tdcompress.onnxfile.runtime import open_session, run_session
from tdcompress.onnxfile.saturation import PORTABLE_MAGNITUDE, full_range_weights, saturation_note
from tdcompress.onnxfile.verify import QUANTISED_TOLERANCE, verify_onnx
from tdcompress.processor import Processor, read_processor

HASWELL = Processor(name="Haswell", machine="x86_64", flags=("avx2", "fma"))
ICE_LAKE = Processor(name="Ice Lake", machine="x86_64", flags=("avx2", "avx512_vnni"))
ALDER_LAKE = Processor(name="Alder Lake", machine="amd64", flags=("avx2", "avx_vnni"))
GRAVITON = Processor(name="Graviton", machine="aarch64", flags=("asimddp",))
UNREADABLE = Processor(name="unknown", machine="amd64", flags=())

weights = st.integers(-PORTABLE_MAGNITUDE, PORTABLE_MAGNITUDE)
activations = st.integers(0, 255)


@given(st.lists(st.tuples(activations, weights), min_size=2, max_size=9))
def test_no_portable_weight_can_saturate_a_pair_sum(terms: list[tuple[int, int]]) -> None:
    a, w = (np.array(values) for values in zip(*terms, strict=True))
    x, y = a.astype(np.uint8)[None], w.astype(np.int8)[:, None]
    exact = pair_sums.pair_sums(x, y, saturate=False)
    assert exact.item() == int(a @ w)
    assert pair_sums.pair_sums(x, y, saturate=True) == exact


@pytest.mark.parametrize("sign", [1, -1])
def test_the_portable_range_is_the_largest_that_cannot(sign: int) -> None:
    x = np.full((1, 2), 255, np.uint8)
    for magnitude, same in ((PORTABLE_MAGNITUDE, True), (PORTABLE_MAGNITUDE + 1, False)):
        w = np.full((2, 1), sign * magnitude, np.int8)
        assert (pair_sums.pair_sums(x, w, saturate=True) == pair_sums.pair_sums(x, w, saturate=False)).all() == same


@pytest.fixture(scope="module")
def quantised(make_small_net: Callable, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("quantised")
    save_model(make_small_net(0.0), folder / "m.onnx")
    for weight_range in ("portable", "full"):
        quantise_int8(folder / "m.onnx", folder / f"{weight_range}.onnx", samples(), weight_range=weight_range)
    return {weight_range: folder / f"{weight_range}.onnx" for weight_range in ("portable", "full")}


def samples() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)


def test_a_portable_file_gives_the_same_with_saturating_sums(quantised: dict[str, Path]) -> None:
    model = load_model(quantised["portable"])
    assert full_range_weights(model) == []
    assert max(np.abs(w.astype(int)).max() for w in pair_sums.int8_matrices(model)) == PORTABLE_MAGNITUDE
    pair_sums.check_portable(model, samples())


def test_the_model_of_saturating_sums_sees_what_a_full_range_file_loses(quantised: dict[str, Path]) -> None:
    model = load_model(quantised["full"])
    assert len(full_range_weights(model)) == 3
    exact, cut = (pair_sums.evaluate(model, samples(), saturate=saturate) for saturate in (False, True))
    assert np.abs(exact - cut).max() > QUANTISED_TOLERANCE / 4 * np.abs(exact).max()


@pytest.mark.parametrize("weight_range", ["portable", "full"])
def test_the_model_is_what_onnxruntime_computes_here(quantised: dict[str, Path], weight_range: str) -> None:
    """On x86 without VNNI the sums are cut, elsewhere they are not; this network has no value that lies between two steps."""
    model = load_model(quantised[weight_range])
    saturates = read_processor().saturates
    expected = [pair_sums.evaluate(model, samples(), saturate=s) for s in ((False, True) if saturates is None else (saturates,))]
    given = run_session(open_session(model), {"input": samples()})[0]
    assert min(np.abs(given - outputs).max() for outputs in expected) < QUANTISED_TOLERANCE / 8 * np.abs(given).max()


@pytest.mark.parametrize(
    ("processor", "saturates"), [(HASWELL, True), (ICE_LAKE, False), (ALDER_LAKE, False), (GRAVITON, False), (UNREADABLE, None)]
)
def test_which_processors_saturate(processor: Processor, saturates: bool | None) -> None:
    assert processor.saturates is saturates
    assert (saturation_note(2, processor) is None) == (saturates is False)
    assert saturation_note(0, processor) is None


def test_verify_says_when_a_full_range_file_meets_a_processor_that_saturates(quantised: dict[str, Path], tmp_path: Path) -> None:
    assert verify_onnx(quantised["portable"], processor=HASWELL).notes == ()
    assert verify_onnx(quantised["full"], processor=ICE_LAKE).notes == ()
    (note,) = verify_onnx(quantised["full"], processor=HASWELL).notes
    assert note.startswith(
        "3 full-range int8 weights: their 8-bit sums can saturate on this processor (Haswell: x86 without VNNI)"
    )
    (note,) = verify_onnx(quantised["full"], processor=UNREADABLE).notes
    assert "can saturate on x86 without VNNI" in note
    outputs = run_session(open_session(quantised["full"]), {"input": samples()})[0]
    np.savez(tmp_path / "s.npz", input=samples(), output=outputs + np.abs(outputs).max())
    with pytest.raises(VerificationError, match=r"outputs differ by .*; 3 full-range int8 weights"):
        verify_onnx(quantised["full"], tmp_path / "s.npz", processor=HASWELL)


def test_the_benchmark_counts_them(quantised: dict[str, Path]) -> None:
    assert read_model_file(quantised["full"]).full_range == 3
    assert read_model_file(quantised["portable"]).full_range == 0


def test_bytes_that_are_no_weights_do_not_count(quantised: dict[str, Path]) -> None:
    model = onnx.load(quantised["portable"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(9, 127, np.int8), "vector"))
    assert full_range_weights(model) == []


@pytest.mark.parametrize(
    ("readers", "count"),
    [
        ([("Cast", TensorProto.FLOAT)], 0),
        ([("Cast", TensorProto.FLOAT16), ("Cast", TensorProto.FLOAT)], 0),
        ([("Cast", TensorProto.INT32)], 1),
        ([("Cast", TensorProto.FLOAT), ("Identity", None)], 1),
        ([("Identity", None)], 1),
    ],
)
def test_weights_that_are_stored_in_8_bits_and_computed_with_in_float_do_not_count(
    readers: list[tuple[str, int | None]], count: int
) -> None:
    """Weight-only files: a Cast and a Mul by the scales stand before each MatMul."""
    nodes = [
        helper.make_node(kind, ["w"], [f"y{place}"], **({} if to is None else {"to": to}))
        for place, (kind, to) in enumerate(readers)
    ]
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.UNDEFINED, None) for node in nodes]
    weight = numpy_helper.from_array(np.full((3, 3), 127, np.int8), "w")
    assert len(full_range_weights(helper.make_model(helper.make_graph(nodes, "g", [], outputs, [weight])))) == count


@pytest.mark.parametrize(("activations", "count"), [("float", 0), ("dequantised", 1)])
def test_dequantised_weights_count_where_activations_are_dequantised_too(activations: str, count: int) -> None:
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["d"]), helper.make_node("MatMul", ["x", "d"], ["y"])]
    kind = TensorProto.FLOAT
    if activations == "dequantised":
        nodes[1].input[0] = "a"
        nodes.insert(0, helper.make_node("DequantizeLinear", ["x", "s"], ["a"]))
        kind = TensorProto.INT8
    x, y = (helper.make_tensor_value_info(name, each, ["b", 3]) for name, each in (("x", kind), ("y", TensorProto.FLOAT)))
    held = [numpy_helper.from_array(np.full((3, 3), 127, np.int8), "w"), numpy_helper.from_array(np.float32(0.5), "s")]
    assert len(full_range_weights(helper.make_model(helper.make_graph(nodes, "g", [x], [y], held)))) == count
