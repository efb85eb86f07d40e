"""The contract of packing: bytes, no trace at run time, bit-exact way back, any exporter's file."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.errors import ModelError, UnsupportedError, VerificationError
from tdcompress.inspection import packing_lines
from tdcompress.onnxfile import pack
from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.load import infers_strictly, load_model, save_model
from tdcompress.onnxfile.pack import pack_model, pack_onnx, unpack_onnx
from tdcompress.onnxfile.reports import PackReport
from tdcompress.onnxfile.runtime import Comparison, compare_outputs, open_session
from tdcompress.onnxfile.weights import dense_initializers, densified, stored_weights

Make = Callable[..., onnx.ModelProto]


def arrays(model: onnx.ModelProto) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in dense_initializers(model).items()}


@pytest.mark.parametrize("sparsity", [0.75, 0.9, 0.95, 0.99])
def test_bytes_are_near_the_bound_on_resnet32(make_resnet32: Make, sparsity: float) -> None:
    model = make_resnet32(sparsity)
    packed, report = pack_model(model)
    prunable = [tensor for tensor in report.tensors if len(tensor.shape) == 4 and tensor.shape[1] != 3]
    assert sum(tensor.elements for tensor in prunable) == 1_849_344
    assert report.file_bytes == len(packed.SerializeToString())
    assert report.file_bytes <= 1.15 * report.bound_bytes
    # the bound by hand: kept values, n H(p) per tensor, everything else dense; no graph structure in it
    by_hand = 0.0
    for array in dense_initializers(model).values():
        p = np.count_nonzero(array) / array.size
        entropy = 0 if p == 1 else -p * np.log2(p) - (1 - p) * np.log2(1 - p)
        by_hand += array.size * (p * 32 + entropy) / 8
    assert report.bound_bytes == pytest.approx(by_hand, rel=1e-9)
    assert arrays(packed) == arrays(model)
    assert {node.domain for node in packed.graph.node} == {""}  # nothing but standard operators
    assert packed.opset_import == model.opset_import
    assert infers_strictly(packed)


@pytest.mark.parametrize("zeros", [0.01, 0.03, 0.06, 0.2, 0.4, 0.6, 0.8, 0.95, 0.995])
def test_no_single_encoding_is_smaller(make_small_net: Make, zeros: float) -> None:
    """Below the break-even that encoding is dense, and the file is left as it is."""
    dense = make_small_net(0.0)
    random = np.random.default_rng(0)
    for tensor in dense.graph.initializer:
        if len(tensor.dims) > 1:
            array = numpy_helper.to_array(tensor)
            kept = np.where(random.random(array.shape) < zeros, np.float32(0), array)
            tensor.CopyFrom(numpy_helper.from_array(kept, tensor.name))
    weights = [weight for weight in stored_weights(dense) if weight.array.ndim > 1]
    without = dense.ByteSize() - ENCODINGS["dense"].write(weights, weights[0].key).n_bytes()
    report = pack_model(dense, prefer="size")[1]
    for name, encoding in ENCODINGS.items():
        if encoding.infers:
            alone = without + encoding.write(weights, replace(weights[0].key, encoding=name)).n_bytes()
            assert report.file_bytes <= alone + 2, name  # a length of one byte more
    assert (set(report.encodings) == {"dense"}) == (zeros < 0.1)
    assert report.file_bytes <= report.dense_bytes


@pytest.mark.parametrize("level", ["basic", "extended", "layout", "all"])
@pytest.mark.parametrize("prefer", ["speed", "size"])
def test_the_runtime_sees_the_dense_network(
    make_resnet32: Make, optimised_graph: Callable, run_model: Callable, level: str, prefer: str
) -> None:
    """Operator for operator, weight for weight; the pre-activation network's BatchNorm + Conv fusions included."""
    dense = make_resnet32(0.75)
    packed, report = pack_model(dense, prefer=prefer)
    assert report.encodings["bitmask" if prefer == "size" else "gap4"] >= 30
    assert optimised_graph(packed, level) == optimised_graph(dense, level)
    if level == "all":
        images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
        assert run_model(packed, images)[0].tobytes() == run_model(dense, images)[0].tobytes()


