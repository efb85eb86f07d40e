"""Short names in a file, and the list that gives the names back."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.engine.provider import source_model
from tdcompress.engine.session import Session
from tdcompress.errors import ModelError, UserError
from tdcompress.inspection import file_tables
from tdcompress.onnxfile.inspect import inspect_model
from tdcompress.onnxfile.listed_names import KEY, with_listed_names, with_own_names
from tdcompress.onnxfile.load import load_model, save_model
from tdcompress.onnxfile.metadata import get_metadata, set_metadata
from tdcompress.onnxfile.pack import pack_model, pack_onnx, unpack_onnx
from tdcompress.onnxfile.quantise import quantise_model
from tdcompress.onnxfile.runtime import open_session
from tdcompress.onnxfile.saturation import full_range_weights
from tdcompress.onnxfile.verify import verify_onnx
from tdcompress.onnxfile.weights import constant_weights, densified, stored_weights

Make = Callable[..., onnx.ModelProto]


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])


@pytest.fixture
def branched() -> onnx.ModelProto:
    """An input called as a short name would be, a weight that a branch reads, one that a branch has, and a value's shape."""
    weights = [numpy_helper.from_array(np.array([1, n], np.float32), f"layers.{n}.weight") for n in (0, 1)]
    own = numpy_helper.from_array(np.array([5, 7], np.float32), "own.weight")
    branches = [
        helper.make_graph(
            [helper.make_node("Add", ["layers.1.weight", "own.weight"], ["inner"])], "then", [], [value("inner")], [own]
        ),
        helper.make_graph([helper.make_node("Neg", ["hidden.value"], ["other"])], "else", [], [value("other")]),
    ]
    constant = numpy_helper.from_array(np.array([3, 4], np.float32))
    nodes = [
        helper.make_node("Constant", [], ["constant"], value=constant),
        helper.make_node("Add", ["A", "layers.0.weight"], ["hidden.value"]),
        helper.make_node("If", ["choice"], ["chosen"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Sum", ["chosen", "hidden.value", "layers.1.weight", "constant"], ["output"]),
    ]
    choice = helper.make_tensor_value_info("choice", TensorProto.BOOL, [1])
    graph = helper.make_graph(
        nodes, "g", [value("A"), choice], [value("output")], weights, value_info=[value("hidden.value"), value("chosen")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    set_metadata(model, {"author": "x" * 10, "zebra": "y"})
    return model


def test_names_are_listed_and_come_back(branched: onnx.ModelProto) -> None:
    before = branched.SerializeToString(deterministic=True)
    short = with_listed_names(branched)
    onnx.checker.check_model(short, full_check=True)
    assert get_metadata(short) == {
        "author": "x" * 10,
        "zebra": "y",
        KEY: "B {chosen,constant,hidden.value,layers.{0,1}.weight}",  # A is an input
    }
    assert [tensor.name for tensor in short.graph.initializer] == ["E", "F"]
    assert [list(node.output) for node in short.graph.node] == [["C"], ["D"], ["B"], ["output"]]
    other, then = (attribute.g for attribute in short.graph.node[2].attribute)
    assert (list(then.node[0].input), list(other.node[0].input)) == (["F", "own.weight"], ["D"])
    assert [entry.name for entry in short.graph.value_info] == ["D", "B"]
    assert short.ByteSize() < branched.ByteSize()
    for choice in (True, False):
        feed = {"A": np.array([3, 4], np.float32), "choice": np.array([choice])}
        assert open_session(short).run(None, feed)[0].tolist() == open_session(branched).run(None, feed)[0].tolist()
    assert with_own_names(short) == branched
    assert with_own_names(branched) is branched
    assert branched.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", ["bias", "w"])
def test_a_list_that_saves_nothing_is_not_written(name: str) -> None:
    weight = numpy_helper.from_array(np.ones(2, np.float32), name)
    graph = helper.make_graph([helper.make_node("Add", ["x", name], ["y"])], "g", [value("x")], [value("y")], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert with_listed_names(model) is model


def test_short_names_go_on_as_columns_do() -> None:
    names = [f"weight{n}" for n in range(800)]
    weights = [numpy_helper.from_array(np.ones(2, np.float32), name) for name in names]
    graph = helper.make_graph([helper.make_node("Sum", names, ["y"])], "g", [value("ZZ")], [value("y")], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    short = with_listed_names(model)
    assert short.metadata_props[0].value.startswith("AAA weight{")  # ZZ is in the way of the 800 from A on
    graph.input[0].name = "AC"
    short = with_listed_names(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert short.metadata_props[0].value.startswith("AD weight{0,1,10,100,")
    found = {tensor.name for tensor in short.graph.initializer}
    assert {"AD", "AZ", "BA", "ZZ", "AAA"} < found
    assert not {"A", "Z", "AC"} & found


def test_every_reader_says_the_names(make_small_net: Make, tmp_path: Path, arrays: Callable) -> None:
    dense, path = make_small_net(0.9), tmp_path / "packed.onnx"
    save_model(dense, tmp_path / "dense.onnx")
    report = pack_onnx(tmp_path / "dense.onnx", path, prefer="size")
    packed = load_model(path)
    assert KEY in get_metadata(packed)
    assert not arrays(dense).keys() & {name for node in packed.graph.node for name in node.output}
    assert arrays(packed) == arrays(dense)

    found = inspect_model(packed)
    assert {tensor.name for tensor in found.tensors} == arrays(dense).keys()
    assert found.metadata == {}
    assert "Cast" not in found.operators
    parts = found.decoder_bytes + found.graph_bytes + sum(tensor.file_bytes for tensor in found.tensors)
    assert parts - found.names_saved_bytes == found.file_bytes == report.file_bytes == path.stat().st_size
    assert found.names_saved_bytes > 500
    assert ("short names save", f"{found.names_saved_bytes:,} bytes") in file_tables(path, found)[1].rows
    assert KEY not in get_metadata(source_model(path))  # a compiled file has no values left to name

    back = unpack_onnx(path, tmp_path / "back.onnx")
    assert back.restored == 3
    restored = load_model(tmp_path / "back.onnx")
    assert {tensor.name for tensor in restored.graph.initializer} == arrays(dense).keys()
    assert KEY not in get_metadata(restored)
    assert verify_onnx(path).weights == len(arrays(dense))
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    assert np.array_equal(
        Session(path).run(None, {"input": images})[0], Session(tmp_path / "dense.onnx").run(None, {"input": images})[0]
    )


def test_packing_again_gives_the_same(make_small_net: Make, arrays: Callable) -> None:
    dense = make_small_net(0.9)
    packed, _ = pack_model(dense, prefer="size")
    again, _ = pack_model(packed, prefer="size")
    assert again.ByteSize() == packed.ByteSize()
    assert get_metadata(again) == get_metadata(packed)
    assert pack_model(again, prefer="size")[0] == pack_model(packed, prefer="size")[0]
    assert arrays(again) == arrays(dense)
    fast, report = pack_model(packed, prefer="speed")
    assert fast == packed
    assert "no fewer than now" in report.left_as_is


def test_what_is_not_packed_keeps_its_names(make_small_net: Make) -> None:
    dense = make_small_net(0.0)
    packed, _ = pack_model(dense, prefer="size")
    assert packed.SerializeToString(deterministic=True) == dense.SerializeToString(deterministic=True)


def test_quantised_files(make_small_net: Make) -> None:
    """A file with a list is quantised by its names, and the int8 file has its own list or none."""
    images = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    dense = make_small_net(0.9)
    source = pack_model(dense, prefer="size")[0]
    plain, wanted = quantise_model(dense, images, weight_range="full")
    fast, same = quantise_model(source, images, weight_range="full")
    assert fast == plain
    assert (same.zeros_after, same.quantised_weights) == (wanted.zeros_after, wanted.quantised_weights)
    small, report = quantise_model(source, images, weight_range="full", prefer="size")
    assert report.packed
    assert report.quantised_weights == wanted.quantised_weights
    assert KEY in get_metadata(small)
    assert KEY not in get_metadata(fast)
    names = [weight.full_name for weight in full_range_weights(plain)]
    assert sorted(weight.full_name for weight in full_range_weights(small)) == sorted(names)
    assert names


DAMAGES = {
    "A": "is not a list of names as packing writes it",
    "{a,b}": "is not a list of names as packing writes it",
    "ABCD {a,b}": "is not a list of names as packing writes it",
    "A {a,b": "a brace is not closed",
    "A {a,b}}": "in no brace",
    "A " + "{a,b}" * 40: "more names than any model has",
    "B {,b}": "gives two values one name, or none",
    "B {b,b}": "gives two values one name, or none",
    "B {output,b}": "gives two values one name, or none",
    "B {own.weight,b}": "gives two values one name, or none",
    "B A": "gives two values one name, or none",
}


@pytest.mark.parametrize("text", DAMAGES)
def test_damaged_lists_are_refused_in_one_line(branched: onnx.ModelProto, text: str) -> None:
    short = with_listed_names(branched)
    set_metadata(short, {KEY: text})
    for read in (with_own_names, stored_weights, constant_weights, densified, inspect_model, full_range_weights, pack_model):
        with pytest.raises(ModelError, match=DAMAGES[text]) as refused:
            read(short)
        assert "\n" not in str(refused.value)


def test_two_lists_are_refused(branched: onnx.ModelProto) -> None:
    short = with_listed_names(branched)
    short.metadata_props.add(key=KEY, value="A {a,b}")
    with pytest.raises(ModelError, match="is not a list of names as packing writes it"):
        with_own_names(short)


def test_names_of_values_that_are_gone_are_left_out(branched: onnx.ModelProto) -> None:
    short = with_listed_names(branched)
    del short.graph.node[2:]
    del short.graph.value_info[:]
    short.graph.output[0].name = "D"
    assert [weight.full_name for weight in stored_weights(short)] == ["layers.0.weight", "layers.1.weight"]
    assert list(with_own_names(short).graph.output) == list(short.graph.output)  # what became an output stays one


@pytest.mark.parametrize("seed", range(5))
def test_any_edit_of_the_list_is_names_or_an_error(make_small_net: Make, seed: int) -> None:
    packed = pack_model(make_small_net(0.9), prefer="size")[0]
    random = np.random.default_rng(seed)
    text = get_metadata(packed)[KEY]
    for _ in range(60):
        place, mark = int(random.integers(len(text))), str(random.choice(list("{},.\\A ")))
        set_metadata(packed, {KEY: text[:place] + mark + text[place + int(random.integers(2)) :]})
        with suppress(UserError):
            inspect_model(packed)
