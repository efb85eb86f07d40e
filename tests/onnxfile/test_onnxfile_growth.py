"""A file that packing would make larger, or another network to the runtime, is the user's own again, byte for byte."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.cli import main
from tdcompress.errors import UnsupportedError
from tdcompress.onnxfile import pack, prepare
from tdcompress.onnxfile.load import save_model
from tdcompress.onnxfile.optimised import Optimised, optimised, optimised_differently
from tdcompress.onnxfile.pack import pack_model, pack_onnx
from tdcompress.onnxfile.weights import densified

Make = Callable[..., onnx.ModelProto]


def old_squeezes(count: int) -> onnx.ModelProto:
    """Opset 11; raised to 13 every Squeeze gets an initializer for its axes, so that the file grows."""
    names = ["x", *(f"y{i}" for i in range(2 * count))]
    nodes = []
    for i in range(count):
        nodes.append(helper.make_node("Unsqueeze", [names[2 * i]], [names[2 * i + 1]], axes=[1]))
        nodes.append(helper.make_node("Squeeze", [names[2 * i + 1]], [names[2 * i + 2]], axes=[1]))
    weight = np.ones(40, np.float32)
    weight[:34] = 0  # packing it alone saves a few bytes
    nodes.append(helper.make_node("Mul", [names[-1], "w"], ["out"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 40]) for name in ("x", "out")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


@pytest.mark.parametrize("values", ["float32", "float16"])
def test_a_file_that_would_grow_is_left_as_it_is(values: str, tmp_path: Path) -> None:
    model = old_squeezes(12)
    source = model.SerializeToString(deterministic=True)
    (tmp_path / "in.onnx").write_bytes(source)
    report = pack_onnx(tmp_path / "in.onnx", tmp_path / "out.onnx", values=values)  # type: ignore[arg-type]
    assert (tmp_path / "out.onnx").read_bytes() == source
    assert report.file_bytes == report.source_bytes == len(source)
    assert report.dense_bytes > report.source_bytes  # what the raised operator set costs
    assert "no fewer" in report.left_as_is
    assert (report.negative_zeros, report.underflows, report.weight_error) == (0, 0, 0.0)


def test_the_figure_is_against_the_users_file(make_small_net: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(make_small_net(0.9), tmp_path / "in.onnx")
    assert main(["pack", str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx")]) == 0
    before, after = ((tmp_path / f"{name}.onnx").stat().st_size for name in ("in", "out"))
    said = capsys.readouterr().out
    assert f"x{after / before:.3f} of the {before:,} of {tmp_path / 'in.onnx'}" in said
    save_model(make_small_net(0.0), tmp_path / "in.onnx")
    assert main(["pack", str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx")]) == 0
    said = capsys.readouterr().out
    assert "x1.000 of" in said
    assert "left as it is" in said


def test_a_file_that_would_run_in_another_way_is_left_as_it_is(make_small_net: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "optimised_differently", lambda dense, packed, contents: "SkipLayerNormalization 6 -> 0")
    model = make_small_net(0.9)
    packed, report = pack_model(model)
    assert packed == model
    assert "SkipLayerNormalization 6 -> 0" in report.left_as_is


def test_optimised_graphs_are_told_apart(make_small_net: Make) -> None:
    model = make_small_net(0.9)
    assert optimised_differently(model, pack_model(model)[0]) == ""
    renamed, other = onnx.ModelProto(), onnx.ModelProto()
    for copy in (renamed, other):
        copy.CopyFrom(model)
    for node in renamed.graph.node:
        node.input[:] = [name + "!" if name.startswith("relu") else name for name in node.input]
        node.output[:] = [name + "!" if name.startswith("relu") else name for name in node.output]
    assert optimised_differently(model, renamed) == ""
    weight = other.graph.initializer[-2]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(2), weight.name))
    assert optimised_differently(model, other) == "other inputs of nodes"
    assert optimised_differently(model, other, contents=False) == ""
    other.graph.node[-1].op_type = "NoSuchOperator"
    assert optimised(other) is None
    assert optimised_differently(other, model) is None
    assert optimised_differently(model, other) == "it does not load the file"


def test_a_decoder_that_runs_on_every_call_is_a_difference(make_small_net: Make) -> None:
    model = make_small_net(0.9)
    packed = pack_model(model)[0]
    packed.graph.node.insert(0, helper.make_node("NonZero", [packed.graph.initializer[0].name], ["places"]))
    packed.graph.node[-1].output[0] = "before"
    packed.graph.node.append(helper.make_node("Cast", ["places"], ["wide"], to=TensorProto.FLOAT))
    packed.graph.node.append(helper.make_node("ReduceMax", ["wide"], ["most"], keepdims=0))
    packed.graph.node.append(helper.make_node("Add", ["before", "most"], ["output"]))
    found = optimised_differently(model, packed)
    assert found is not None
    assert "NonZero 0 -> 1" in found


def pruned(*shape: int) -> onnx.TensorProto:
    random = np.random.default_rng(0)
    return numpy_helper.from_array(np.where(random.random(shape) < 0.9, 0, random.standard_normal(shape)).astype(np.float32), "w")


def of_one_layer(operator: str, weight: onnx.TensorProto, x: onnx.ValueInfoProto, **attributes: int) -> onnx.ModelProto:
    inputs = ["w", "x"] if operator == "Gather" else ["x", "w"]
    constants = [weight]
    if operator in ("LSTM", "GRU"):
        inputs.append("r")
        constants.append(numpy_helper.from_array(np.ones((1, weight.dims[1], attributes["hidden_size"]), np.float32), "r"))
    node = helper.make_node(operator, inputs, ["y"], **attributes)
    output = helper.make_tensor_value_info(
        "y", TensorProto.FLOAT, [None] * (4 if operator in ("LSTM", "GRU") else len(weight.dims))
    )
    graph = helper.make_graph([node], "g", [x], [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("operator", "shape", "x", "attributes"),
    [
        ("Gemm", (128, 64), (TensorProto.FLOAT, ["n", 64]), {"transB": 1}),
        ("Conv", (32, 16, 3), (TensorProto.FLOAT, ["n", 16, 9]), {}),
        ("Gather", (64, 128), (TensorProto.INT64, ["n"]), {}),
        ("LSTM", (1, 128, 16), (TensorProto.FLOAT, [5, "n", 16]), {"hidden_size": 32}),
        ("GRU", (1, 96, 16), (TensorProto.FLOAT, [5, "n", 16]), {"hidden_size": 32}),
    ],
)
def test_a_graph_that_onnxruntime_leaves_alone_is_no_other_behind_a_decoder(
    operator: str, shape: tuple[int, ...], x: tuple[int, list[int | str]], attributes: dict[str, int]
) -> None:
    """It writes the defaults of attributes, Gemm's alpha for example, only into graphs that it changed."""
    model = of_one_layer(operator, pruned(*shape), helper.make_tensor_value_info("x", *x), **attributes)
    packed, report = pack_model(model)
    assert report.left_as_is == ""
    assert packed.ByteSize() == report.file_bytes < model.ByteSize()


