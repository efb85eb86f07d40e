"""What a file calls the free axes of its inputs: one name is one length.

The batch is one for all inputs. Any other axis has a length of its own in each input, as queries and keys of an attention have,
until the trace binds two of them (`a + b`): the exporter then gives both the name of the first.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import onnx

from tdcompress.onnxfile.graphs import graphs


def own_axes(names: Sequence[str], ranks: Sequence[int], free_axes: Sequence[int]) -> list[dict[int, str]]:
    """Of each input its free axes, with a name for each length: "batch", "axis_1", and "a_axis_1" where several inputs have it.

    Args:
        names: of the inputs.
        ranks: of the inputs; 0 for one that keeps its shape.
        free_axes: the axes that may have any length.
    """
    having = Counter(axis for rank in ranks for axis in free_axes if axis < rank)

    def called(name: str, axis: int) -> str:
        if axis == 0:
            return "batch"
        return _shared(axis) if having[axis] == 1 else f"{name}_{_shared(axis)}"

    return [{axis: called(name, axis) for axis in free_axes if axis < rank} for name, rank in zip(names, ranks, strict=True)]


def share_names(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Shorten "a_axis_1" to "axis_1" where all inputs that have it free have one length there. The model is changed.

    Args:
        model: exported with the names of `own_axes`.
        names: of its inputs.
    """
    called: dict[int, set[str]] = {}
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                called.setdefault(axis, set()).add(dim.dim_param)
    shorter = {
        own: _shared(axis)
        for axis, found in called.items()
        if len(found) == 1 and (own := next(iter(found))) in {f"{name}_{_shared(axis)}" for name in names}
    }
    for _, graph in graphs(model) if shorter else ():
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.dim_param = _renamed(dim.dim_param, shorter)


def _shared(axis: int) -> str:
    return f"axis_{axis}"


def _renamed(expression: str, names: Mapping[str, str]) -> str:
    """An expression of lengths, as "2*a_axis_1 + 1", with other names in it."""
    return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), expression)
