"""Read an ONNX file that nobody vouched for; write one that is complete or not there at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError, Message

from tdcompress import files
from tdcompress.errors import ModelError, UnsupportedError, VerificationError, one_line
from tdcompress.files import StrPath
from tdcompress.onnxfile.graphs import all_tensors, every_node

MAX_FILE_BYTES = 2**31 - 1  # protobuf's own limit for one message
STANDARD = ("", "ai.onnx")
KNOWN_DOMAINS = frozenset({*STANDARD, "ai.onnx.ml", "com.microsoft"})  # what onnxruntime's CPU build registers
_NOT_A_MODEL = {
    b"TDCPLAN\n": "it is a plan, which `tdcompress compile` made for the engine's C library (docs/c.md); give the ONNX file that "
    "it was made of",
    b"version https://git-lfs": "it is a git-LFS pointer; run `git lfs pull`",
    b"<": "it looks like a web page; download the file itself",
    b"PK": "it is a zip archive (unpack it first) or a torch checkpoint (export the network to ONNX instead)",
    b"\x80": "it is a pickle, perhaps an old torch checkpoint; export the network to ONNX instead",
    b"\x89HDF": "it is an HDF5 file; export the network to ONNX instead",
    b"\x1f\x8b": "it is gzipped; unpack it first",
}


def load_model(path: StrPath, *, external_data: bool = False) -> onnx.ModelProto:
    """Load an ONNX file after checking that it is one.

    Args:
        path: the file.
        external_data: also read weights from files beside it (only from the same folder or below).

    Returns:
        The model; all weights inside it.

    Raises:
        ModelError: no such file, too large, not a model, damaged, or weights outside the file without permission.
        UnsupportedError: an operator set, domain or operator that is not known; the message names it.
    """
    path = Path(path)
    model = _parse(path, _read(path))
    _check_operators(path, model)
    outside = [tensor for tensor in all_tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        if not external_data:
            raise ModelError(
                f"{path}: weight {outside[0].name!r} is kept in another file; allow external data to read it (--external-data, "
                "in Python external_data=True), or save the model as one file"
            )
        _read_external(path, outside)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"{path}: not a valid ONNX model: {one_line(error)}") from error
    return model


@contextmanager
def in_file(path: StrPath) -> Iterator[None]:
    """Put the file's name in front of what turns out to be wrong with a model that was loaded from it.

    Raises:
        ModelError, UnsupportedError, VerificationError: the one that was raised, with the file's name.
    """
    try:
        yield
    except (ModelError, UnsupportedError, VerificationError) as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from error


def infers_strictly(model: onnx.ModelProto) -> bool:
    """Whether onnx.checker accepts the model with `full_check`: every shape and type can be inferred and agrees with its use."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def save_model(model: onnx.ModelProto, path: StrPath) -> int:
    """Publish a model as one file: a temporary name in the same folder, fsync, rename. The same model gives the same bytes.

    Returns:
        Bytes written.

    Raises:
        UnsupportedError: the model does not fit into one file (2 GiB).
        ModelError: the file cannot be written.
    """
    data = serialised(model)
    try:
        files.write_bytes(Path(path), data)
    except OSError as error:
        raise ModelError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}") from error
    return len(data)


def serialised(model: onnx.ModelProto) -> bytes:
    """The bytes that `save_model` writes.

    Raises:
        UnsupportedError: the model does not fit into one file (2 GiB).
    """
    try:
        data: bytes = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise UnsupportedError(f"the model does not fit into one ONNX file of {MAX_FILE_BYTES} bytes") from error
    if len(data) > MAX_FILE_BYTES:
        raise UnsupportedError(f"the model needs {len(data)} bytes; one ONNX file holds at most {MAX_FILE_BYTES}")
    return data


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operator set that the model imports; 0 when it imports none."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=0)


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise ModelError(f"{path}: is a folder, not an ONNX file")
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    size = path.stat().st_size
    if size == 0:
        raise ModelError(f"{path}: not a model: the file is empty")
    if size > MAX_FILE_BYTES:
        raise ModelError(f"{path}: {size} bytes is more than one ONNX file can hold ({MAX_FILE_BYTES})")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    head = data[:64].lstrip()
    for start, reason in _NOT_A_MODEL.items():
        if head.startswith(start):
            raise ModelError(f"{path}: not a model: {reason}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path}: not a model, or a truncated one ({len(data)} bytes)") from error
    if any(isinstance(text, bytes) for text in _texts(model)):  # protobuf hands damaged text out as bytes
        raise ModelError(f"{path}: not a model, or a damaged one: a name in it is not text")
    if not model.HasField("graph") or not model.opset_import or not model.graph.output:
        raise ModelError(f"{path}: not a model, or a truncated one: no graph, outputs or operator set in it")
    return model


def _texts(message: Message) -> Iterator[str | bytes]:
    """Every text of a message and below it, but for the data of tensors."""
    if isinstance(message, onnx.TensorProto):
        yield from (message.name, message.doc_string)
        for entry in (*message.external_data, *message.metadata_props):
            yield from (entry.key, entry.value)
        return
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from [value] if isinstance(value, str | bytes) else value
        elif field.type == field.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _texts(inner)


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    version, newest = opset(model), onnx.defs.onnx_opset_version()
    if version > newest:
        raise UnsupportedError(f"{path}: operator set {version} is newer than the installed onnx knows ({newest})")
    own = {(function.domain, function.name) for function in model.functions}
    for node in every_node(model):
        if (node.domain, node.op_type) in own:
            continue
        if node.domain not in KNOWN_DOMAINS:
            raise UnsupportedError(f"{path}: operator {node.op_type!r} is of the unknown domain {node.domain!r}")
        if node.domain in STANDARD and not onnx.defs.has(node.op_type):
            raise UnsupportedError(f"{path}: unknown operator {node.op_type!r} (node {node.name!r})")


def _read_external(path: Path, tensors: list[onnx.TensorProto]) -> None:
    folder = path.resolve().parent
    room = MAX_FILE_BYTES
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        source = (folder / location).resolve()
        # as onnx: a path that leaves the folder is refused even where it comes back to it
        leaves = Path(location).is_absolute() or Path(os.path.normpath(location)).parts[:1] == (os.pardir,)
        if not location or leaves or not source.is_relative_to(folder) or not source.is_file():
            linked = path.is_symlink() or (bool(location) and not leaves and (path.parent / location).is_symlink())
            to_do = (
                ": a link is read where it leads to, so copy both into one folder" if linked else ""
            )  # as in a cache of downloads
            raise ModelError(f"{path}: weight {tensor.name!r} points to {location!r}, not a file beside the model{to_do}")
        try:
            offset = int(entries.get("offset", "0"))
            length = int(entries.get("length", str(source.stat().st_size - offset)))
        except ValueError as error:
            raise ModelError(f"{path}: weight {tensor.name!r} has an offset or length that is not a number") from error
        if offset < 0 or length < 0 or offset + length > source.stat().st_size:
            raise ModelError(f"{path}: weight {tensor.name!r} lies outside {location!r}; is that file truncated?")
        room -= length
        if room < 0:
            raise UnsupportedError(f"{path}: with its external data the model is larger than {MAX_FILE_BYTES} bytes")
        with source.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