def test_half_zeros_take_the_encoding_that_loads_fastest(
    make_resnet32: Make, optimised_graph: Callable, run_model: Callable
) -> None:
    dense = make_resnet32(0.5)
    packed, report = pack_model(dense)
    assert report.encodings["step4"] >= 30
    assert report.file_bytes <= 1.07 * report.bound_bytes
    assert optimised_graph(packed, "all") == optimised_graph(dense, "all")
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    assert run_model(packed, images)[0].tobytes() == run_model(dense, images)[0].tobytes()
    assert arrays(packed) == arrays(dense)


@pytest.mark.parametrize("sparsity", [0.65, 0.7, 0.75])
def test_loading_faster_costs_at_most_half_a_percent(make_resnet32: Make, sparsity: float) -> None:
    dense = make_resnet32(sparsity)
    weights = [weight for weight in stored_weights(dense) if weight.array.ndim == 4 and np.any(weight.array == 0)]
    section = {
        name: ENCODINGS[name].write(weights, replace(weights[0].key, encoding=name)).n_bytes() for name in ("gap4", "step4")
    }
    chosen = pack_model(dense)[1].encodings
    assert chosen["step4" if section["step4"] <= 1.005 * section["gap4"] else "gap4"] == len(weights)


@pytest.mark.parametrize("sparsity", [0.6, 0.99])
@pytest.mark.parametrize("opset", [13, 17, 21, 23])
def test_fusion_survives_packing(make_small_net: Make, optimised_graph: Callable, sparsity: float, opset: int) -> None:
    dense = make_small_net(sparsity, opset=opset)
    packed, report = pack_model(dense)
    assert set(report.encodings) - {"dense"}
    wanted = optimised_graph(dense, "all")
    assert optimised_graph(packed, "all") == wanted
    assert "BatchNormalization" not in str(wanted)


def test_way_back_is_bit_exact(make_small_net: Make, tmp_path) -> None:
    dense = make_small_net(0.9)
    save_model(dense, tmp_path / "dense.onnx")
    report = pack_onnx(tmp_path / "dense.onnx", tmp_path / "packed.onnx")
    assert report.file_bytes == (tmp_path / "packed.onnx").stat().st_size
    assert PackReport.from_json(report.to_json()) == report
    back = unpack_onnx(tmp_path / "packed.onnx", tmp_path / "back.onnx")
    assert back.restored == sum(count for name, count in report.encodings.items() if name != "dense")
    restored = load_model(tmp_path / "back.onnx")
    assert {t.name: numpy_helper.to_array(t).tobytes() for t in restored.graph.initializer} == arrays(dense)
    for node in dense.graph.node:
        node.ClearField("name")  # labels are not kept
    assert list(restored.graph.node) == list(dense.graph.node)
    assert not restored.graph.sparse_initializer


