"""Files of any exporter: element types, subgraphs, shared, sparse and external weights, old opsets, functions."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.errors import ModelError, VerificationError
from tdcompress.onnxfile import pack
from tdcompress.onnxfile.load import infers_strictly, load_model, save_model
from tdcompress.onnxfile.pack import pack_model, pack_onnx, unpack_onnx
from tdcompress.onnxfile.weights import densified

Make = Callable[..., onnx.ModelProto]


@pytest.mark.parametrize(
    ("dtype", "encoding"), [(np.float16, "step4"), (np.float64, "gap8"), (np.int8, "step4"), (np.uint8, "step4")]
)
def test_other_element_types(
    dtype: type, encoding: str, run_model: Callable, optimised_graph: Callable, arrays: Callable
) -> None:
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
def test_subgraphs(names: tuple[str, str], run_model: Callable, optimised_graph: Callable, arrays: Callable) -> None:
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


def test_a_sparse_initializer_is_read_and_packed(run_model: Callable, arrays: Callable) -> None:
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
def test_external_data_only_when_allowed(do: Callable, tmp_path, arrays: Callable) -> None:
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
    monkeypatch.setattr(
        pack, "byte_prices", lambda prefer, strict: {"dense": lambda size: 1.0, "sparse_initializer": lambda size: 0.1}
    )
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