def test_texts_are_told_by_what_they_say() -> None:
    def classifier(last: str) -> onnx.ModelProto:
        labels = helper.make_tensor("labels", TensorProto.STRING, [128], [*map(str, range(127)), last])
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("ArgMax", ["h"], ["i"], axis=1, keepdims=0),
            helper.make_node("Gather", ["labels", "i"], ["y"]),
        ]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])
        y = helper.make_tensor_value_info("y", TensorProto.STRING, ["n"])
        graph = helper.make_graph(nodes, "g", [x], [y], [pruned(64, 128), labels])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    assert optimised_differently(classifier("cat"), classifier("cat")) == ""
    assert optimised_differently(classifier("cat"), classifier("dog")) == "other inputs of nodes"
    assert pack_model(classifier("cat"))[1].left_as_is == ""


def test_branches_are_compared_too() -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])
        return helper.make_graph([helper.make_node(operator, ["x"], [name])], name, [], [output])

    def model(yes: str, no: str) -> onnx.ModelProto:
        node = helper.make_node("If", ["c"], ["y"], then_branch=branch("a", yes), else_branch=branch("b", no))
        inputs = [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
        ]
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
        return helper.make_model(
            helper.make_graph([node], "g", inputs, [output]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        )

    assert optimised_differently(model("Relu", "Neg"), model("Relu", "Neg")) == ""
    assert optimised_differently(model("Relu", "Neg"), model("Neg", "Relu")) == "other inputs of nodes"
    assert optimised_differently(model("Relu", "Neg"), model("Relu", "Abs")) == "Abs 0 -> 1, Neg 1 -> 0"


def test_a_packed_file_is_packed_again_from_its_weights(make_small_net: Make) -> None:
    packed = pack_model(make_small_net(0.9))[0]
    assert pack_model(packed)[0] == packed
    assert pack_model(densified(packed))[1].file_bytes == packed.ByteSize()
    assert isinstance(optimised(packed), Optimised)


def slopes_per_channel(zeros: float = 0.9) -> onnx.ModelProto:
    """Opset 6: PRelu with one slope per channel; 5 channels in planes of 5 columns, so that the slopes would fit there too."""
    random = np.random.default_rng(0)
    weight = np.where(random.random((5, 3, 5, 5)) < zeros, 0, random.standard_normal((5, 3, 5, 5))).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
        helper.make_node("PRelu", ["c", "s"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, n, 5, 5]) for name, n in (("x", 3), ("y", 5))]
    slopes = random.standard_normal(5).astype(np.float32)
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(slopes, "s")]
    model = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    return helper.make_model(model, opset_imports=[helper.make_opsetid("", 6)], ir_version=4)


