"""Short names for the values between nodes: an exporter makes them up, and nobody looks for them in a file that is small."""

from collections import Counter
from collections.abc import Mapping

import onnx

from tdcompress.onnxfile.passes import graph_pass
from tdcompress.onnxfile.renaming import fixed_names, renamed, stored_names


@graph_pass()
def with_short_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy where what a node of the main graph makes is called after its operator: "c0", "c1" of Conv, "r0" of Relu.

    Inputs, outputs and weights keep their names, and so does all inside subgraphs and functions. Every name takes its bytes where
    it is made and where it is read: on ResNet-32 the exporter's took 2 KB.

    Requires: a well-formed graph.
    Ensures: the same network.
    """
    return renamed(model, _new_names(model))


def _new_names(model: onnx.ModelProto) -> Mapping[str, str]:
    made = [(node.op_type, name) for node in model.graph.node for name in node.output if name]
    fixed = fixed_names(model) | set(stored_names(model.graph))
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
