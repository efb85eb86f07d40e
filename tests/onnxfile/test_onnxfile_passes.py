from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.errors import ModelError, VerificationError
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.passes import graph_pass, malformed
from tdcompress.onnxfile.prepare import prepared, with_current_opset
from tdcompress.onnxfile.quantise import quantise_model
from tdcompress.onnxfile.strip import strip, undocumented
from tdcompress.onnxfile.weights import densified

PASSES: dict[str, Callable[[onnx.ModelProto], object]] = {
    "undocumented": undocumented,
    "strip": strip,
    "prepared": prepared,
    "with_current_opset": with_current_opset,
    "densified": densified,
    "pack_model": pack_model,
    "quantise_model": lambda model: quantise_model(model, np.ones((4, 2), np.float32)),
}


def small() -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.eye(2, dtype=np.float32), "w"), numpy_helper.from_array(np.array(True), "c")]
    branch = helper.make_graph(
        [helper.make_node("Relu", ["h"], ["r"])], "then", [], [helper.make_tensor_value_info("r", TensorProto.FLOAT, ["n", 2])]
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["h"], ["i"])],
        "else",
        [],
        [helper.make_tensor_value_info("i", TensorProto.FLOAT, ["n", 2])],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("If", ["c"], ["y"], name="second", then_branch=branch, else_branch=other),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


DAMAGES: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "an initializer is missing": (lambda m: m.graph.initializer.pop(0), "MatMul 'first' reads 'w', which nothing before it"),
    "an initializer twice": (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "'w' is defined twice"),
    "an input twice": (lambda m: m.graph.input.append(m.graph.input[0]), "'x' is defined twice"),
    "a value twice": (lambda m: m.graph.node[0].output.__setitem__(0, "w"), "'w' is defined twice, once by MatMul 'first'"),
    "an output that nothing makes": (lambda m: setattr(m.graph.output[0], "name", "z"), "the output 'z' is not defined"),
    "nodes in another order": (lambda m: m.graph.node.reverse(), "in If 'second': .* reads 'h', which nothing before it defines"),
    "a branch that reads nothing known": (
        lambda m: m.graph.node[1].attribute[0].g.node[0].input.__setitem__(0, "q"),
        "in If 'second': .* reads 'q'",
    ),
    "a domain without operator set": (lambda m: setattr(m.graph.node[0], "domain", "com.x"), "the domain 'com.x' of MatMul"),
}


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_malformed_graph_is_refused_before_anything_is_done(name: str, damage: str) -> None:
    model = small()
    assert malformed(model) == ""
    change, said = DAMAGES[damage]
    change(model)
    with pytest.raises(ModelError, match=f"{name}: the graph given is malformed: {said}"):
        PASSES[name](model)


def test_what_the_checker_takes_is_not_malformed(make_small_net: Callable[..., onnx.ModelProto]) -> None:
    for model in (small(), make_small_net(0.9), pack_model(make_small_net(0.9))[0]):
        onnx.checker.check_model(model)
        assert malformed(model) == ""


def test_what_a_pass_breaks_is_found() -> None:
    def breaking(change: Callable[[onnx.ModelProto], object]) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
        def broken(model: onnx.ModelProto) -> onnx.ModelProto:
            made = onnx.ModelProto()
            made.CopyFrom(model)
            change(made)
            return made

        return broken

    for change, said in DAMAGES.values():
        with pytest.raises(VerificationError, match=f"broken: the graph made is not as it has to be: {said}"):
            graph_pass()(breaking(change))(small())
    for change, said in (
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.DOUBLE), "its inputs are"),
        (lambda m: m.graph.output.pop(), "its outputs are"),
    ):
        with pytest.raises(VerificationError, match=said):
            graph_pass()(breaking(change))(small())
    with pytest.raises(VerificationError, match="it is blue"):
        graph_pass(lambda model: "", lambda model: "it is blue")(breaking(lambda model: None))(small())
    assert graph_pass(lambda model: "")(breaking(lambda model: None))(small()) == small()


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_leaves_its_argument_as_it_was(name: str, make_small_net: Callable[..., onnx.ModelProto]) -> None:
    model = make_small_net(0.9)
    before = model.SerializeToString(deterministic=True)
    shape = [size.dim_value or 4 for size in model.graph.input[0].type.tensor_type.shape.dim]
    if name == "quantise_model":
        quantise_model(model, np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    else:
        PASSES[name](model)
    assert model.SerializeToString(deterministic=True) == before
