"""Verification passes what is right and raises for everything else."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pair_sums
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.errors import ModelError, UnsupportedError, VerificationError
from tdcompress.onnxfile import verify
from tdcompress.onnxfile.load import load_model, save_model
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.quantise import quantise_int8
from tdcompress.onnxfile.runtime import open_session, run_session
from tdcompress.onnxfile.verify import QUANTISED_TOLERANCE, compare_arrays, verify_onnx


@pytest.fixture
def case(tmp_path: Path, make_small_net: Callable, run_model: Callable) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """(model, samples, inputs, outputs) of a packed model with the dense model's outputs."""
    dense = make_small_net(0.9)
    inputs = np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)
    outputs = run_model(dense, inputs)[0]
    save_model(pack_model(dense)[0], tmp_path / "m.onnx")
    np.savez(tmp_path / "samples.npz", input=inputs, output=outputs)
    return tmp_path / "m.onnx", tmp_path / "samples.npz", inputs, outputs


def test_a_good_file_passes(case: tuple) -> None:
    model, samples, _, outputs = case
    report = verify_onnx(model, samples)
    assert (report.samples, report.max_error, report.ties) == (6, 0.0, 0)
    assert report.max_output == np.abs(outputs).max()
    assert report.tolerance == 1e-5 * report.max_output
    assert report.file_bytes == model.stat().st_size
    assert verify_onnx(model).samples == 0
    assert type(report).from_json(report.to_json()) == report


def test_differences_are_measured_against_the_largest_output(case: tuple) -> None:
    model, samples, inputs, outputs = case
    scale = np.abs(outputs).max()
    for factor, passes in [(0.5, True), (2.0, False)]:
        wrong = outputs.copy()
        place = np.unravel_index(np.argmin(np.abs(wrong)), wrong.shape)
        wrong[place] += factor * 1e-5 * scale
        np.savez(samples, input=inputs, output=wrong)
        if passes:
            assert 0 < verify_onnx(model, samples).max_error <= 1e-5 * scale
        else:
            with pytest.raises(VerificationError, match="outputs differ by"):
                verify_onnx(model, samples)


def test_compare_by_hand() -> None:
    expected = np.array([[1.0, 0.0], [100.0, 100.0005]])
    assert compare_arrays(expected, expected, "m") == (0.0, 100.0005, 1)  # 0.0005 apart is a tie at 0.001
    swapped = np.array([[1.0, 0.0], [100.0005, 100.0]])
    assert compare_arrays(swapped, expected, "m")[2] == 1
    with pytest.raises(VerificationError, match="NaN"):
        compare_arrays(np.array([[np.nan, 0.0], [1, 1]]), expected, "m")
    with pytest.raises(VerificationError, match="shape"):
        compare_arrays(expected[:1], expected, "m")
    near = np.array([[0.0011, 0.0], [100.0, 0.0]])  # farther apart than 1e-3, below 2e-3: a tie
    assert compare_arrays(near, near, "m")[2] == 1
    classes = np.array([999, 7])
    assert compare_arrays(classes, classes, "m") == (0.0, 999.0, 0)
    with pytest.raises(VerificationError, match=r"m: outputs differ by 5, more than 0 \(whole numbers have to be the same\)"):
        compare_arrays(classes + np.array([0, 5]), classes, "m", QUANTISED_TOLERANCE)
    pixels = np.array([255, 7], np.uint8)
    assert compare_arrays(pixels - np.uint8(5), pixels, "m", QUANTISED_TOLERANCE) == (5.0, 255.0, 0)


def test_a_network_that_gives_nan_fails(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Log", ["input"], ["output"])], "g", values[:1], values[1:])
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    samples = np.array([[-1.0, 1.0]], np.float32)
    np.savez(tmp_path / "s.npz", input=samples, output=samples)
    with pytest.raises(VerificationError, match="NaN"):
        verify_onnx(tmp_path / "m.onnx", tmp_path / "s.npz")


def test_a_model_that_does_not_load_or_run_fails(tmp_path: Path, case: tuple) -> None:
    _, samples, _, _ = case
    weights = numpy_helper.from_array(np.ones((7, 2), np.float32), "w")
    value = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["a", "b", "c", "d"])
    out = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["a", "b", "c", "d"])
    graph = helper.make_graph([helper.make_node("MatMul", ["input", "w"], ["output"])], "g", [value], [out], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save_model(model, tmp_path / "run.onnx")
    with pytest.raises(VerificationError, match="does not run"):
        verify_onnx(tmp_path / "run.onnx", samples)
    model.graph.node[0].input[0] = "w"  # (7, 2) by (7, 2)
    save_model(model, tmp_path / "load.onnx")
    with pytest.raises(VerificationError, match="does not load"):
        verify_onnx(tmp_path / "load.onnx")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"input": np.zeros((2, 3, 8, 8), np.float32)}, "lacks the arrays"),
        ({"input": np.zeros((2, 3, 8, 8), np.float32), "output": np.zeros((3, 10), np.float32)}, "2 inputs and 3 outputs"),
        ({"input": np.zeros((0, 3, 8, 8), np.float32), "output": np.zeros((0, 10), np.float32)}, "0 inputs"),
        ({"input": np.full((2, 3, 8, 8), np.nan, np.float32), "output": np.zeros((2, 10))}, "finite"),
        ({"input": np.array(["a", "b"]), "output": np.zeros((2, 10))}, "finite numbers"),
    ],
)
def test_malformed_samples(case: tuple, arrays: dict, message: str) -> None:
    model, samples, _, _ = case
    np.savez(samples, **arrays)
    with pytest.raises(ModelError, match=message):
        verify_onnx(model, samples)


