"""Facts about ONNX files that need no run: hash, sizes, denormal weights, what they take as input."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from tdcompress.errors import UnsupportedError
from tdcompress.onnxfile.graphs import all_tensors
from tdcompress.onnxfile.load import in_file, load_model
from tdcompress.onnxfile.metadata import get_metadata
from tdcompress.onnxfile.saturation import full_range_weights
from tdcompress.onnxfile.tensors import to_array

GZIP_LEVEL = 9
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: as in the file.
        element_type: an `onnx.TensorProto.DataType`.
        shape: sizes, None where the file leaves one open; None when the file states no shape at all.
    """

    name: str
    element_type: int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """An ONNX file as it lies on disk, or several that are of use only together.

    Attributes:
        path: the file, or the first one.
        sha256: of its bytes and, where weights are kept in files beside it, of theirs, in hex; of several files, of their own.
        bytes: everything needed to run it, those files too.
        gzip_bytes: the same compressed with gzip at level 9, each for itself.
        denormals: float32 and float64 weights that are not zero but below the smallest normal number.
        full_range: int8 weights whose sums can saturate on x86 without VNNI.
        inputs: in the file's order, initializers left out; of several files the first one's.
        task: that the network was trained for, where the file says it.
        parts: of several files, the sha256 of each by name; else empty.
    """

    path: Path
    sha256: str
    bytes: int
    gzip_bytes: int
    denormals: int
    full_range: int
    inputs: tuple[InputSpec, ...]
    task: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)


def read_model_file(path: Path, *, external_data: bool = False) -> ModelFile:
    """Read the facts of a file.

    Args:
        path: the file.
        external_data: accept weights in files beside it.

    Raises:
        ModelError: it is not an ONNX model, or it keeps weights in other files, without permission or outside its folder.
        UnsupportedError: it uses an operator or operator set that is not known, or takes something else than tensors.
    """
    model = load_model(path, external_data=external_data)
    data = b"".join(part.read_bytes() for part in (path, *_files_beside(path)))
    weights = {tensor.name for tensor in model.graph.initializer}
    with in_file(path):
        return ModelFile(
            path=path,
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            gzip_bytes=len(gzip.compress(data, GZIP_LEVEL, mtime=0)),
            denormals=sum(count_denormals(tensor) for tensor in all_tensors(model)),
            full_range=len(full_range_weights(model)),
            inputs=tuple(_input_spec(value) for value in model.graph.input if value.name not in weights),
            task=_task(model),
        )


def task_of(model: onnx.ModelProto, path: Path) -> str | None:
    """The task that a network was trained for, where its file says it.

    Raises:
        ModelError: a key of the metadata occurs twice.
    """
    with in_file(path):
        return _task(model)


def _task(model: onnx.ModelProto) -> str | None:
    return get_metadata(model).get("task")


def together(first: ModelFile, second: ModelFile, *, beside: Path) -> ModelFile:
    """The facts of two ONNX files and of another one that are of use only together.

    Args:
        first: which takes what users give.
        second: which goes on from it.
        beside: no ONNX file.
    """
    data = beside.read_bytes()
    parts = {first.path.name: first.sha256, second.path.name: second.sha256, beside.name: hashlib.sha256(data).hexdigest()}
    return replace(
        first,
        sha256=hashlib.sha256("".join(parts.values()).encode()).hexdigest(),
        bytes=first.bytes + second.bytes + len(data),
        gzip_bytes=first.gzip_bytes + second.gzip_bytes + len(gzip.compress(data, GZIP_LEVEL, mtime=0)),
        denormals=first.denormals + second.denormals,
        full_range=first.full_range + second.full_range,
        parts=parts,
    )


def _files_beside(path: Path) -> list[Path]:
    """The files that hold weights of a model which was loaded, and so checked, before."""
    tensors = all_tensors(onnx.load(path, load_external_data=False))
    outside = (tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL)
    names = {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"}
    return [path.resolve().parent / name for name in sorted(names)]


def count_denormals(tensor: onnx.TensorProto) -> int:
    """Elements that are denormal: each may cost the processor a hundred cycles, each time it is multiplied."""
    if tensor.data_type not in FLOATS:
        return 0
    magnitudes = np.abs(to_array(tensor))
    return int(np.count_nonzero((magnitudes > 0) & (magnitudes < np.finfo(magnitudes.dtype).smallest_normal)))


def _input_spec(value: onnx.ValueInfoProto) -> InputSpec:
    if not value.type.HasField("tensor_type"):  # a sequence, a map, what may be absent
        raise UnsupportedError(
            f"its input {value.name!r} is no tensor, and is not timed; export the network with tensors for inputs"
        )
    tensor = value.type.tensor_type
    shape: tuple[int | None, ...] | None = None
    if tensor.HasField("shape"):
        shape = tuple(_size(axis) for axis in tensor.shape.dim)
    return InputSpec(name=value.name, element_type=tensor.elem_type, shape=shape)


def _size(axis: onnx.TensorShapeProto.Dimension) -> int | None:
    """None where the axis is open; some exporters write -1 there, which runtimes take so."""
    return axis.dim_value if axis.HasField("dim_value") and axis.dim_value >= 0 else None
