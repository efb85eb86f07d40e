"""What every pass over an ONNX graph requires of the model it is given, and ensures of the one it gives back: both are checked.

The checks read names and types alone, no weights, so they cost next to nothing beside a pass.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import onnx

from tdcompress.errors import ModelError, UnsupportedError, VerificationError
from tdcompress.onnxfile.graphs import nodes_below

P = ParamSpec("P")
Given = TypeVar("Given", bound="onnx.ModelProto | tuple[Any, ...]")
Pass = Callable[Concatenate[onnx.ModelProto, P], Given]
Condition = Callable[[onnx.ModelProto], str]
"""What is not as it should be in a model, in words; "" where all is well."""


def graph_pass(
    *, requires: Sequence[Condition] = (), ensures: Sequence[Condition] = ()
) -> Callable[[Pass[P, Given]], Pass[P, Given]]:
    """Make a function from a model to a model (alone, or first of a tuple) check what it requires and ensures.

    Requires: a well-formed graph, see `malformed`, and the given conditions.
    Ensures: a well-formed graph of the same inputs and outputs (names and element types), and the given claims.

    Args:
        requires: what has to hold of the model given, beside that.
        ensures: what the pass claims of its result.

    The function made raises:
        ModelError: the model given is not well-formed.
        UnsupportedError: it is not as the pass requires.
        VerificationError: the model made is not what the pass ensures.
    """

    def checked(change: Pass[P, Given]) -> Pass[P, Given]:
        name = change.__name__

        @wraps(change)
        def run(model: onnx.ModelProto, /, *args: P.args, **kwargs: P.kwargs) -> Given:
            problem = malformed(model)
            if problem:
                raise ModelError(f"{name}: the graph given is malformed: {problem}; export the network again")
            problem = _first(requires, model)
            if problem:
                raise UnsupportedError(f"{name}: {problem}")
            signature = signature_of(model)
            given = change(model, *args, **kwargs)
            made = given[0] if isinstance(given, tuple) else given
            problem = malformed(made) or _changed(signature, signature_of(made)) or _first(ensures, made)
            if problem:
                raise VerificationError(f"{name}: the graph made is not as it has to be: {problem}; nothing was written")
            return given

        return run

    return checked


def _first(conditions: Sequence[Condition], model: onnx.ModelProto) -> str:
    return next((problem for condition in conditions if (problem := condition(model))), "")


def malformed(model: onnx.ModelProto) -> str:
    """What is wrong with the names of a model, "" where nothing is.

    Every value has one definition: an initializer, an input, or an output of one node. (An initializer may be listed as an input
    too.) It is defined before a node reads it or a graph returns it. Every domain has an operator set, a function its own ones.
    """
    for nodes, imports in ((model.graph.node, model.opset_import), *((each.node, each.opset_import) for each in model.functions)):
        imported = {entry.domain or "ai.onnx" for entry in imports}
        for node in nodes_below(nodes):
            if (node.domain or "ai.onnx") not in imported:
                return f"the domain {node.domain!r} of {node.op_type} {node.name!r} has no operator set"
    bodies = (_in_nodes(function.node, set(function.input), function.output) for function in model.functions)
    return _in_graph(model.graph, frozenset()) or next(filter(None, bodies), "")


def _in_graph(graph: onnx.GraphProto, outer: frozenset[str]) -> str:
    stored = [*(tensor.name for tensor in graph.initializer), *(sparse.values.name for sparse in graph.sparse_initializer)]
    inputs = [value.name for value in graph.input]
    twice = next(_repeated(stored), None) or next(_repeated(inputs), None)
    if twice:
        return f"{twice!r} is defined twice"
    return _in_nodes(graph.node, {*stored, *inputs}, [value.name for value in graph.output], outer)


def _in_nodes(nodes: Iterable[onnx.NodeProto], own: set[str], outputs: Iterable[str], outer: frozenset[str] = frozenset()) -> str:
    for node in nodes:
        label = f"{node.op_type} {node.name!r}"
        unknown = next((name for name in node.input if name and name not in own and name not in outer), None)
        if unknown is not None:
            return f"{label} reads {unknown!r}, which nothing before it defines"
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                problem = _in_graph(inner, outer | own)
                if problem:
                    return f"in {label}: {problem}"
        made = [name for name in node.output if name]
        twice = next((name for name in made if name in own), None) or next(_repeated(made), None)
        if twice:
            return f"{twice!r} is defined twice, once by {label}"
        own.update(made)
    unknown = next((name for name in outputs if name not in own and name not in outer), None)
    return "" if unknown is None else f"the output {unknown!r} is not defined"


def _repeated(names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield name
        seen.add(name)


Signature = tuple[dict[str, int], dict[str, int]]


def signature_of(model: onnx.ModelProto) -> Signature:
    """Inputs that a caller has to give, and outputs: name -> element type."""
    stored = {tensor.name for tensor in model.graph.initializer} | {s.values.name for s in model.graph.sparse_initializer}
    inputs = {v.name: v.type.tensor_type.elem_type for v in model.graph.input if v.name not in stored}
    return inputs, {v.name: v.type.tensor_type.elem_type for v in model.graph.output}


def _changed(before: Signature, after: Signature) -> str:
    for what, old, new in zip(("inputs", "outputs"), before, after, strict=True):
        if old != new:
            return f"its {what} are {sorted(new)}, not {sorted(old)} as before, or of other types"
    return ""
