"""What onnxruntime makes of a model when it loads it, whatever its values are called and however its nodes are ordered."""

import hashlib
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from tdcompress.errors import UnsupportedError, VerificationError
from tdcompress.onnxfile.encodings.base import Room
from tdcompress.onnxfile.encodings.coo import decode_coo
from tdcompress.onnxfile.load import serialised
from tdcompress.onnxfile.runtime import open_session
from tdcompress.onnxfile.tensors import Array, from_array, to_array

_CONSTANT, _COPY = "tdcompress.constant", "tdcompress.copy"


@dataclass(frozen=True, kw_only=True)
class Optimised:
    """An optimised graph.

    Attributes:
        operators: operator -> how many nodes, those of subgraphs included.
        nodes: digest of a node with everything that it reads, directly or not -> how often it is there; outputs too.
    """

    operators: Counter[str]
    nodes: Counter[str]

    def differences(self, other: "Optimised") -> str:
        """Which operators the other has more or fewer of, such as "SkipLayerNormalization 6 -> 0"; empty for the same graph."""
        if self.nodes == other.nodes:
            return ""
        names = sorted(name for name in self.operators | other.operators if self.operators[name] != other.operators[name])
        return ", ".join(f"{name} {self.operators[name]} -> {other.operators[name]}" for name in names) or "other inputs of nodes"


def optimised(model: onnx.ModelProto, *, contents: bool = True) -> Optimised | None:
    """The graph that onnxruntime runs on the CPU with all its optimisations.

    Args:
        model: any model; it is only loaded, never run.
        contents: tell weights apart by their values; False: by type and shape.

    Returns:
        The graph, or None where onnxruntime does not load the model or cannot write what it made of it.
    """
    with tempfile.TemporaryDirectory(prefix="tdcompress-") as folder:
        given, made = (Path(folder) / f"{name}.onnx" for name in ("given", "optimised"))
        try:
            with given.open("wb") as file:  # from a file, onnxruntime loads it in less memory than from bytes
                file.write(serialised(model))
                file.write(_something_to_fold())  # protobuf reads two messages in a row as one: these nodes come last
            open_session(given, ort.GraphOptimizationLevel.ORT_ENABLE_ALL, save_to=made)
            graph = onnx.load(made).graph
        except (UnsupportedError, VerificationError, OSError):
            return None
    operators: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    _digest(graph, {}, contents, operators, nodes)
    return Optimised(operators=operators, nodes=nodes)


def _something_to_fold() -> bytes:
    """Two nodes that onnxruntime removes from any graph, so that it writes every graph in its own way.

    A graph that it has nothing to change in is written as it was given. Into one that it changed it writes every attribute's
    default, so that a network of one Gemm would not be told from itself behind a decoder.
    """
    constant = helper.make_node("Constant", [], [_CONSTANT], value=from_array(np.zeros(1, np.float32), ""))
    graph = onnx.GraphProto(node=[constant, helper.make_node("Identity", [_CONSTANT], [_COPY])])
    data: bytes = onnx.ModelProto(graph=graph).SerializeToString()
    return data


def _digest(
    graph: onnx.GraphProto, outer: Mapping[str, str], contents: bool, operators: Counter[str], nodes: Counter[str]
) -> str:
    """Add a graph's nodes, and give the digest of what it computes; `outer`: value -> digest around a subgraph."""
    known = {"": "absent", **outer, **{value.name: f"input {value.name}" for value in graph.input}}
    known |= {tensor.name: _weight(to_array(tensor), contents) for tensor in graph.initializer}
    for sparse in graph.sparse_initializer:
        known[sparse.values.name] = _weight(_dense(sparse), contents)
    for node in graph.node:
        operators[node.op_type] += 1
        inner = [
            f"{attribute.name} {_digest(part, known, contents, operators, nodes)}"
            for attribute in node.attribute
            for part in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
        ]
        plain = [a.SerializeToString(deterministic=True).hex() for a in node.attribute if not a.HasField("g") and not a.graphs]
        digest = _hash(node.domain, node.op_type, *(known.get(name, name) for name in node.input), *sorted(plain), *sorted(inner))
        nodes[digest] += 1
        known |= {name: f"{digest} {place}" for place, name in enumerate(node.output)}
    whole = _hash(*(known.get(value.name, value.name) for value in graph.output))
    nodes[whole] += 1
    return whole


def _dense(sparse: onnx.SparseTensorProto) -> Array:
    """A sparse initializer as onnxruntime writes it: with indices of any integer type, where ONNX has int64 alone."""
    wide = onnx.SparseTensorProto()
    wide.CopyFrom(sparse)
    wide.indices.CopyFrom(from_array(to_array(sparse.indices).astype(np.int64), ""))
    return decode_coo(wide, Room(left_bytes=sys.maxsize))


def _weight(array: Array, contents: bool) -> str:
    if not contents:
        return f"{array.dtype} {array.shape} "
    data = repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()  # the bytes of texts are addresses
    return f"{array.dtype} {array.shape} {hashlib.sha256(data).hexdigest()}"


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def optimised_differently(exact: onnx.ModelProto, other: onnx.ModelProto, *, contents: bool = True) -> str | None:
    """How onnxruntime's optimised graph of another model differs; "" = not at all, None = the first cannot be optimised.

    Args:
        exact: what the other has to be like.
        other: a model that computes the same.
        contents: see `optimised`.
    """
    wanted = optimised(exact, contents=contents)
    if wanted is None:
        return None
    given = optimised(other, contents=contents)
    return "it does not load the file" if given is None else wanted.differences(given)