def test_slopes_per_channel_stay_per_channel(run_model: Callable) -> None:
    """onnx's converter leaves them as they are, and since opset 7 they would be slopes per column."""
    source = slopes_per_channel()
    packed, report = pack_model(source)
    assert report.left_as_is == ""
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 5)).astype(np.float32)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    source.graph.node.pop()
    source.graph.output[0].name = "c"
    plain = run_model(source, x)[0]
    wanted = np.where(plain < 0, plain * weights["s"][:, None, None], plain)
    np.testing.assert_allclose(run_model(packed, x)[0], wanted, rtol=1e-5, atol=1e-6)


def convert_into(monkeypatch: pytest.MonkeyPatch, operator: str) -> None:
    """From now on the converter makes the last node of a model another one."""
    real = prepare.version_converter.convert_version

    def wrong(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
        raised = real(model, version)
        raised.graph.node[-1].op_type = operator
        return raised

    monkeypatch.setattr(prepare.version_converter, "convert_version", wrong)


def test_a_raised_file_that_computes_something_else_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the converter gets wrong is found on random inputs, where onnxruntime runs the old operators too."""
    model = old_squeezes(1)
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.where(np.arange(4000) % 40 == 0, 1.0, 0).astype(np.float32), "w")
    )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = 4000
    assert pack_model(model)[1].left_as_is == ""
    convert_into(monkeypatch, "Add")
    packed, report = pack_model(model)
    assert packed == model
    assert "raised from operator set 11 to 13 by onnx's converter, it gives other outputs" in report.left_as_is


def test_a_raised_file_that_onnxruntime_does_not_load_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    convert_into(monkeypatch, "NoSuchOperator")
    model = old_squeezes(1)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.eye(40, dtype=np.float32), "w"))
    packed, report = pack_model(model)
    assert packed == model
    assert "by onnx's converter: onnxruntime does not load the model: " in report.left_as_is


def test_a_function_is_written_out_before_the_operator_set_is_raised(run_model: Callable) -> None:
    """onnx's converter leaves functions out, and their calls in."""
    own = helper.make_opsetid("own", 1)

    def model(version: int) -> onnx.ModelProto:
        body = [helper.make_node("MatMul", ["a", "b"], ["c"]), helper.make_node("Relu", ["c"], ["d"])]
        function = helper.make_function("own", "Layer", ["a", "b"], ["d"], body, [helper.make_opsetid("", version)])
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 128])
        graph = helper.make_graph([helper.make_node("Layer", ["x", "w"], ["y"], domain="own")], "g", [x], [y], [pruned(64, 128)])
        imports = [helper.make_opsetid("", 11), own]
        made = helper.make_model(graph, opset_imports=imports, ir_version=8, functions=[function])
        made.metadata_props.add(key="mine", value="kept")
        return made

    packed, report = pack_model(model(11))
    assert report.left_as_is == ""
    assert [node.op_type for node in packed.graph.node[-2:]] == ["MatMul", "Relu"]
    assert [(entry.key, entry.value) for entry in packed.metadata_props] == [("mine", "kept")]
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    np.testing.assert_array_equal(run_model(packed, x)[0], run_model(model(11), x)[0])
    with pytest.raises(UnsupportedError, match="11 cannot be raised to 13: the function 'Layer' cannot be written out; export"):
        pack_model(model(12))


def test_why_zeros_stay_is_said_of_a_file_that_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exporters that list every weight as an input too leave nothing to pack."""
    x, w = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", ["n", 64]), ("w", [64, 128])))
    model = of_one_layer("MatMul", pruned(64, 128), x)
    model.graph.input.append(w)
    save_model(model, tmp_path / "in.onnx")
    assert main(["pack", str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx")]) == 0
    assert "with zeros, but kept dense because it is also an input, which the caller may override: w" in capsys.readouterr().out
