"""What loading a packed file costs, and decoders that are small enough to be folded."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.inspection import file_tables
from tdcompress.onnxfile import plan
from tdcompress.onnxfile.inspect import inspect_model
from tdcompress.onnxfile.optimised import optimised_differently
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.weights import densified, sections

Make = Callable[..., onnx.ModelProto]


def test_the_cost_of_step4_by_hand() -> None:
    """Codes of half a byte: high, low (1 byte each) and both together (1), as int32 and summed (8); three times the weights."""
    random = np.random.default_rng(0)
    weights = np.where(random.random((64, 64)) < 0.5, 0, random.standard_normal((64, 64))).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["output"])],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 64])],
        [numpy_helper.from_array(weights, "w")],
    )
    packed, report = pack_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert report.encodings == {"step4": 1}
    (codes,) = (tensor for tensor in packed.graph.initializer if tensor.name.endswith(".codes"))
    pairs = codes.dims[0]
    before, elements = 1, 64 * 64
    nibbles = 2 * pairs
    after = max(0, max(np.cumsum(_nibbles(numpy_helper.to_array(codes)))) - elements)
    zeros_and_flat = 2 * 4 * (before + elements + after)
    parts = 4 * (before + after) + 4 * elements  # split
    reshaped = 4 * elements
    assert inspect_model(packed).loading_bytes == 2 * pairs + nibbles + 8 * nibbles + zeros_and_flat + parts + reshaped
    assert not inspect_model(packed).unfolded
    assert inspect_model(densified(packed)).loading_bytes == 0


def _nibbles(codes: np.ndarray) -> np.ndarray:
    return np.concatenate([codes >> 4, codes & 15]).astype(np.int64)


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.99])
@pytest.mark.parametrize("prefer", ["speed", "size"])
def test_every_result_is_counted(make_resnet32: Make, sparsity: float, prefer: str) -> None:
    packed, report = pack_model(make_resnet32(sparsity), prefer=prefer)  # type: ignore[arg-type]
    elements = sum(tensor.elements for tensor in report.tensors if tensor.encoding != "dense")
    assert 3 * 4 * elements < inspect_model(packed).loading_bytes < 100 * elements


def test_inspect_says_what_loading_costs(make_small_net: Make, tmp_path) -> None:
    packed, _ = pack_model(make_small_net(0.9))
    for model, costs in ((packed, True), (densified(packed), False)):
        facts = dict(file_tables(tmp_path / "m.onnx", inspect_model(model))[1].rows)
        assert ("loading" in facts) == costs
    report = inspect_model(packed)
    facts = dict(file_tables(tmp_path / "m.onnx", report)[1].rows)
    assert f"{report.loading_bytes:,} bytes more memory" in facts["loading"]
    assert "on every call" not in facts["loading"]


def test_a_decoder_beyond_the_limit_is_two(
    make_small_net: Make, monkeypatch: pytest.MonkeyPatch, arrays: Callable, run_model: Callable
) -> None:
    """onnxruntime does not fold a node whose result is larger than 1 GiB; here the limit is 20 KB, without slack."""
    dense = make_small_net(0.9)
    sizes = {tensor.name: tensor.elements for tensor in inspect_model(dense).tensors}
    assert (sizes["conv1.weight"], sizes["conv2.weight"], sizes["head.weight"]) == (432, 4608, 320)
    monkeypatch.setattr(plan, "_SLACK", 0)
    monkeypatch.setattr(plan, "FOLDED_BYTES", 4 * 5000)
    packed, report = pack_model(dense)
    assert {key.part for key in sections(packed.graph)} == {0, 1}
    assert {name for name in report.encodings if name != "dense"}
    assert arrays(packed) == arrays(dense)
    assert optimised_differently(dense, packed) == ""
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    assert run_model(packed, images)[0].tobytes() == run_model(dense, images)[0].tobytes()
    assert arrays(densified(packed)) == arrays(dense)
    monkeypatch.setattr(plan, "FOLDED_BYTES", 4 * 4000)
    left = {tensor.name: tensor.encoding for tensor in pack_model(dense)[1].tensors}
    assert left["conv2.weight"] == "dense"
    assert left["conv1.weight"] != "dense"
