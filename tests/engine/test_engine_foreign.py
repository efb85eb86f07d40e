"""What other exporters' files hold: embeddings, resizing, integers and masks, branches, old operator sets, odd shapes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tdcompress.engine import Session
from tdcompress.errors import ModelError, UnsupportedError, UserError

RNG = np.random.default_rng(11)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def graph_model(nodes, inputs, constants=None, outputs=("y",), *, opset: int = 18, ir_version: int = 9) -> bytes:
    """Inputs: name -> (element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    model = onnx.shape_inference.infer_shapes(model)
    for value in model.graph.output:
        value.type.tensor_type.shape.SetInParent()
    return model.SerializeToString()


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1), (1,), (1, 1, 5, 7), (1, 3, 5, 7)])
def test_slopes_with_a_batch_axis(model, check, isa, shape):
    check(
        model([helper.make_node("PRelu", ["x", "s"], ["y"])], {"s": floats(*shape)}, {"x": ["b", 3, 5, 7]}),
        {"x": floats(2, 3, 5, 7)},
        isa,
    )


def test_a_batch_of_minus_one_is_free(model, check):
    data = onnx.load_model_from_string(model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": ["b", 4]}))
    data.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    session = Session(data.SerializeToString())
    assert session.get_inputs()[0].shape == [None, 4]
    for batch in (1, 3):
        x = floats(batch, 4)
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], np.maximum(x, 0))
    data.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -2
    with pytest.raises(ModelError, match="dimension -2"):
        Session(data.SerializeToString())


def test_a_first_axis_that_is_no_batch_is_told():
    """As recurrent networks have their state: (layers, batch, width)."""
    inputs = {"x": (TensorProto.FLOAT, ["b", 1, 4]), "h": (TensorProto.FLOAT, [2, 1, 4])}
    session = Session(graph_model([helper.make_node("Add", ["x", "h"], ["y"])], inputs))
    said = r"'h' has the shape \[2, 1, 4\]; every input needs the same batch, here 1; the model fixes it: .* use the onnxruntime"
    with pytest.raises(UserError, match=said):
        session.run(None, {"x": floats(1, 1, 4), "h": floats(2, 1, 4)})


def test_an_axis_of_size_0_is_named(model):
    for shape in (["b", 0, 4], [0, 4]):
        with pytest.raises(UnsupportedError, match=r"'x' has an axis of size 0, .*nothing to compute"):
            Session(model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": shape}))
    node = helper.make_node("Slice", ["x", "from", "to", "axes"], ["y"], name="cut")
    constants = {"from": np.array([2]), "to": np.array([2]), "axes": np.array([1])}
    with pytest.raises(UnsupportedError, match=r"'cut': its output .* no axis of size 0"):
        Session(model([node], constants, {"x": ["b", 4]}))


def test_an_empty_constant_joins_nothing(model, check):
    node = helper.make_node("Concat", ["empty", "x", "x"], ["y"], axis=1)
    check(model([node], {"empty": np.zeros((2, 0), np.float32)}, {"x": [2, 3]}), {"x": floats(2, 3)})


OLD = {
    "Squeeze": ([helper.make_node("Unsqueeze", ["x"], ["u"], axes=[1]), helper.make_node("Squeeze", ["u"], ["y"], axes=[1])], {}),
    "Clip": ([helper.make_node("Clip", ["x"], ["y"], min=-0.5, max=0.75)], {}),
    "Pad": ([helper.make_node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5)], {}),
    "Slice": ([helper.make_node("Slice", ["x"], ["y"], axes=[1, 2], starts=[1, 0], ends=[3, 4])], {}),
    "Dropout": ([helper.make_node("Dropout", ["x"], ["y"], ratio=0.3)], {}),
    "BatchNormalization": (
        [helper.make_node("BatchNormalization", ["x", "a", "b", "c", "d"], ["y"])],
        {"a": floats(3), "b": floats(3), "c": floats(3), "d": np.abs(floats(3))},
    ),
    "Softmax": ([helper.make_node("Softmax", ["x"], ["y"], axis=1)], {}),
    "Upsample": ([helper.make_node("Upsample", ["x", "s"], ["y"], mode="nearest")], {"s": np.array([1, 1, 2, 3], np.float32)}),
    "ReduceSum": ([helper.make_node("ReduceSum", ["x"], ["y"], axes=[2], keepdims=0)], {}),
    "Sum": ([helper.make_node("Sum", ["x", "x", "c"], ["y"])], {"c": floats(1, 3, 4, 5)}),
}