def test_packing_is_deterministic_and_idempotent(make_small_net: Make, tmp_path) -> None:
    save_model(make_small_net(0.9), tmp_path / "dense.onnx")
    for name in ("a.onnx", "b.onnx"):
        pack_onnx(tmp_path / "dense.onnx", tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    pack_onnx(tmp_path / "a.onnx", tmp_path / "a.onnx")  # in place, from a packed file
    again = load_model(tmp_path / "a.onnx")
    assert arrays(again) == arrays(load_model(tmp_path / "b.onnx"))
    assert (tmp_path / "a.onnx").stat().st_size == (tmp_path / "b.onnx").stat().st_size


def test_without_zeros_everything_stays_dense(make_small_net: Make) -> None:
    dense = make_small_net(0.0)
    packed, report = pack_model(dense)
    assert set(report.encodings) == {"dense"}
    assert packed.SerializeToString(deterministic=True) == dense.SerializeToString(deterministic=True)


def test_float16_values(make_resnet32: Make, run_model: Callable, optimised_graph: Callable) -> None:
    dense = make_resnet32(0.9)
    packed, report = pack_model(dense, values="float16")
    exact, rounded = dense_initializers(dense), dense_initializers(packed)
    for name, array in exact.items():
        matrix = array.ndim >= 2
        wanted = array.astype(np.float16).astype(np.float32) if matrix else array
        assert rounded[name].dtype == np.float32
        assert rounded[name].tobytes() == wanted.tobytes(), name
    assert 0 < report.weight_error < 2**-11
    assert report.underflows == sum(int(np.count_nonzero((rounded[name] == 0) & (array != 0))) for name, array in exact.items())
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    wanted, given = run_model(dense, images)[0], run_model(packed, images)[0]
    assert 0 < np.abs(wanted - given).max() / np.abs(wanted).max() < 5e-3
    assert report.output_error is not None
    assert 0 < report.output_error < 5e-3
    assert report.file_bytes < 0.62 * pack_model(dense)[1].file_bytes
    assert optimised_graph(packed, "all") == optimised_graph(densified(packed), "all")
    assert infers_strictly(packed)


@pytest.mark.parametrize(
    ("value", "reason", "lost"),
    [
        (np.nan, "it holds NaN or infinity", 4),
        (np.inf, "it holds NaN or infinity", 4),
        (-3.4e37, "a value of size 3.4e+37 is beyond float16's 65504", 0),
    ],
)
def test_what_float16_cannot_hold_stays_float32_and_says_why(make_small_net: Make, value: float, reason: str, lost: int) -> None:
    """The head's first output reads that value, so it is not finite for any of the 4 random images; the other 9 are compared."""
    model = make_small_net(0.9)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "head.weight")
    array = numpy_helper.to_array(weight).copy()
    array[0, 0] = value
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    packed, report = pack_model(model, values="float16")
    assert report.kept_float32 == {"head.weight": reason}
    assert report.kept_dense == {}
    assert dense_initializers(packed)["head.weight"].tobytes() == array.tobytes()
    stored = {tensor.name: tensor.stored for tensor in report.tensors if len(tensor.shape) > 1}
    assert stored == {"conv1.weight": "float16", "conv2.weight": "float16", "head.weight": "float32"}
    assert PackReport.from_json(report.to_json()) == report
    assert report.outputs_not_finite == (lost, lost)
    assert report.output_error is not None
    assert 0 < report.output_error < 5e-3
    said = list(packing_lines(report))
    assert said[-1] == f"kept in float32 because {reason}: head.weight"
    assert (said[1] == "float16: 4 outputs on random inputs were NaN or infinite, 4 are now; these were not compared") == (
        lost > 0
    )


def test_outputs_are_compared_where_they_are_finite() -> None:
    def times(factors: list[float]) -> onnx.ModelProto:
        graph = helper.make_graph(
            [helper.make_node("Mul", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
            [numpy_helper.from_array(np.array(factors, np.float32), "w")],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)

    def compared(first: list[float], second: list[float]) -> Comparison:
        sessions = [open_session(times(factors)) for factors in (first, second)]
        return compare_outputs(*sessions, [{"x": np.array([1, 2, 2, 1], np.float32)}])

    assert compared([1, 2, 4, 1], [1, 1, 4, 1]) == Comparison(error=2 / 8, not_finite=(0, 0))
    assert compared([np.nan, 2, np.inf, 1], [np.nan, 1, 4, 1]) == Comparison(error=2 / 4, not_finite=(2, 1))
    assert compared([np.nan] * 4, [1, 1, 1, 1]) == Comparison(error=None, not_finite=(4, 0))
    assert compared([0, 0, 0, 0], [0, 1, 0, 0]) == Comparison(error=2.0, not_finite=(0, 0))


def test_rounding_alone_leaves_zeros_where_they_are(make_small_net: Make) -> None:
    dense = make_small_net(0.9)
    rounded, report = pack_model(dense, values="float16", sparse=False)
    assert set(report.encodings) == {"dense"}
    assert {tensor.stored for tensor in report.tensors if len(tensor.shape) > 1} == {"float16"}
    assert arrays(rounded) == arrays(pack_model(dense, values="float16")[0])
    same, report = pack_model(dense, sparse=False)
    assert same.SerializeToString(deterministic=True) == dense.SerializeToString(deterministic=True)


def test_float16_leaves_what_it_cannot_hold(make_small_net: Make) -> None:
    dense = make_small_net(0.5)
    (tensor,) = (t for t in dense.graph.initializer if t.name == "conv2.weight")
    large = numpy_helper.to_array(tensor).copy()
    large[0, 0, 0, 0] = 1e5
    tensor.CopyFrom(numpy_helper.from_array(large, tensor.name))
    packed, report = pack_model(dense, values="float16")
    stored = {tensor.name: tensor.stored for tensor in report.tensors}
    assert stored["conv2.weight"] == "float32"
    assert stored["conv1.weight"] == "float16"
    assert dense_initializers(packed)["conv2.weight"].tobytes() == large.tobytes()


def test_negative_zeros_are_zeros(make_small_net: Make) -> None:
    dense = make_small_net(0.9)
    (tensor,) = (t for t in dense.graph.initializer if t.name == "conv2.weight")
    weights = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.where(weights == 0, np.float32(-0.0), weights), tensor.name))
    packed, report = pack_model(dense)
    assert report.negative_zeros == np.count_nonzero(weights == 0)
    assert dense_initializers(packed)["conv2.weight"].tobytes() == weights.tobytes()
    assert report.file_bytes == pack_model(make_small_net(0.9))[1].file_bytes


