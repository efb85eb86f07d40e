from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.errors import ModelError, UnsupportedError, VerificationError
from tdcompress.onnxfile import pack, quantise
from tdcompress.onnxfile.listed_names import with_listed_names
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.parameter_names import with_parameter_names
from tdcompress.onnxfile.passes import graph_pass, malformed
from tdcompress.onnxfile.prepare import prepared, with_current_opset
from tdcompress.onnxfile.quantise import quantise_model
from tdcompress.onnxfile.strip import strip, undocumented
from tdcompress.onnxfile.weights import densified, wrong_sections

PASSES: dict[str, Callable[[onnx.ModelProto], object]] = {
    "undocumented": undocumented,
    "with_parameter_names": lambda model: with_parameter_names(model, {"layer.weight": np.ones((2, 2), np.float32)}),
    "strip": strip,
    "prepared": prepared,
    "with_current_opset": with_current_opset,
    "densified": densified,
    "with_listed_names": with_listed_names,
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


def breaking(change: Callable[[onnx.ModelProto], object]) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    """A pass that does what is asked to a copy."""

    def broken(model: onnx.ModelProto) -> onnx.ModelProto:
        made = onnx.ModelProto()
        made.CopyFrom(model)
        change(made)
        return made

    return broken


def test_what_a_pass_breaks_is_found() -> None:
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
        graph_pass(ensures=[lambda model: "", lambda model: "it is blue"])(breaking(lambda model: None))(small())
    assert graph_pass(ensures=[lambda model: ""])(breaking(lambda model: None))(small()) == small()


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


def test_what_a_pass_requires_is_checked_before_it_begins() -> None:
    begun: list[onnx.ModelProto] = []
    asked = graph_pass(requires=[lambda model: "", lambda model: "it is red" if model.graph.name == "red" else ""])
    asked(breaking(begun.append))(small())
    assert len(begun) == 1
    red = small()
    red.graph.name = "red"
    with pytest.raises(UnsupportedError, match="broken: it is red"):
        asked(breaking(begun.append))(red)
    assert len(begun) == 1


def two_inputs() -> onnx.ModelProto:
    model = small()
    model.graph.input.add().CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 2]))
    return model


def listed_initializers() -> onnx.ModelProto:
    """One input beside initializers, which old formats list as inputs."""
    model = small()
    model.graph.input.add().CopyFrom(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 2]))
    return model


def no_input() -> onnx.ModelProto:
    model = small()
    del model.graph.input[:]
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 2), np.float32), "x"))
    return model


@pytest.mark.parametrize(("make", "count"), [(two_inputs, 2), (no_input, 0)])
def test_what_has_not_one_input_is_not_quantised(make: Callable[[], onnx.ModelProto], count: int) -> None:
    with pytest.raises(UnsupportedError, match=f"quantise_model: .*models of one input; this one has {count}"):
        quantise_model(make(), np.ones((4, 2), np.float32))


def test_initializers_are_no_inputs_that_keep_a_model_from_being_quantised() -> None:
    made, _ = quantise_model(listed_initializers(), np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32))
    assert any(tensor.data_type == TensorProto.INT8 for tensor in made.graph.initializer)


def test_what_is_packed_is_not_prepared(make_small_net: Callable[..., onnx.ModelProto]) -> None:
    with pytest.raises(UnsupportedError, match=r"prepared: 'tdc1\..*' is still packed"):
        prepared(pack_model(make_small_net(0.9))[0])


def foreign_name(model: onnx.ModelProto) -> None:
    model.graph.initializer.add().CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), "tdc1.x"))


def other_graph(model: onnx.ModelProto) -> None:
    for message in (*model.graph.initializer, *(sparse.values for sparse in model.graph.sparse_initializer)):
        message.name = message.name.replace("tdc1.0.", "tdc1.1.")
    for node in model.graph.node:
        node.input[:] = [name.replace("tdc1.0.", "tdc1.1.") for name in node.input]
        node.output[:] = [name.replace("tdc1.0.", "tdc1.1.") for name in node.output]


def unknown_encoding(model: onnx.ModelProto) -> None:
    model.graph.initializer.add().CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), "tdc1.0.nonesuch.f4."))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (foreign_name, "'tdc1.x' looks like a packed weight, but not of a known format"),
        (other_graph, "the names 'tdc1.1.*' are of another graph"),
        (unknown_encoding, "the names 'tdc1.0.nonesuch.f4.' are .* of no known encoding"),
    ],
)
def test_packing_claims_that_each_reserved_name_is_of_a_section(
    damage: Callable[[onnx.ModelProto], None],
    said: str,
    make_small_net: Callable[..., onnx.ModelProto],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inspect_model = pack.inspect_model  # the last that looks at what was packed

    def damaging(model: onnx.ModelProto) -> object:
        report = inspect_model(model)
        damage(model)
        return report

    assert wrong_sections(pack_model(make_small_net(0.9))[0]) == ""
    monkeypatch.setattr(pack, "inspect_model", damaging)
    with pytest.raises(VerificationError, match=f"pack_model: the graph made is not as it has to be: {said}"):
        pack_model(make_small_net(0.9))


@pytest.mark.parametrize("packs", [False, True])
def test_quantising_claims_an_int8_weight(
    packs: bool, make_small_net: Callable[..., onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_small_net(0.9)
    shape = [size.dim_value or 4 for size in source.graph.input[0].type.tensor_type.shape.dim]
    samples = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    report = quantise_model(source, samples, pack=packs)[1]
    assert report.quantised_weights > 0
    assert report.packed == packs
    serialised = quantise.serialised  # the last that looks at what was made

    def damaging(model: onnx.ModelProto) -> bytes:
        content = serialised(model)
        unsigned_weights(model)
        left = [tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT8]
        assert packs or any("zero_point" in name for name in left)  # which is no weight
        return content

    monkeypatch.setattr(quantise, "serialised", damaging)
    with pytest.raises(VerificationError, match="quantise_model: the graph made is not as it has to be: no weight is int8"):
        quantise_model(source, samples, pack=packs)


def unsigned_weights(model: onnx.ModelProto) -> None:
    """All that is packed as int8, and int8 weights that are not packed."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and tensor.name.endswith("_quantized"):
            tensor.data_type = TensorProto.UINT8
        tensor.name = tensor.name.replace(".i1.", ".u1.")
    for sparse in model.graph.sparse_initializer:
        sparse.values.name = sparse.values.name.replace(".i1.", ".u1.")
    for node in model.graph.node:
        node.input[:] = [name.replace(".i1.", ".u1.") for name in node.input]
        node.output[:] = [name.replace(".i1.", ".u1.") for name in node.output]


def test_a_function_has_operator_sets_of_its_own() -> None:
    """What only a function uses, as onnxruntime's own operators, the model need not import."""
    model = small()
    body = [helper.make_node("FusedMatMul", ["a", "b"], ["c"], domain="com.microsoft")]
    model.functions.append(
        helper.make_function("own", "Layer", ["a", "b"], ["c"], body, [helper.make_opsetid("com.microsoft", 1)])
    )
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[0].op_type, model.graph.node[0].domain = "Layer", "own"
    assert malformed(model) == ""
    del model.functions[0].opset_import[:]
    assert malformed(model) == "the domain 'com.microsoft' of FusedMatMul '' has no operator set"
