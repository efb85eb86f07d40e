"""The names of a network's parameters for weights that an exporter wrote in another form: transposed, or with gates reordered."""

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
import onnx

from tdcompress.onnxfile.graphs import graphs
from tdcompress.onnxfile.passes import graph_pass
from tdcompress.onnxfile.tensors import Array, to_array


@graph_pass()
def with_parameter_names(model: onnx.ModelProto, parameters: Mapping[str, Array]) -> onnx.ModelProto:
    """A copy where a weight matrix that is a parameter in another form has that one's name.

    torch's exporter computes the transposed weights of linear layers on more than two axes once, and the reordered gates of
    recurrent layers, and names what comes out "val_48". Where a parameter is there under its own name too, as an embedding that
    is also the output layer, its other form has ".T" behind the name. Of parameters with equal values the first free one gives
    its name.

    Requires: a well-formed graph.
    Ensures: the same network.

    Args:
        model: as the exporter made it; weights of the main graph are looked at.
        parameters: of the network, by name, as they are in it; those with two axes, (outputs, inputs), are looked for.
    """
    named = onnx.ModelProto()
    named.CopyFrom(model)
    taken = {name for _, graph in graphs(named) for name in _names(graph)}
    owners: dict[str, list[str]] = {}
    for name, array in parameters.items():
        for form in _forms(array) if array.ndim == 2 else ():
            owners.setdefault(form, []).append(name)
    new: dict[str, str] = {}
    for tensor in named.graph.initializer:
        if tensor.name in parameters or len(tensor.dims) < 2 or tensor.data_type not in _FLOATS:
            continue
        matrix = np.squeeze(to_array(tensor))
        known = owners.get(_digest(matrix)) or owners.get(_rows(matrix), []) if matrix.ndim == 2 else []
        free = (name for name in (*known, *(f"{name}.T" for name in known)) if name not in taken)
        if chosen := next(free, None):
            taken.add(chosen)
            new[tensor.name] = chosen
            tensor.name = chosen
    for _, graph in graphs(named):
        for node in graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = new.get(name, name)
        for value in (*graph.value_info, *graph.output):
            value.name = new.get(value.name, value.name)
    return named


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (tensor.name for tensor in graph.initializer)
    yield from (name for node in graph.node for name in node.output)


def _forms(array: Array) -> set[str]:
    """What tells that a matrix is this one: transposed, or with its rows in another order."""
    return {_digest(array.T), _rows(array)}


def _digest(array: Array) -> str:
    content = np.ascontiguousarray(array)
    return f"{content.dtype} {content.shape} {hashlib.sha256(content.tobytes()).hexdigest()}"


def _rows(array: Array) -> str:
    rows = hashlib.sha256(b"".join(sorted(row.tobytes() for row in array)))
    return f"rows {array.dtype} {array.shape} {rows.hexdigest()}"