@pytest.mark.parametrize(
    ("dtype", "encoding"), [(np.float16, "step4"), (np.float64, "gap8"), (np.int8, "step4"), (np.uint8, "step4")]
)
def test_other_element_types(dtype: type, encoding: str, run_model: Callable, optimised_graph: Callable) -> None:
    random = np.random.default_rng(0)
    weights = (random.standard_normal((64, 64)) * 20).astype(dtype)
    weights[random.random((64, 64)) < 0.9] = 0
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["weights"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["input", "wide"], ["output"]),
        ],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(weights, "weights")],
    )
    dense = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    packed, report = pack_model(dense)
    assert (report.tensors[0].encoding, report.tensors[0].dtype) == (encoding, np.dtype(dtype).name)
    assert kind in {tensor.data_type for tensor in packed.graph.initializer}
    assert arrays(packed) == arrays(dense)
    assert optimised_graph(packed, "basic") == optimised_graph(dense, "basic")


def sparse_matrix(seed: int, size: int = 64, zeros: float = 0.9) -> np.ndarray:
    random = np.random.default_rng(seed)
    weights = random.standard_normal((size, size))
    return np.where(random.random((size, size)) < zeros, 0, weights).astype(np.float32)


def branches(names: tuple[str, str]) -> onnx.ModelProto:
    """If(condition): input @ weights of one branch, else of the other; both may call theirs by one name."""

    def branch(name: str, seed: int) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node("MatMul", ["input", name], [f"product_{seed}"])],
            f"branch_{seed}",
            [],
            [helper.make_tensor_value_info(f"product_{seed}", TensorProto.FLOAT, ["batch", 64])],
            [numpy_helper.from_array(sparse_matrix(seed), name)],
        )

    node = helper.make_node("If", ["condition"], ["chosen"], then_branch=branch(names[0], 1), else_branch=branch(names[1], 2))
    last = helper.make_node("MatMul", ["chosen", "weights"], ["output"])
    graph = helper.make_graph(
        [node, last],
        "g",
        [
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 64]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(sparse_matrix(3), "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("names", [("w1", "w2"), ("w", "w")])
def test_subgraphs(names: tuple[str, str], run_model: Callable, optimised_graph: Callable) -> None:
    dense = branches(names)
    packed, report = pack_model(dense)
    assert report.encodings == {"gap8": 3}
    assert {tensor.name for tensor in report.tensors} == {
        "weights",
        f"If_0.then_branch/{names[0]}",
        f"If_0.else_branch/{names[1]}",
    }
    batch = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    for condition in (True, False):
        wanted = run_model(dense, np.array(condition), batch)[0]
        assert run_model(packed, np.array(condition), batch)[0].tobytes() == wanted.tobytes()
    assert arrays(densified(packed)) == arrays(packed) == arrays(dense)


def test_shared_weights_are_kept_once(run_model: Callable) -> None:
    dense = branches(("w1", "w2"))
    dense.graph.node[1].input[1] = "weights"
    dense.graph.node.insert(0, helper.make_node("MatMul", ["input", "weights"], ["first"]))
    for attribute in dense.graph.node[1].attribute:  # both branches use the outer weights too
        attribute.g.node[0].input[:] = ["first", "weights"]
        del attribute.g.initializer[:]
    packed, report = pack_model(dense)
    assert report.encodings == {"gap8": 1}
    batch = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    assert run_model(packed, np.array(True), batch)[0].tobytes() == run_model(dense, np.array(True), batch)[0].tobytes()


def matmul(*, opset: int = 17, ir_version: int = 8, listed: bool = False, constant: bool = False) -> onnx.ModelProto:
    """input @ weights, the weights as an initializer (also listed as an input or not) or in a Constant node."""
    weights = numpy_helper.from_array(sparse_matrix(0), "weights")
    nodes = [helper.make_node("MatMul", ["input", "weights"], ["output"])]
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["weights"], value=weights))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 64])]
    if listed:
        inputs.append(helper.make_tensor_value_info("weights", TensorProto.FLOAT, [64, 64]))
    outs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 64])]
    graph = helper.make_graph(nodes, "g", inputs, outs, [] if constant else [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param({"constant": True}, id="constant"),
        pytest.param({"opset": 9, "ir_version": 4}, id="opset9"),
        pytest.param({"opset": 9, "ir_version": 3, "listed": True}, id="listed"),
        pytest.param({"opset": 11, "ir_version": 6}, id="opset11"),
    ],
)
def test_older_exporters(source: dict, run_model: Callable) -> None:
    dense = matmul(**source)
    packed, report = pack_model(dense)
    assert report.encodings == {"gap8": 1}
    assert [value.name for value in packed.graph.input] == ["input"]
    batch = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    wanted = batch @ sparse_matrix(0)
    np.testing.assert_allclose(run_model(packed, batch)[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("opset", range(9, 24))
def test_every_opset(opset: int, run_model: Callable) -> None:
    dense = matmul(opset=opset)
    packed, report = pack_model(dense)
    assert report.encodings == {"gap8": 1}
    assert {entry.version for entry in packed.opset_import} == {max(13, opset)}
    assert infers_strictly(packed)
    batch = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    assert run_model(packed, batch)[0].tobytes() == run_model(dense, batch)[0].tobytes()


def test_an_overridable_weight_stays_dense() -> None:
    packed, report = pack_model(matmul(listed=True))
    assert report.encodings == {"dense": 1}
    assert "override" in report.kept_dense["weights"]
    assert len(packed.graph.input) == 2


def test_a_sparse_initializer_is_read_and_packed(run_model: Callable) -> None:
    dense = matmul()
    model = matmul()
    weights = sparse_matrix(0)
    del model.graph.initializer[:]
    rows, columns = np.nonzero(weights)
    model.graph.sparse_initializer.append(
        onnx.SparseTensorProto(
            values=numpy_helper.from_array(weights[rows, columns], "weights"),
            indices=numpy_helper.from_array(np.stack([rows, columns], axis=1).astype(np.int64)),
            dims=[64, 64],
        )
    )
    packed, report = pack_model(model)
    assert report.encodings == {"gap8": 1}
    assert arrays(packed) == arrays(dense)


@pytest.mark.parametrize(("width", "encoding"), [(64, "gap8"), (65, "sparse_initializer")])
def test_a_sparse_initializer_only_where_shapes_do_not_infer_anyway(width: int, encoding: str, run_model: Callable) -> None:
    """It is the smallest for few values, but onnx's strict shape inference accepts no operator that reads one."""
    model = matmul()
    weights = np.zeros((64, 64), np.float32)
    weights[3, 5], weights[63, 63] = 2.0, -1.5
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "weights"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = width  # 65 is wrong; onnxruntime does not mind
    assert infers_strictly(model) == (width == 64)
    packed, report = pack_model(model)
    assert infers_strictly(packed) == (width == 64)
    assert report.encodings == {encoding: 1}
    assert len(packed.graph.sparse_initializer) == (width == 65)
    batch = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    assert run_model(packed, batch)[0].tobytes() == run_model(model, batch)[0].tobytes()


def test_all_zero_weights(run_model: Callable) -> None:
    model = matmul()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((64, 64), np.float32), "weights"))
    packed, report = pack_model(model)
    assert report.file_bytes < 1200
    assert run_model(packed, np.ones((2, 64), np.float32))[0].tobytes() == bytes(4 * 2 * 64)


