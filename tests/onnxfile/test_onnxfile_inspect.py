"""What inspect says adds up, and is what is in the file."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tdcompress.onnxfile.inspect import inspect_model, inspect_onnx
from tdcompress.onnxfile.load import save_model
from tdcompress.onnxfile.metadata import set_metadata
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.reports import FileReport
from tdcompress.onnxfile.weights import dense_initializers


def test_a_dense_file(tmp_path: Path, make_small_net: Callable[..., onnx.ModelProto]) -> None:
    model = make_small_net(0.75)
    set_metadata(model, {"author": "x"})
    path = tmp_path / "m.onnx"
    save_model(model, path)
    report = inspect_onnx(path)
    assert report.file_bytes == path.stat().st_size
    assert report.gzip_bytes == len(gzip.compress(path.read_bytes(), 6, mtime=0))
    assert (report.opset, report.ir_version, report.metadata) == (20, 9, {"author": "x"})
    assert [(v.name, v.dtype, v.shape) for v in report.inputs] == [("input", "float", ("batch", 3, 8, 8))]
    assert [(v.name, v.shape) for v in report.outputs] == [("output", ("batch", 10))]
    assert report.operators == {
        "BatchNormalization": 2,
        "Conv": 2,
        "Flatten": 1,
        "Gemm": 1,
        "GlobalAveragePool": 1,
        "Relu": 2,
    }
    # 16 filters of 27 lose 20 each, 32 of 144 lose 108, 10 of 32 lose 24
    assert report.zeros == 16 * 20 + 32 * 108 + 10 * 24
    assert report.parameters == 16 * 27 + 32 * 144 + 10 * 32 + 4 * 48 + 10
    assert report.sparsity == report.zeros / report.parameters
    assert report.decoder_bytes == 0
    first = report.tensors[0]
    assert (first.name, first.shape, first.zeros, first.encoding) == ("conv1.weight", (16, 3, 3, 3), 320, "dense")
    p = 112 / 432
    entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    assert first.bound_bytes == pytest.approx(112 * 4 + 432 * entropy / 8)
    assert first.file_bytes == 432 * 4 + len("conv1.weight") + 18  # tags, lengths, shape and type
    assert FileReport.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize("values", ["float32", "float16"])
@pytest.mark.parametrize("prefer", ["speed", "size"])
def test_a_packed_file_adds_up(make_resnet32: Callable[..., onnx.ModelProto], values: str, prefer: str) -> None:
    dense = make_resnet32(0.75)
    packed, packing = pack_model(dense, values=values, prefer=prefer)
    report = inspect_model(packed)
    total = sum(tensor.file_bytes for tensor in report.tensors) + report.decoder_bytes + report.graph_bytes
    assert total == report.file_bytes == packing.file_bytes == packed.ByteSize()
    assert report.decoder_bytes > 0
    assert 0 < report.graph_bytes < 25_000
    assert report.operators == inspect_model(dense).operators
    assert (report.parameters, report.zeros) == (inspect_model(dense).parameters, np.sum(zeros(packed)))
    assert report.ratio_to_bound == report.file_bytes / report.bound_bytes
    assert all(tensor.file_bytes >= tensor.bound_bytes for tensor in report.tensors)
    stored = {tensor.stored for tensor in report.tensors if len(tensor.shape) > 1}
    assert stored == {values}


def zeros(model: onnx.ModelProto) -> list[int]:
    return [int(np.count_nonzero(array == 0)) for array in dense_initializers(model).values()]
