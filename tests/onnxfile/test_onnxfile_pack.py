"""The contract of packing: bytes, no trace at run time, bit-exact way back."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from weights import dense_initializers

from tdcompress.errors import UnsupportedError
from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.load import infers_strictly, load_model, save_model
from tdcompress.onnxfile.pack import pack_model, pack_onnx, unpack_onnx
from tdcompress.onnxfile.reports import PackReport, PackValues
from tdcompress.onnxfile.short_names import with_short_names
from tdcompress.onnxfile.weights import stored_weights

Make = Callable[..., onnx.ModelProto]


@pytest.mark.parametrize(("sparsity", "most"), [(0.75, 1.04), (0.9, 1.03), (0.95, 1.045), (0.99, 1.145)])
def test_bytes_are_near_the_bound_on_resnet32(make_resnet32: Make, sparsity: float, most: float, arrays: Callable) -> None:
    model = make_resnet32(sparsity)
    packed, report = pack_model(model)
    prunable = [tensor for tensor in report.tensors if len(tensor.shape) == 4 and tensor.shape[1] != 3]
    assert sum(tensor.elements for tensor in prunable) == 1_849_344
    assert report.file_bytes == len(packed.SerializeToString())
    assert report.file_bytes <= most * report.bound_bytes
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


@pytest.mark.parametrize("values", ["float32", "float16"])
@pytest.mark.parametrize(("sparsity", "most"), [(0.75, 1.05), (0.9, 1.05), (0.95, 1.05), (0.99, 1.1)])
def test_the_smallest_files_are_as_near_to_the_bound_as_promised(
    make_resnet32: Make, sparsity: float, most: float, values: PackValues, arrays: Callable, optimised_graph: Callable
) -> None:
    """Values between nodes have the names that the project's export gives them."""
    dense = with_short_names(make_resnet32(sparsity))
    fast = pack_model(dense, values)[0]
    small, report = pack_model(dense, values, "size")
    assert report.left_as_is == ""
    assert report.file_bytes <= most * report.bound_bytes
    assert arrays(small) == arrays(fast)
    assert optimised_graph(small, "all") == optimised_graph(fast, "all")


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
    assert report.encodings["rice1" if prefer == "size" else "gap4"] >= 30
    assert optimised_graph(packed, level) == optimised_graph(dense, level)
    if level == "all":
        images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
        assert run_model(packed, images)[0].tobytes() == run_model(dense, images)[0].tobytes()


def test_half_zeros_take_the_encoding_that_loads_fastest(
    make_resnet32: Make, optimised_graph: Callable, run_model: Callable, arrays: Callable
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


def test_way_back_is_bit_exact(make_small_net: Make, tmp_path, arrays: Callable) -> None:
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


def test_packing_is_deterministic_and_idempotent(make_small_net: Make, tmp_path, arrays: Callable) -> None:
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


def test_negative_zeros_are_zeros(make_small_net: Make) -> None:
    dense = make_small_net(0.9)
    (tensor,) = (t for t in dense.graph.initializer if t.name == "conv2.weight")
    weights = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.where(weights == 0, np.float32(-0.0), weights), tensor.name))
    packed, report = pack_model(dense)
    assert report.negative_zeros == np.count_nonzero(weights == 0)
    assert dense_initializers(packed)["conv2.weight"].tobytes() == weights.tobytes()
    assert report.file_bytes == pack_model(make_small_net(0.9))[1].file_bytes


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