@pytest.mark.parametrize("do", [pack_onnx, unpack_onnx])
def test_external_data_only_when_allowed(do: Callable, tmp_path) -> None:
    model = matmul()
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    with pytest.raises(ModelError, match="'weights' is kept in another file"):
        do(tmp_path / "m.onnx", tmp_path / "p.onnx")
    assert not (tmp_path / "p.onnx").exists()
    report = do(tmp_path / "m.onnx", tmp_path / "p.onnx", external_data=True)
    assert report.source_bytes == matmul().ByteSize() > 64 * 64 * 4  # as one file
    assert report.file_bytes == (tmp_path / "p.onnx").stat().st_size
    assert arrays(load_model(tmp_path / "p.onnx")) == {"weights": sparse_matrix(0).tobytes()}


def test_a_packed_model_that_no_longer_infers_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(pack, "byte_prices", lambda prefer, strict: {"dense": 1.0, "sparse_initializer": 0.1})
    save_model(matmul(), tmp_path / "m.onnx")
    with pytest.raises(VerificationError, match=r"m\.onnx: the source passes onnx.checker's full check"):
        pack_onnx(tmp_path / "m.onnx", tmp_path / "p.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("constant", [False, True])
def test_bfloat16_weights_stay_dense_and_that_is_said(constant: bool) -> None:
    source = matmul(constant=constant)
    held = source.graph.node[0].attribute[0].t if constant else source.graph.initializer[0]
    held.CopyFrom(helper.make_tensor("weights", TensorProto.BFLOAT16, [64, 64], sparse_matrix(0).reshape(-1)))
    for value in (*source.graph.input, *source.graph.output):
        value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    packed, report = pack_model(source)
    assert report.encodings == {"constant" if constant else "dense": 1}
    assert report.kept_dense == {"weights": "element type BFLOAT16 is not packed"}
    assert packed.SerializeToString() == source.SerializeToString()


def test_weights_of_functions_stay_and_that_is_said(run_model: Callable) -> None:
    """A model's own function, with a weight and an axis in it."""
    constants = {"weights": sparse_matrix(1), "axis": np.array([1], np.int64)}
    body = [
        *(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)) for name, array in constants.items()),
        helper.make_node("MatMul", ["x", "weights"], ["y"]),
    ]
    standard = helper.make_opsetid("", 17)
    source = matmul()
    source.functions.append(helper.make_function("own", "Layer", ["x"], ["y"], body, [standard]))
    source.opset_import.append(helper.make_opsetid("own", 1))
    source.graph.node[0].output[0] = "inner"
    source.graph.node.append(helper.make_node("Layer", ["inner"], ["output"], domain="own"))
    packed, report = pack_model(source)
    assert report.encodings == {"constant": 1, "gap8": 1}
    assert report.kept_dense == {"Layer()/weights": "it is in a function, where packing does not reach"}
    batch = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    assert run_model(packed, batch)[0].tobytes() == run_model(source, batch)[0].tobytes()


def test_unknown_choices_are_refused(make_small_net: Make) -> None:
    with pytest.raises(UnsupportedError, match="bfloat16"):
        pack_model(make_small_net(), values="bfloat16")  # type: ignore[arg-type]


def test_decoders_run_without_optimisation(make_small_net: Make) -> None:
    """A runtime that folds nothing still computes the same."""
    dense = make_small_net(0.9)
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    results = []
    for model in (dense, pack_model(dense)[0]):
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results.append(session.run(None, {"input": images})[0].tobytes())
    assert results[0] == results[1]
