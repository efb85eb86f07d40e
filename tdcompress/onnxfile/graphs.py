"""Walk a model: its graphs (subgraphs of If, Loop, Scan included), nodes and tensors."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import onnx


def graphs(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The main graph as ("", graph), then every subgraph as ("node.attribute/", graph), outer before inner."""
    yield from _with_inner("", model.graph)


def every_node(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes: of the main graph, of subgraphs, and of the model's own functions."""
    yield from nodes_below(model.graph.node)
    for function in model.functions:
        yield from nodes_below(function.node)


def nodes_below(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """These nodes, and those of their subgraphs."""
    for node in nodes:
        yield node
        for _, inner in _graphs_of(node):
            yield from nodes_below(inner.node)


def node_lists(model: onnx.ModelProto) -> Iterator[tuple[str, Sequence[onnx.NodeProto]]]:
    """Nodes by where their names hold: of every graph as in `graphs`, then of every function as ("function()/", nodes)."""
    for path, graph in graphs(model):
        yield path, graph.node
    for function in model.functions:
        yield f"{function.name}()/", list(nodes_below(function.node))


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors with data: initializers, both parts of sparse ones, and attributes of nodes."""
    for _, graph in graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in every_node(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            yield from attribute.tensors


def _with_inner(path: str, graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    yield path, graph
    unnamed: Counter[str] = Counter()
    for node in graph.node:
        label = node.name or f"{node.op_type}_{unnamed[node.op_type]}"
        unnamed[node.op_type] += not node.name
        for attribute, inner in _graphs_of(node):
            yield from _with_inner(f"{path}{label}.{attribute}/", inner)


def _graphs_of(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.name, attribute.g
        for index, graph in enumerate(attribute.graphs):
            yield f"{attribute.name}[{index}]", graph
