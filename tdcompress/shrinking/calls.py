"""The rule of each aten operator: how channels, constants and sources pass through it.

A rule reads an operator's arguments by their schema names and returns the signal(s) of its result. Operators that torch tags as
pointwise need no entry. An operator without a rule keeps all channels that reach it; that is exact, and reported.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from tdcompress.shrinking.cells import Ids, Signal, plain
from tdcompress.shrinking.channels import ChannelGraph, Parameter
from tdcompress.shrinking.demands import AllOrNone, WholeSlices
from tdcompress.shrinking.trace import code_place


@dataclass(frozen=True, kw_only=True)
class OperatorCall:
    """One operator of the program, its arguments bound to their schema names.

    Attributes:
        node: the operator.
        arguments: tensors as Signal or Parameter, everything else as it is.
        layer: where it stands, for messages.
    """

    node: fx.Node
    arguments: Mapping[str, Any]
    layer: str

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return tuple(int(n) for n in self.node.meta["val"].shape)

    def tensors(self) -> list[Signal | Parameter]:
        """All tensor arguments, those inside lists too."""
        found: list[Signal | Parameter] = []
        for value in self.arguments.values():
            items = value if isinstance(value, list | tuple) else [value]
            found += [item for item in items if isinstance(item, Signal | Parameter)]
        return found


# Operators that are given sizes or numbers of parts, which the forward code may spell out.
_SIZED = "view reshape _unsafe_view unflatten expand broadcast_to split split_with_sizes chunk tensor_split unbind"
SIZED = frozenset(_SIZED.split())

# Operators that are given a number of groups, by the argument that has it.
_GROUPED = {
    "group_norm": "num_groups",
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), "groups"),
}
_LAYERS = ("torch.nn.modules.conv.", "torch.nn.modules.normalization.GroupNorm")  # whose own number surgery sets

_SLICES = frozenset(["slice", "narrow"])  # operators that are given bounds
MADE = frozenset(["full", "ones", "zeros"])  # operators that take no tensor, and make one of a single number
# Operators that take the type, the device or the shape of their first tensor, and no values.
FRESH = frozenset(["new_empty", "new_full", "new_ones", "new_zeros"])
LIKE = frozenset(["zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"])
# Operators that take the values of their first tensor, and of a second one its type or its shape.
_SHAPED_AS = frozenset(["type_as", "expand_as", "reshape_as", "view_as", "to"])

Result = Signal | tuple[Signal, ...]
Rule = Callable[[ChannelGraph, OperatorCall], Result]


def bind(graph: ChannelGraph, node: fx.Node, parameters: Mapping[str, str]) -> OperatorCall:
    """Replace an operator's node arguments by what is known about them, and name all arguments.

    Args:
        graph: what is known so far.
        node: of the traced program.
        parameters: placeholder -> name of the parameter.
    """

    def known(item: Any) -> Any:
        if isinstance(item, fx.Node):
            if item.name in parameters:
                return Parameter(name=parameters[item.name])
            return graph.signals.get(item.name)
        if isinstance(item, list | tuple):
            return [known(entry) for entry in item]
        return item

    assert isinstance(node.target, torch._ops.OpOverload)
    arguments = {}
    for index, argument in enumerate(node.target._schema.arguments):
        value = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name, argument.default_value)
        arguments[argument.name] = known(value)
    return OperatorCall(node=node, arguments=arguments, layer=code_place(node))


def base_name(target: Any) -> str:
    """Operator name without overload and without the in-place underscore: aten.add_.Tensor -> "add"."""
    name = str(getattr(target, "_opname", target)).removeprefix("aten::").split("::")[-1]
    return name.removesuffix("_") if not name.endswith("__") else name


def written_groups(node: fx.Node) -> int | None:
    """The number of groups that the forward code gives an operator; None without groups, or from a layer that is set anew."""
    name = _GROUPED.get(base_name(node.target))
    if name is None or not isinstance(node.target, torch._ops.OpOverload):
        return None
    given = {argument.name: value for argument, value in zip(node.target._schema.arguments, node.args, strict=False)}
    groups = {**given, **node.kwargs}.get(name, 1)
    modules = list(node.meta.get("nn_module_stack", {}).values())
    set_anew = modules and str(modules[-1][1]).startswith(_LAYERS) and given.get("weight") is not None
    return None if set_anew or not isinstance(groups, int) or (name == "groups" and groups == 1) else groups


def indices_taken(node: fx.Node) -> tuple[int, range] | None:
    """The axis of a slice, and the indices that it takes of it; None for other operators."""
    name = base_name(node.target)
    if name not in _SLICES:
        return None
    assert isinstance(node.target, torch._ops.OpOverload)
    defaults = {argument.name: argument.default_value for argument in node.target._schema.arguments}
    given: dict[str, Any] = {**defaults, **dict(zip(defaults, node.args, strict=False)), **node.kwargs}
    shape = given["self"].meta["val"].shape
    axis = given["dim"] % len(shape)
    start = given["start"] or 0
    end = given["end"] if name == "slice" else start % shape[axis] + given["length"]
    return axis, range(shape[axis])[start : end : given.get("step", 1)]


def note_numbers(graph: ChannelGraph, call: OperatorCall) -> None:
    """Remember an operator whose sizes, bounds or groups may be numbers; flatten and squeeze are only told axes."""
    name = base_name(call.node.target)
    if name in SIZED or name in _SLICES or written_groups(call.node) is not None:
        graph.literal_nodes.append(call.node.name)


def value_operands(node: fx.Node) -> list[fx.Node]:
    """The operands whose values an operator reads; of the others it takes the type, the device or the shape."""
    name = base_name(node.target)
    if name in FRESH | LIKE:
        return [operand for operand in node.all_input_nodes if operand is not node.args[0]]
    return node.all_input_nodes[:1] if name in _SHAPED_AS else node.all_input_nodes


def sees_alone(node: fx.Node) -> bool:
    """Whether an operator is all that sees what the layer before it makes: each step back to the weight has one user."""
    source = node.args[0]
    while isinstance(source, fx.Node) and len(source.users) == 1 and source.args:
        if base_name(source.target).startswith(("conv", "linear")):
            return True
        source = source.args[0]
    return False


def hold_axes(graph: ChannelGraph, call: OperatorCall, ids: Ids, axes: Sequence[int], reason: str) -> None:
    """Let no index of some axes go, since the program counts on them. Of the other axes slices may go, as a head does.

    Args:
        graph: takes the constraint.
        call: the operator.
        ids: channels, of a tensor's shape; an axis of length 1 does not tell its indices apart.
        axes: numbers of axes, from 0.
        reason: "cuts a slice with fixed bounds": ends the sentence that names the operator.
    """
    if _heads(graph, ids, axes):
        graph.demands.append(WholeSlices(ids=ids, layer=call.layer, fixed_axes=tuple(axes)))
    else:
        graph.hold(ids, f"{call.layer} {reason}")


def read_together(graph: ChannelGraph, call: OperatorCall, ids: Ids, axes: Sequence[int], reason: str) -> bool:
    """Keep channels along some axes, since the operator reads them together. Where other axes tell heads apart, a head may go.

    Args:
        graph: takes the pins or the constraint.
        call: the operator.
        ids: channels, of a tensor's shape; an axis of length 1 does not tell its indices apart.
        axes: numbers of axes, at least one.
        reason: why they stay, in words.

    Returns:
        Whether heads may go.
    """
    if all(ids.shape[axis] == 1 for axis in axes):
        return False
    heads = _heads(graph, ids, axes)
    if heads:
        rows = _rows(ids, axes)
        graph.demands.append(AllOrNone(rows=rows, layer=call.layer))
        graph.heads.append(rows)
    else:
        graph.pin(ids, reason)
    return heads


def _heads(graph: ChannelGraph, ids: Ids, axes: Sequence[int]) -> bool:
    """Whether other axes than these tell channels apart that may go one without the other; tokens of one width do not."""
    rows = _rows(ids, axes)
    return len(rows) > 1 and bool((rows >= 0).all()) and len(np.unique(graph.roots()[rows], axis=0)) > 1


def _rows(ids: Ids, axes: Sequence[int]) -> Ids:
    """What lies along some axes, for each index of the others."""
    last = range(-len(axes), 0)
    return np.moveaxis(ids, axes, last).reshape(-1, prod(ids.shape[axis] for axis in axes))


def untracked(graph: ChannelGraph, call: OperatorCall, reason: str) -> Result:
    """Keep every channel that reaches an operator, so that it computes what it did; its result is plain.

    Args:
        graph: takes the pins.
        call: the operator.
        reason: "its weight is computed": ends the sentence that names the operator.
    """
    sentence = f"{base_name(call.node.target)} in {call.layer}: {reason}"
    for tensor in call.tensors():
        if isinstance(tensor, Parameter):
            graph.frozen[tensor.name] = sentence
        else:
            graph.pin(tensor.channel, sentence)
    value = call.node.meta["val"]
    if isinstance(value, list | tuple):
        return tuple(plain(item.shape) for item in value)
    return plain(value.shape) if isinstance(value, Tensor) else plain(())