@pytest.mark.parametrize("opset", [7, 8, 9, 10])
@pytest.mark.parametrize("name", OLD)
def test_old_operator_sets_are_raised(check, name, opset):
    nodes, constants = OLD[name]
    if name == "Upsample" and opset != 9:
        nodes, constants = [helper.make_node("Upsample", ["x"], ["y"], mode="nearest", scales=[1.0, 1.0, 2.0, 3.0])], {}
        opset = min(opset, 8)
    if (name, opset) in (("Slice", 10), ("Sum", 7)):
        pytest.skip("that operator set has it in another form")
    data = graph_model(nodes, {"x": (TensorProto.FLOAT, ["b", 3, 4, 5])}, constants, opset=opset, ir_version=4)
    check(data, {"x": floats(2, 3, 4, 5)})


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("scale", [2.0, 1.5, 1.7])
@pytest.mark.parametrize("opset", [7, 9, 10])
def test_pixels_are_placed_as_before_opset_11(check, opset, mode, scale):
    """Their middles count since opset 11, which onnx's converter does not know."""
    if opset == 7:
        nodes, constants = [helper.make_node("Upsample", ["x"], ["y"], mode=mode, scales=[1.0, 1.0, scale, scale])], {}
    else:
        operator = "Upsample" if opset == 9 else "Resize"
        nodes = [helper.make_node(operator, ["x", "s"], ["y"], mode=mode)]
        constants = {"s": np.array([1, 1, scale, scale], np.float32)}
    data = graph_model(nodes, {"x": (TensorProto.FLOAT, ["b", 3, 6, 6])}, constants, opset=opset, ir_version=4)
    check(data, {"x": floats(2, 3, 6, 6)})


@pytest.mark.parametrize(("channels", "columns"), [(3, 5), (5, 5)])
def test_one_slope_per_channel_before_opset_7(channels, columns):
    """Since opset 7 slopes broadcast from the last axis, which onnx's converter does not know; with 5 by 5 it would fit too."""
    slope, x = floats(channels), floats(2, channels, 4, columns)
    data = graph_model(
        [helper.make_node("PRelu", ["x", "s"], ["y"])],
        {"x": (TensorProto.FLOAT, ["b", channels, 4, columns])},
        {"s": slope},
        opset=6,
        ir_version=4,
    )
    want = np.where(x < 0, slope[:, None, None] * x, x)
    np.testing.assert_allclose(Session(data).run(None, {"x": x})[0], want, rtol=1e-6)


def test_an_operator_set_that_cannot_be_raised():
    data = graph_model(
        [helper.make_node("Upsample", ["x"], ["y"])], {"x": (TensorProto.FLOAT, ["b", 3, 4, 5])}, opset=6, ir_version=4
    )
    with pytest.raises((ModelError, UnsupportedError)):
        Session(data)


COORDINATES = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    mode=st.sampled_from(["nearest", "linear", "cubic"]),
    coordinates=st.sampled_from(COORDINATES),
    rounding=st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    resized=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    outside=st.booleans(),
)
def test_resizing_to_sizes(model, check, mode, coordinates, rounding, size, resized, outside):
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    if mode == "cubic":
        attributes["exclude_outside"] = int(outside)
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **attributes)
    sizes = np.array([2, 3, *resized])
    check(model([node], {"sizes": sizes}, {"x": [2, 3, *size]}, opset=19), {"x": floats(2, 3, *size)})


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    mode=st.sampled_from(["nearest", "linear"]),
    coordinates=st.sampled_from([name for name in COORDINATES if name != "align_corners"]),
    scales=st.tuples(st.sampled_from([0.3, 0.5, 0.6, 1.0, 1.5, 2.0, 2.7, 4.0]), st.sampled_from([0.4, 0.5, 1.0, 2.0, 3.0])),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
)
def test_resizing_by_scales(model, check, isa_all, mode, coordinates, scales, size):
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode=mode, coordinate_transformation_mode=coordinates)
    constants = {"scales": np.array([1, 1, *scales], np.float32)}
    data = model([node], constants, {"x": ["b", 3, *size]}, opset=19)
    for name in isa_all:
        check(data, {"x": floats(2, 3, *size)}, name)


