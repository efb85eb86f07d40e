"""Packed files that nobody packed: every edit is a typed error, never a crash and never other weights than the runtime's."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from weights import dense_initializers

from tdcompress.errors import ModelError, UserError
from tdcompress.onnxfile import weights
from tdcompress.onnxfile.inspect import inspect_onnx
from tdcompress.onnxfile.load import load_model
from tdcompress.onnxfile.pack import pack_model, pack_onnx, unpack_onnx
from tdcompress.onnxfile.verify import verify_onnx

PREFIX = "tdc1.0.gap8.f4."


@pytest.fixture
def packed(make_small_net: Callable[..., onnx.ModelProto]) -> onnx.ModelProto:
    model, report = pack_model(make_small_net(0.9))
    assert report.encodings["gap8"] == 3
    return model


def tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    (found,) = (t for t in model.graph.initializer if t.name == PREFIX + name)
    return found


def put(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    tensor(model, name).CopyFrom(numpy_helper.from_array(array, PREFIX + name))


def refused(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        dense_initializers(model)


def test_codes_that_point_outside(packed: onnx.ModelProto) -> None:
    codes = numpy_helper.to_array(tensor(packed, "codes")).copy()
    codes[:] = 254
    put(packed, "codes", codes)
    refused(packed, "positions and values do not fit")


@pytest.mark.parametrize("change", [-1, 1])
def test_one_code_more_or_less(packed: onnx.ModelProto, change: int) -> None:
    codes = numpy_helper.to_array(tensor(packed, "codes"))
    put(packed, "codes", codes[:-1] if change < 0 else np.append(codes, np.uint8(0)))
    refused(packed, "positions and values do not fit")


def test_a_trailing_skip(packed: onnx.ModelProto) -> None:
    """Decodes to the same weights here, but a runtime would write outside: it is not what packing writes."""
    put(packed, "codes", np.append(numpy_helper.to_array(tensor(packed, "codes")), np.full(100, 255, np.uint8)))
    refused(packed, "not as this format writes them")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("sizes", np.array([1, -5, 4608, 320], np.int64), "no valid shapes|lack a part"),
        ("sizes", np.array([1, 432, 2**45, 320], np.int64), "unpacks to"),
        ("sizes", np.array([1, 432, 4608], np.int64), "lack a part"),
        ("sizes", np.array([1.0, 432.0, 4608.0, 320.0], np.float32), "is of type float32"),
        ("shape0", np.array([-1, 0, 3, 3], np.int64), "no valid shapes"),
        ("shape0", np.array([-1, 2**62, 2**62, 3], np.int64), "no valid shapes"),
        ("shape0", np.array([16, 3, 9], np.int64), "not as this format writes them"),
        ("axis", np.array(1, np.int64), "not as this format writes them"),
        ("skip", np.array(254, np.int32), "not as this format writes them"),
        ("length", np.array([2**40], np.int64), "not as this format writes them"),
        ("sizes", np.array([2, 431, 4608, 320], np.int64), "no valid shapes|do not fit|not as this format writes them"),
    ],
)
def test_edited_constants(packed: onnx.ModelProto, name: str, array: np.ndarray, message: str) -> None:
    put(packed, name, array)
    refused(packed, message)


def test_values_that_are_zero_or_of_another_type(packed: onnx.ModelProto) -> None:
    values = numpy_helper.to_array(tensor(packed, "values")).copy()
    first = values.copy()
    first[0] = 7.0  # every pruned weight would become 7 in a runtime
    put(packed, "values", first)
    refused(packed, "not as this format writes them")
    second = values.copy()
    second[5] = 0.0
    put(packed, "values", second)
    refused(packed, "not as this format writes them")
    put(packed, "values", values.astype(np.float64))
    refused(packed, "is of type float64")


def test_edited_nodes(packed: onnx.ModelProto, edits: Callable) -> None:
    for edited in edits(packed):
        with pytest.raises(ModelError):
            dense_initializers(edited)
    extra = onnx.ModelProto()
    extra.CopyFrom(packed)
    extra.graph.node.append(helper.make_node("Neg", [PREFIX + "flat"], ["y"]))
    refused(extra, "lack a part|not as this format writes them")


def test_missing_and_unknown_sections(packed: onnx.ModelProto) -> None:
    for place in range(len(packed.graph.initializer)):
        edited = onnx.ModelProto()
        edited.CopyFrom(packed)
        if edited.graph.initializer[place].name.startswith("tdc1."):
            del edited.graph.initializer[place]
            with pytest.raises(ModelError):
                dense_initializers(edited)
    for name, message in [
        ("tdc1.0.gap9.f4.codes", "an encoding that this version does not know"),
        ("tdc1.7.gap8.f4.codes", "in the wrong graph"),
        ("tdc1.zzz", "not of a known format"),
    ]:
        edited = onnx.ModelProto()
        edited.CopyFrom(packed)
        edited.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.uint8), name))
        refused(edited, message)


def test_the_ratio_of_unpacked_to_packed_is_capped(packed: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "UNPACKED_FLOOR_BYTES", 0)
    dense_initializers(packed)
    monkeypatch.setattr(weights, "UNPACKED_RATIO", 1)
    refused(packed, "more than a file of this size may")


def sparse(values: list[float], indices: np.ndarray, dims: list[int]) -> onnx.ModelProto:
    graph = helper.make_graph([], "g", [], [])
    graph.sparse_initializer.append(
        onnx.SparseTensorProto(
            values=numpy_helper.from_array(np.array(values, np.float32), "w"),
            indices=numpy_helper.from_array(indices, ""),
            dims=dims,
        )
    )
    return helper.make_model(graph)


@pytest.mark.parametrize(
    ("indices", "dims", "message"),
    [
        (np.array([0, 9], np.int64), [3, 3], "must increase from 0"),
        (np.array([-1, 2], np.int64), [3, 3], "must increase from 0"),
        (np.array([2, 2], np.int64), [3, 3], "must increase from 0"),
        (np.array([3, 1], np.int64), [3, 3], "must increase from 0"),
        (np.array([[0, 1], [0, 3]], np.int64), [3, 3], "outside its shape"),
        (np.array([[0, -1], [0, 1]], np.int64), [3, 3], "outside its shape"),
        (np.array([0, 1, 2], np.int64), [3, 3], "2 values but indices"),
        (np.array([0, 1], np.int32), [3, 3], "indices int32"),
        (np.array([0, 1], np.int64), [3, -3], "shape"),
        (np.array([0, 1], np.int64), [2**31, 2**31], "unpacks to"),
    ],
)
def test_sparse_initializers_are_checked(indices: np.ndarray, dims: list[int], message: str) -> None:
    refused(sparse([1.0, 2.0], indices, dims), message)


def test_dense_initializers_are_checked(make_small_net: Callable[..., onnx.ModelProto]) -> None:
    for dims in ([10**6, 10**6], [-1, 32], [3]):
        model = make_small_net()
        (head,) = (t for t in model.graph.initializer if t.name == "head.weight")
        head.dims[:] = dims
        refused(model, "'head.weight'")


def test_flipped_bits_never_crash(packed: onnx.ModelProto, tmp_path) -> None:
    """Each flip is refused by a typed error, or leaves a file that still reads as a model."""
    whole = packed.SerializeToString(deterministic=True)
    random = np.random.default_rng(0)
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    outcomes = {"refused": 0, "read": 0}
    for _ in range(150):
        data = bytearray(whole)
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        path.write_bytes(data)
        try:
            dense_initializers(load_model(path))
            inspect_onnx(path)
            unpack_onnx(path, out)
            outcomes["read"] += 1
        except UserError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 0


def test_nothing_is_written_when_the_source_is_damaged(packed: onnx.ModelProto, tmp_path) -> None:
    put(packed, "skip", np.array(254, np.int32))
    (tmp_path / "m.onnx").write_bytes(packed.SerializeToString())
    for attempt in (pack_onnx, unpack_onnx):
        with pytest.raises(ModelError):
            attempt(tmp_path / "m.onnx", tmp_path / "out.onnx")
    with pytest.raises(ModelError):
        verify_onnx(tmp_path / "m.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("do", [inspect_onnx, verify_onnx, pack_onnx, unpack_onnx])
def test_messages_name_file_weights_and_cause(do: Callable, packed: onnx.ModelProto, tmp_path) -> None:
    codes = numpy_helper.to_array(tensor(packed, "codes"))
    put(packed, "codes", codes[:-1])
    path = tmp_path / "m.onnx"
    path.write_bytes(packed.SerializeToString())
    with pytest.raises(ModelError) as caught:
        do(path, tmp_path / "out.onnx") if do in (pack_onnx, unpack_onnx) else do(path)
    assert str(caught.value) == (
        f"{path}: packed weights at 'tdc1.0.gap8.f4.' (conv1.weight, conv2.weight and 1 more): "
        "positions and values do not fit; the file is damaged; "
        "names that begin with 'tdc1.' are reserved for packed weights: in a file that was never packed, rename them"
    )


@pytest.mark.parametrize("name", ["tdc1.0.gap4.f4.codes", "tdc1.0.gap8.f4.values", "tdc1.mine", "tdc1.0.mine.f4.codes"])
def test_a_users_own_weight_of_a_reserved_name(make_small_net: Callable[..., onnx.ModelProto], name: str) -> None:
    model = make_small_net(0.9)
    for node in model.graph.node:
        for place, read in enumerate(node.input):
            if read == "conv2.weight":
                node.input[place] = name
    (weight,) = (t for t in model.graph.initializer if t.name == "conv2.weight")
    weight.name = name
    onnx.checker.check_model(model)
    with pytest.raises(ModelError, match="reserved for packed weights: in a file that was never packed, rename"):
        pack_model(model)


def test_labels_of_other_tools_do_not_matter(packed: onnx.ModelProto) -> None:
    before = {name: array.tobytes() for name, array in dense_initializers(packed).items()}
    for number, node in enumerate(packed.graph.node):
        node.name = f"renamed_{number}"
        node.doc_string = "seen by another tool"
    assert {name: array.tobytes() for name, array in dense_initializers(packed).items()} == before
