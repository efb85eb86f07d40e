"""Other names for the values of a model's main graph, wherever they are read."""

from collections.abc import Iterator, Mapping

import onnx

from tdcompress.onnxfile.graphs import graphs


def renamed(model: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """A copy where values of the main graph have other names, subgraphs that read them included.

    Args:
        model: a model.
        names: name -> another one; none of them of `fixed_names`, old or new.
    """
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for _, graph in graphs(other):
        for tensor in graph.initializer:
            tensor.name = names.get(tensor.name, tensor.name)
        for sparse in graph.sparse_initializer:
            sparse.values.name = names.get(sparse.values.name, sparse.values.name)
        for node in graph.node:
            for values in (node.input, node.output):
                for place, name in enumerate(values):
                    values[place] = names.get(name, name)
        for value in graph.value_info:
            value.name = names.get(value.name, value.name)
        for annotated in graph.quantization_annotation:
            annotated.tensor_name = names.get(annotated.tensor_name, annotated.tensor_name)
            for entry in annotated.quant_parameter_tensor_names:
                entry.value = names.get(entry.value, entry.value)
    return other


def fixed_names(model: onnx.ModelProto) -> set[str]:
    """Names that have to stay: inputs, outputs, and all that subgraphs define."""
    ends = (value.name for value in (*model.graph.input, *model.graph.output))
    inner = (name for _, graph in list(graphs(model))[1:] for name in defined_names(graph))
    return {*ends, *inner}


def defined_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of all values of a graph, without those of its subgraphs."""
    yield from stored_names(graph)
    yield from (value.name for value in graph.input)
    yield from (name for node in graph.node for name in node.output if name)


def stored_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the constants of a graph."""
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