def test_resizing_as_torch_writes_it(model, check):
    """Sizes from the input's own shape, the batch from there too."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "two"], ["front"]),
        helper.make_node("Concat", ["front", "back"], ["sizes"], axis=0),
        helper.make_node(
            "Resize", ["x", "", "", "sizes"], ["y"], mode="linear", coordinate_transformation_mode="pytorch_half_pixel"
        ),
    ]
    constants = {"zero": np.array([0]), "two": np.array([2]), "back": np.array([9, 11])}
    data = model(nodes, constants, {"x": ["b", 3, 5, 6]})
    for batch in (1, 3):
        check(data, {"x": floats(batch, 3, 5, 6)})


@pytest.mark.parametrize(
    ("inputs", "constants", "attributes"),
    [
        (["x", "", "s"], {"s": np.array([2, 1, 2, 2], np.float32)}, {}),
        (
            ["x", "", "s"],
            {"s": np.array([1, 1, 0.6, 0.6], np.float32)},
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        ),
        (
            ["x", "r", "s"],
            {"s": np.ones(4, np.float32), "r": np.ones(8, np.float32)},
            {"coordinate_transformation_mode": "tf_crop_and_resize"},
        ),
        (["x", "", "s"], {"s": np.array([1, 1, 0.5, 0.5], np.float32)}, {"mode": "linear", "antialias": 1}),
    ],
)
def test_resizing_that_is_refused(model, inputs, constants, attributes):
    with pytest.raises(UnsupportedError, match="Resize 'r'"):
        Session(model([helper.make_node("Resize", inputs, ["y"], name="r", **attributes)], constants, {"x": ["b", 3, 4, 4]}))


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("shape", [(20, 6), (20,), (20, 2, 3)])
def test_embeddings(check, isa, kind, shape):
    data = graph_model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        {"x": (helper.np_dtype_to_tensor_dtype(np.dtype(kind)), ["b", 5])},
        {"table": floats(*shape)},
    )
    check(data, {"x": RNG.integers(-20, 20, (3, 5)).astype(kind)}, isa)


@pytest.mark.parametrize("wrong", [20, -21, 2**31, -(2**40), 2**62])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_that_is_not_there_is_an_error(isa, wrong, threads):
    data = graph_model(
        [helper.make_node("Gather", ["table", "x"], ["y"])], {"x": (TensorProto.INT64, ["b", 5])}, {"table": floats(20, 6)}
    )
    session, tokens = Session(data, threads, isa=isa), np.zeros((4, 5), np.int64)
    tokens[3, 2] = wrong
    with pytest.raises(UserError, match="row that a table of the model does not have"):
        session.run(None, {"x": tokens})
    tokens[3, 2] = 19
    assert session.run(None, {"x": tokens})[0].shape == (4, 5, 6)  # the next call is a new one


@pytest.mark.parametrize(
    ("indices", "axis"), [(0, 1), (-1, 1), ([2], 1), ([3, 0, 0, -1], 1), ([[0, 2], [1, 1]], 2), (1, -1), ([], 1)]
)
def test_rows_of_a_computed_tensor(model, check, isa, indices, axis):
    data = model(
        [helper.make_node("Gather", ["x", "i"], ["y"], axis=axis)], {"i": np.array(indices, np.int64)}, {"x": ["b", 4, 3]}
    )
    if indices == []:
        with pytest.raises(UnsupportedError, match="no axis of size 0"):
            Session(data)
        return
    check(data, {"x": floats(2, 4, 3)}, isa)


def test_rows_that_are_refused(model):
    node = helper.make_node("Gather", ["x", "i"], ["y"], name="g", axis=0)
    with pytest.raises(UnsupportedError, match="across the batch axis"):
        Session(model([node], {"i": np.array([0])}, {"x": ["b", 4]}))
    with pytest.raises(ModelError, match="outside an axis of 4"):
        Session(model([helper.make_node("Gather", ["x", "i"], ["y"], axis=1)], {"i": np.array([4])}, {"x": ["b", 4]}))
    tokens = {"x": (TensorProto.INT64, ["b", 5])}
    with pytest.raises(UnsupportedError, match="another axis than the first"):
        Session(graph_model([helper.make_node("Gather", ["t", "x"], ["y"], axis=1)], tokens, {"t": floats(3, 4)}))


@pytest.mark.parametrize("op", ["ReduceMin", "ReduceMax", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum"])
@pytest.mark.parametrize("axes", [[1], [2, 3], [1, 3], [-1], [1, 2, 3]])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(model, check, isa, op, axes, keepdims):
    data = model([helper.make_node(op, ["x", "a"], ["y"], keepdims=keepdims)], {"a": np.array(axes)}, {"x": ["b", 3, 5, 18]})
    x = floats(2, 3, 5, 18)
    check(data, {"x": np.abs(x) + 0.1 if op == "ReduceLogSum" else x}, isa)


def test_the_least_of_not_a_number_is_none(model, isa):
    """As numpy and onnx's reference have it; onnxruntime's answer depends on where the NaN stands."""
    x = floats(2, 3, 4, 4)
    x[0, 1, 2, 2], x[1, 0, 0, 0], x[1, 2] = np.nan, -np.inf, np.inf
    for axes in ([2, 3], [1], [3]):
        data = model([helper.make_node("ReduceMin", ["x", "a"], ["y"])], {"a": np.array(axes)}, {"x": ["b", 3, 4, 4]})
        np.testing.assert_array_equal(Session(data, isa=isa).run(None, {"x": x})[0], x.min(tuple(axes), keepdims=True))


@pytest.mark.parametrize("op", ["Elu", "Selu", "Celu", "Softplus", "Softsign"])
def test_activations_made_of_others(model, check, isa, op):
    attributes = {"alpha": 1.5} if op in ("Elu", "Celu") else {}
    data = model([helper.make_node(op, ["x"], ["y"], **attributes)], {}, {"x": ["b", 3, 5, 7]})
    check(data, {"x": 4 * floats(2, 3, 5, 7)}, isa)


@pytest.mark.parametrize("op", ["Sum", "Max", "Min", "Mean"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_any_number_of_operands(model, check, op, count):
    names = ["x", "c", "x", "d"][:count]
    data = model([helper.make_node(op, names, ["y"])], {"c": floats(3, 1), "d": floats(1, 3, 4)}, {"x": ["b", 3, 4]})
    check(data, {"x": floats(2, 3, 4)})


@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_local_response_normalisation(model, check, isa, size):
    node = helper.make_node("LRN", ["x"], ["y"], size=size, alpha=0.02, beta=0.6, bias=1.5)
    check(model([node], {}, {"x": ["b", 6, 4, 5]}), {"x": 3 * floats(2, 6, 4, 5)}, isa)


@pytest.mark.parametrize("shape", [(6, 4, 5), (6, 9)])
def test_instance_normalisation(model, check, shape):
    node = helper.make_node("InstanceNormalization", ["x", "s", "b"], ["y"], epsilon=1e-3)
    check(model([node], {"s": floats(6), "b": floats(6)}, {"x": ["b", *shape]}), {"x": floats(2, *shape)})


@pytest.mark.parametrize("op", ["DepthToSpace", "SpaceToDepth"])
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_blocks(model, check, op, mode):
    attributes = {"mode": mode} if op == "DepthToSpace" else {}
    data = model([helper.make_node(op, ["x"], ["y"], blocksize=2, **attributes)], {}, {"x": ["b", 8, 4, 6]})
    check(data, {"x": floats(2, 8, 4, 6)})


@pytest.mark.parametrize("target", [[1, 1, 4, 5], [4, 1], [1, 3, 1, 1], [3, 4, 5]])
def test_expanding(model, check, target):
    data = model([helper.make_node("Expand", ["x", "s"], ["y"])], {"s": np.array(target)}, {"x": ["b", 3, 1, 5]})
    check(data, {"x": floats(2, 3, 1, 5)})


def test_expanding_the_batch_is_refused(model):
    for shape, target in ((["b", 3], [2, 4, 3]), ([1, 3], [4, 3])):
        with pytest.raises(UnsupportedError, match="reaches the batch axis"):
            Session(model([helper.make_node("Expand", ["x", "s"], ["y"])], {"s": np.array(target)}, {"x": shape}))


def test_tiling(model, check):
    node = helper.make_node("Tile", ["x", "r"], ["y"])
    check(model([node], {"r": np.array([1, 2, 1, 3])}, {"x": ["b", 3, 2, 5]}), {"x": floats(2, 3, 2, 5)})
    with pytest.raises(UnsupportedError, match="repeats the batch"):
        Session(model([node], {"r": np.array([2, 2, 1, 3])}, {"x": ["b", 3, 2, 5]}))


@pytest.mark.parametrize("op", ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", [np.float32, np.int64, np.int8])
def test_comparisons_with_a_constant(check, isa, op, reverse, kind):
    names = ["c", "x"] if reverse else ["x", "c"]
    nodes = [helper.make_node(op, names, ["b"]), helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT)]
    constant = np.array([[0, 1, 2]], kind)
    data = graph_model(nodes, {"x": (helper.np_dtype_to_tensor_dtype(np.dtype(kind)), ["b", 4, 3])}, {"c": constant})
    check(data, {"x": RNG.integers(-2, 4, (5, 4, 3)).astype(kind)}, isa)


def test_integers_that_float32_does_not_hold(check):
    tokens = {"x": (TensorProto.INT64, ["b", 3])}
    cast = helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT)
    data = graph_model([helper.make_node("Equal", ["x", "c"], ["b"]), cast], tokens, {"c": np.array([2**24 - 1])})
    check(data, {"x": np.array([[2**24 - 1, 2**24, 2**24 + 1], [2**40, -(2**24), 0]])})
    with pytest.raises(UnsupportedError, match="float32 may not hold"):
        Session(graph_model([helper.make_node("Equal", ["x", "c"], ["b"]), cast], tokens, {"c": np.array([2**24 + 1])}))
    two = tokens | {"z": (TensorProto.INT64, ["b", 3])}
    with pytest.raises(UnsupportedError, match="float32 may not hold"):
        Session(graph_model([helper.make_node("Equal", ["x", "z"], ["b"]), cast], two))
    with pytest.raises(UnsupportedError, match="computes with 'x', which is int64"):
        Session(graph_model([helper.make_node("Add", ["x", "x"], ["b"]), cast], tokens))
    double = {"x": (TensorProto.DOUBLE, ["b", 3])}
    with pytest.raises(UnsupportedError, match="float32 may not hold"):
        Session(graph_model([helper.make_node("Less", ["x", "c"], ["b"]), cast], double, {"c": np.array([0.5])}))


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_logic(check, op):
    nodes = [
        helper.make_node(op, ["x", "z"], ["a"]),
        helper.make_node("Not", ["a"], ["b"]),
        helper.make_node(op, ["b", "c"], ["d"]),
        helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT),
    ]
    inputs = {name: (TensorProto.BOOL, ["b", 4]) for name in "xz"}
    data = graph_model(nodes, inputs, {"c": np.array([True, False, True, False])})
    check(data, {name: RNG.random((6, 4)) < 0.5 for name in "xz"})


@pytest.mark.parametrize("case", ["computed", "constant condition", "masked", "rest", "both constant"])
def test_selection(isa, case):
    """Infinities and NaN on the side that is not taken leave no trace."""
    x = floats(2, 3, 5)
    condition = RNG.random((2, 3, 5)) < 0.5
    constants = {"c": np.array([[True, False, True, True, False]]), "low": np.array(-np.inf, np.float32), "n": floats(3, 1)}
    names = {
        "computed": ["m", "x", "z"],
        "constant condition": ["c", "x", "z"],
        "masked": ["m", "x", "low"],
        "rest": ["c", "n", "x"],
        "both constant": ["m", "low", "n"],
    }[case]
    inputs = {"m": (TensorProto.BOOL, ["b", 3, 5]), "x": (TensorProto.FLOAT, ["b", 3, 5]), "z": (TensorProto.FLOAT, ["b", 3, 5])}
    data = graph_model([helper.make_node("Where", names, ["y"])], inputs, constants)
    z = floats(2, 3, 5)
    if case == "computed":
        x[condition == 0], z[condition] = np.nan, np.inf
    held = {"m": condition, "x": x, "z": z, **constants}
    want = np.where(*(held[name] for name in names))
    np.testing.assert_array_equal(Session(data, isa=isa).run(None, {"m": condition, "x": x, "z": z})[0], want)


def test_a_causal_mask(model, check):
    nodes = [helper.make_node("Where", ["m", "x", "low"], ["s"]), helper.make_node("Softmax", ["s"], ["y"], axis=-1)]
    constants = {"m": np.tril(np.ones((1, 1, 5, 5), bool)), "low": np.array(-np.inf, np.float32)}
    check(model(nodes, constants, {"x": ["b", 2, 5, 5]}), {"x": floats(2, 2, 5, 5)})


@pytest.mark.parametrize(
    ("kind", "to"),
    [(TensorProto.INT64, TensorProto.BOOL), (TensorProto.FLOAT, TensorProto.BOOL), (TensorProto.BOOL, TensorProto.INT64)],
)
def test_casts(check, kind, to):
    nodes = [helper.make_node("Cast", ["x"], ["a"], to=to), helper.make_node("Cast", ["a"], ["y"], to=TensorProto.FLOAT)]
    data = graph_model(nodes, {"x": (kind, ["b", 4])})
    check(data, {"x": np.array([[0, 1, 2, -3], [0, 0, 5, 1]]).astype(helper.tensor_dtype_to_np_dtype(kind))})


@pytest.mark.parametrize(
    ("kind", "to"), [(TensorProto.FLOAT, "INT32"), (TensorProto.INT64, "INT8"), (TensorProto.INT32, "DOUBLE")]
)
def test_casts_that_round_are_refused(kind, to):
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], name="narrow", to=TensorProto.DataType.Value(to)),
        helper.make_node("Cast", ["a"], ["y"], to=TensorProto.FLOAT),
    ]
    with pytest.raises(UnsupportedError, match=f"Cast 'narrow' from .* to {to}"):
        Session(graph_model(nodes, {"x": (kind, ["b", 4])}))


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE])
def test_what_moves_numbers_keeps_their_type(check, kind):
    nodes = [
        helper.make_node("Unsqueeze", ["x", "one"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
        helper.make_node("Concat", ["b", "b"], ["c"], axis=1),
        helper.make_node("Slice", ["c", "one", "five", "one"], ["d"]),
        helper.make_node("Reshape", ["d", "flat"], ["e"]),
        helper.make_node("Gather", ["e", "picked"], ["f"], axis=1),
        helper.make_node("Cast", ["f"], ["y"], to=TensorProto.FLOAT),
    ]
    constants = {"one": np.array([1]), "five": np.array([5]), "flat": np.array([0, -1]), "picked": np.array([0, 3, 1])}
    data = graph_model(nodes, {"x": (kind, ["b", 4])}, constants)
    check(data, {"x": np.array([[0, 1, 0, 1], [1, 1, 0, 0]]).astype(helper.tensor_dtype_to_np_dtype(kind))})
    with pytest.raises(UnsupportedError, match="output 'f' is"):
        Session(graph_model(nodes[:-1], {"x": (kind, ["b", 4])}, constants, outputs=("f",)))


def branch(name: str, nodes, outputs, constants=None) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        name,
        [],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None) for output in outputs],
        [numpy_helper.from_array(array, key) for key, array in (constants or {}).items()],
    )


def if_node(condition: str, *, constants=None, outputs=("y",)) -> onnx.NodeProto:
    yes = branch(
        "yes", [helper.make_node("Mul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "outer"], ["z"])], ["z"], constants
    )
    no = branch("no", [helper.make_node("Neg", ["x"], ["z"])], ["z"], {"w": floats(1)})
    return helper.make_node("If", [condition], list(outputs), name=f"choice_{outputs[0]}", then_branch=yes, else_branch=no)


@pytest.mark.parametrize("condition", [True, False])
def test_a_branch_that_is_known(check, condition):
    """Both branches name their values alike, and one reads a value around it; twice in one graph."""
    nodes = [
        if_node("c", constants={"w": floats(1, 4)}, outputs=["first"]),
        if_node("c", constants={"w": floats(1, 4)}, outputs=["second"]),
    ]
    nodes.append(helper.make_node("Add", ["first", "second"], ["y"]))
    data = graph_model(nodes, {"x": (TensorProto.FLOAT, ["b", 4])}, {"c": np.array(condition), "outer": floats(1, 4)})
    check(data, {"x": floats(3, 4)})


@pytest.mark.parametrize("width", [1, 4])
def test_a_branch_that_shapes_decide(check, width):
    """As torch writes x.squeeze(1) for an axis of an unknown size."""
    squeeze = branch("yes", [helper.make_node("Squeeze", ["x", "one"], ["s"])], ["s"])
    keep = branch("no", [helper.make_node("Identity", ["x"], ["k"])], ["k"])
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=1, end=2),
        helper.make_node("Equal", ["shape", "one"], ["is_one"]),
        helper.make_node("If", ["is_one"], ["chosen"], then_branch=squeeze, else_branch=keep),
        helper.make_node("Relu", ["chosen"], ["y"]),
    ]
    data = graph_model(nodes, {"x": (TensorProto.FLOAT, ["b", "w", 3])}, {"one": np.array([1])})
    check(data, {"x": floats(2, width, 3)})


def test_branches_in_branches_and_constant_results(check):
    inner = helper.make_node(
        "If",
        ["c"],
        ["deep"],
        then_branch=branch("deep_yes", [helper.make_node("Mul", ["x", "k"], ["q"])], ["q"]),
        else_branch=branch("deep_no", [helper.make_node("Neg", ["x"], ["q"])], ["q"]),
    )
    outer = helper.make_node(
        "If",
        ["c"],
        ["moved", "kept"],
        then_branch=branch("yes", [inner, helper.make_node("Identity", ["k"], ["same"])], ["deep", "same"], {"k": floats(1, 4)}),
        else_branch=branch("no", [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("Abs", ["x"], ["m"])], ["n", "m"]),
    )
    data = graph_model(
        [outer, helper.make_node("Add", ["moved", "kept"], ["y"])], {"x": (TensorProto.FLOAT, ["b", 4])}, {"c": np.array(True)}
    )
    check(data, {"x": floats(3, 4)})


def test_branches_that_are_refused():
    inputs = {"x": (TensorProto.FLOAT, ["b", 4]), "c": (TensorProto.BOOL, [1])}
    with pytest.raises(UnsupportedError, match="If 'choice_y': its condition is computed from the inputs"):
        Session(graph_model([if_node("c", constants={"w": floats(1)})], inputs, {"outer": floats(1)}))
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=0, end=1),
        helper.make_node("Equal", ["shape", "one"], ["alone"]),
        if_node("alone", constants={"w": floats(1)}),
    ]
    with pytest.raises(UnsupportedError, match=r"If 'choice_y': input 0 .* batch size"):
        Session(graph_model(nodes, {"x": (TensorProto.FLOAT, ["b", 4])}, {"one": np.array([1]), "outer": floats(1)}))
    loop = helper.make_node("Loop", ["n", ""], ["y"], name="again", body=branch("body", [], ["z"]))
    data = graph_model([helper.make_node("Relu", ["x"], ["y"])], {"x": (TensorProto.FLOAT, ["b", 4])}, {"n": np.array(2)})
    changed = onnx.load_model_from_string(data)
    changed.graph.node.append(loop)
    with pytest.raises(UnsupportedError, match=r"control flow .Loop 'again'."):
        Session(changed.SerializeToString())