def test_samples_that_are_no_samples(case: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples, _, outputs = case
    with pytest.raises(ModelError, match="no such file"):
        verify_onnx(model, tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ModelError, match="not a readable file of samples"):
        verify_onnx(model, tmp_path / "text.npz")
    np.savez(tmp_path / "objects.npz", input=np.array([{}], object), output=outputs)
    with pytest.raises(ModelError, match="not a readable file of samples"):
        verify_onnx(model, tmp_path / "objects.npz")
    monkeypatch.setattr(verify, "MAX_SAMPLES_BYTES", 100)
    with pytest.raises(ModelError, match="decompression bomb"):
        verify_onnx(model, samples)


def test_a_fixed_batch_is_fed_in_its_size(tmp_path: Path, case: tuple, make_small_net: Callable) -> None:
    _, samples, inputs, outputs = case
    model = make_small_net(0.9)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    save_model(model, tmp_path / "fixed.onnx")
    assert verify_onnx(tmp_path / "fixed.onnx", samples).samples == 6
    np.savez(samples, input=inputs[:5], output=outputs[:5])
    with pytest.raises(ModelError, match="do not divide"):
        verify_onnx(tmp_path / "fixed.onnx", samples)


def test_several_inputs_have_no_samples_format(tmp_path: Path, case: tuple) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("a", "b", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", values[:2], values[2:])
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="this one has 2"):
        verify_onnx(tmp_path / "m.onnx", case[1])


@pytest.mark.parametrize("pack", [True, False])
def test_quantised_files_are_allowed_a_few_steps(tmp_path: Path, case: tuple, make_small_net: Callable, pack: bool) -> None:
    """Another implementation of the same arithmetic: the file computed in float, nothing fused, as other kernels would."""
    _, samples, inputs, _ = case
    path = tmp_path / "int8.onnx"
    save_model(make_small_net(0.9), path)
    quantise_int8(path, path, inputs, pack=pack)
    pair_sums.check_portable(load_model(path), inputs)
    elsewhere = run_session(open_session(path, ort.GraphOptimizationLevel.ORT_DISABLE_ALL), {"input": inputs})[0]
    np.savez(samples, input=inputs, output=elsewhere)
    report = verify_onnx(path, samples)
    assert report.max_error <= report.tolerance == QUANTISED_TOLERANCE * report.max_output
    step = 2 * np.abs(elsewhere).max() / 256
    for steps, passes in [(2.0, True), (8.0, False)]:
        wrong = elsewhere.copy()
        wrong[2, wrong[2].argmin()] += steps * step
        np.savez(samples, input=inputs, output=wrong)
        if passes:
            verify_onnx(path, samples)
        else:
            with pytest.raises(VerificationError, match="outputs differ by"):
                verify_onnx(path, samples)


def test_weights_beside_what_a_link_leads_to_are_read_there(tmp_path: Path, make_small_net: Callable) -> None:
    (tmp_path / "store").mkdir()
    onnx.save_model(
        make_small_net(0.9), tmp_path / "store" / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    (tmp_path / "link.onnx").symlink_to(tmp_path / "store" / "m.onnx")
    assert verify_onnx(tmp_path / "link.onnx", external_data=True) == verify_onnx(
        tmp_path / "store" / "m.onnx", external_data=True
    )


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes there")
def test_a_name_that_is_not_utf_8_is_said(tmp_path: Path, make_small_net: Callable) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.onnx")
    save_model(make_small_net(0.9), path)
    with pytest.raises(VerificationError, match="is not UTF-8, which onnxruntime asks for: rename it"):
        verify_onnx(path)
