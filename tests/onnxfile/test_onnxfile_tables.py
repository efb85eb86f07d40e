"""The tables that ``inspect`` prints: every weight with its shape, zeros, encoding, bytes and bound; and the whole."""

from collections.abc import Callable
from pathlib import Path

import onnx

from tdcompress.inspection import file_tables
from tdcompress.onnxfile.inspect import inspect_model
from tdcompress.onnxfile.pack import pack_model


def test_every_weight_and_the_whole(make_small_net: Callable[..., onnx.ModelProto]) -> None:
    report = inspect_model(pack_model(make_small_net(0.9))[0])
    tensors, whole = file_tables(Path("m.onnx"), report)
    assert [column.title for column in tensors.columns] == ["tensor", "shape", "zeros", "encoding", "bytes", "bound"]
    assert len(tensors.rows) == len(report.tensors)
    (row,) = (row for row in tensors.rows if row[0] == "conv2.weight")
    (tensor,) = (tensor for tensor in report.tensors if tensor.name == "conv2.weight")
    # 32 filters of 144 lose 129 each: 89.6 %
    assert row[1:] == ("32x16x3x3", "89.6", "gap8, float32", f"{tensor.file_bytes:,}", f"{tensor.bound_bytes:,.0f}")
    facts = dict(whole.rows)
    assert facts["file"] == f"{report.file_bytes:,} bytes, {report.gzip_bytes:,} gzipped"
    assert facts["bound of the weights"].startswith(f"{report.bound_bytes:,.0f} bytes")
    assert facts["operators"].startswith("BatchNormalization 2, Conv 2, ")
