"""int8: zeros survive, packing pays, the runtime sees the unpacked quantised network."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pair_sums
import pytest
from onnx import TensorProto, helper
from weights import dense_initializers

from tdcompress.errors import ModelError, UnsupportedError
from tdcompress.onnxfile.load import load_model, save_model
from tdcompress.onnxfile.metadata import get_metadata, set_metadata
from tdcompress.onnxfile.pack import pack_onnx, unpack_onnx
from tdcompress.onnxfile.quantise import quantise_int8
from tdcompress.onnxfile.verify import verify_onnx


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((48, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("packed_source", [False, True])
def test_zeros_survive_and_packing_pays(
    tmp_path: Path,
    images: np.ndarray,
    packed_source: bool,
    make_small_net: Callable,
    optimised_graph: Callable,
    run_model: Callable,
) -> None:
    model = make_small_net(0.9)
    set_metadata(model, {"classes": "ten"})
    source = tmp_path / "m.onnx"
    save_model(model, source)
    if packed_source:
        pack_onnx(source, source)
    report = quantise_int8(source, tmp_path / "int8.onnx", images)
    plain = quantise_int8(source, tmp_path / "plain.onnx", images, pack=False)
    assert report.packed
    assert not plain.packed
    assert report.file_bytes == (tmp_path / "int8.onnx").stat().st_size < plain.file_bytes
    assert report.quantised_weights == 3
    assert report.elements == 16 * 27 + 32 * 144 + 10 * 32
    assert report.zeros_before == 16 * 24 + 32 * 129 + 10 * 28
    assert report.zeros_after >= report.zeros_before
    assert 0 < report.output_error < 0.1
    assert report.calibration_samples == 48
    assert get_metadata(load_model(tmp_path / "int8.onnx")) == {"classes": "ten"}
    verify_onnx(tmp_path / "int8.onnx")
    unpack_onnx(tmp_path / "int8.onnx", tmp_path / "back.onnx")
    packed, unpacked = load_model(tmp_path / "int8.onnx"), load_model(tmp_path / "back.onnx")
    wanted = optimised_graph(unpacked, "all")
    assert optimised_graph(packed, "all") == wanted
    assert str(wanted).count("QLinearConv") == 2
    assert run_model(packed, images)[0].tobytes() == run_model(unpacked, images)[0].tobytes()
    int8 = [array for array in dense_initializers(packed).values() if array.dtype == np.int8 and array.ndim == 4]
    assert len(int8) == 2
    pair_sums.check_portable(packed, images[:8])


def test_batch_norms_that_do_not_fold_stay_float(
    tmp_path: Path, make_resnet32: Callable, capfd: pytest.CaptureFixture[str]
) -> None:
    """Pre-activation: BatchNorm after an addition. There is no int8 kernel for it, so its vectors are not rounded."""
    model = make_resnet32(0.9)
    save_model(model, tmp_path / "m.onnx")
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    report = quantise_int8(tmp_path / "m.onnx", tmp_path / "q.onnx", images)
    assert report.quantised_weights == 35  # 33 pruned convolutions, stem and head
    quantised = load_model(tmp_path / "q.onnx")
    before, after = dense_initializers(model), dense_initializers(quantised)
    unfolded = [node for node in quantised.graph.node if node.op_type == "BatchNormalization"]
    assert unfolded
    for node in unfolded:
        for name in node.input[1:]:
            assert after[name].tobytes() == before[name].tobytes()
    assert capfd.readouterr() == ("", "")
    pair_sums.check_portable(quantised, images[:1])


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_ways_to_find_ranges(tmp_path: Path, images: np.ndarray, method: str, make_small_net: Callable) -> None:
    save_model(make_small_net(0.5), tmp_path / "m.onnx")
    report = quantise_int8(tmp_path / "m.onnx", tmp_path / "q.onnx", images[:37], method=method)
    assert 0 < report.output_error < 0.3
    pair_sums.check_portable(load_model(tmp_path / "q.onnx"), images[:8])


def test_a_dense_network_is_quantised_too(tmp_path: Path, images: np.ndarray, make_small_net: Callable) -> None:
    save_model(make_small_net(0.0), tmp_path / "m.onnx")
    report = quantise_int8(tmp_path / "m.onnx", tmp_path / "m.onnx", images)
    assert report.file_bytes < report.source_bytes
    assert report.zeros_before == 0
    pair_sums.check_portable(load_model(tmp_path / "m.onnx"), images[:8])


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((4, 3, 8, 9), np.float32), "do not fit the input"),
        (np.zeros((4, 3, 8), np.float32), "do not fit the input"),
        (np.zeros((0, 3, 8, 8), np.float32), "do not fit the input"),
        (np.full((4, 3, 8, 8), np.inf, np.float32), "NaN or infinity"),
    ],
)
def test_wrong_calibration_samples(tmp_path: Path, samples: np.ndarray, message: str, make_small_net: Callable) -> None:
    save_model(make_small_net(), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=message):
        quantise_int8(tmp_path / "m.onnx", tmp_path / "q.onnx", samples)
    assert not (tmp_path / "q.onnx").exists()


def test_nothing_to_quantise(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Softmax", ["input"], ["output"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save_model(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="quantise"):
        quantise_int8(tmp_path / "m.onnx", tmp_path / "q.onnx", np.ones((4, 4), np.float32))
