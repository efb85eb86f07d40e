"""Short names for the values between nodes: an exporter makes them up, and nobody looks for them in a file that is small."""

from collections import Counter
from collections.abc import Iterator, Mapping

import onnx

from tdcompress.onnxfile.graphs import graphs
from tdcompress.onnxfile.passes import graph_pass


@graph_pass()
def with_short_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy where what a node of the main graph makes is called after its operator: "c0", "c1" of Conv, "r0" of Relu.

    Inputs, outputs and weights keep their names, and so does all inside subgraphs and functions. Every name takes its bytes where
    it is made and where it is read: on ResNet-32 the exporter's took 2 KB.

    Requires: a well-formed graph.
    Ensures: the same network.
    """
    short = onnx.ModelProto()
    short.CopyFrom(model)
    names = _new_names(short)
    for _, graph in graphs(short):
        for node in graph.node:
            for values in (node.input, node.output):
                for place, name in enumerate(values):
                    values[place] = names.get(name, name)
        for value in graph.value_info:
            value.name = names.get(value.name, value.name)
        for annotated in graph.quantization_annotation:
            annotated.tensor_name = names.get(annotated.tensor_name, annotated.tensor_name)
    return short


def _new_names(model: onnx.ModelProto) -> Mapping[str, str]:
    made = [(node.op_type, name) for node in model.graph.node for name in node.output if name]
    ends = {value.name for value in model.graph.output}
    inner = {name for _, graph in list(graphs(model))[1:] for name in _defined(graph)}
    fixed = ends | inner | {value.name for value in model.graph.input} | set(_stored(model.graph))
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    for operator, name in made:
        if name in fixed:
            continue
        while (new := _next(counts, operator[0].lower())) in fixed:
            pass
        names[name] = new
    return names


def _next(counts: Counter[str], letter: str) -> str:
    counts[letter] += 1
    return f"{letter}{counts[letter] - 1}"


def _stored(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)


def _defined(graph: onnx.GraphProto) -> Iterator[str]:
    yield from _stored(graph)
    yield from (value.name for value in graph.input)
    yield from (name for node in graph.node for name in node.output)
