"""What differs between the traces of one network at several sizes of its inputs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx

from tdcompress.shrinking.calls import value_operands
from tdcompress.shrinking.demands import MatrixReader
from tdcompress.shrinking.numbers import computing_numbers, picks
from tdcompress.shrinking.trace import Program, module_of


def varying(program: Program, others: Sequence[Program]) -> frozenset[str]:
    """Names of the operators that take, and of the literal tensors that hold, other numbers at other sizes.

    An operator that is not there at another size counts as well. They are told by the module that they stand in. Of operators
    that pick places those count that pick from a table, be it a weight or a literal tensor.
    """
    found: set[str] = set()
    nodes, moving = _by_place(program), _of_inputs(program)
    for other in others:
        theirs = _by_place(other)
        for key, node in nodes.items():
            if picks(node.target) and node.all_input_nodes[0] in moving:
                continue  # the same constant wherever it is taken from
            if key not in theirs or _numbers_of(node) != _numbers_of(theirs[key]):
                found.add(node.name)
        literals = program.state.keys() - program.narrowable
        found.update(name for name in literals if not same_tensor(program.state[name], other.state.get(name)))
    return frozenset(found)


def agreed(readers: Sequence[MatrixReader], others: Sequence[Sequence[MatrixReader]]) -> list[MatrixReader]:
    """What layers read, with as constants only those that are the same wherever the layer is used at other sizes.

    Args:
        readers: of the examples' size.
        others: of each other size.
    """
    found = []
    for index, reader in enumerate(readers):
        name = reader.matrix.parameter
        turn = sum(before.matrix.parameter == name for before in readers[:index])
        vector = reader.vector.copy()
        no_fold = reader.no_fold
        for elsewhere in others:
            uses = [other for other in elsewhere if other.matrix.parameter == name]
            if uses:
                there = uses[min(turn, len(uses) - 1)]
                vector["known"] &= there.vector["known"] & (there.vector["value"] == vector["value"])
                no_fold = no_fold or there.no_fold
        found.append(replace(reader, vector=vector, no_fold=no_fold))
    return found


def _by_place(program: Program) -> dict[tuple[str, object, int], fx.Node]:
    """Operators by their module, what they are, and how often that stood there before."""
    found: dict[tuple[str, object, int], fx.Node] = {}
    counts: Counter[tuple[str, object]] = Counter()
    for node in program.calls():
        key = module_of(node), node.target
        found[*key, counts[key]] = node
        counts[key] += 1
    return found


def _of_inputs(program: Program) -> set[fx.Node]:
    """The nodes that are, or are computed from, inputs."""
    moving: set[fx.Node] = set()
    for node in program.nodes:
        given = node.op == "placeholder" and node.name not in program.tensors
        if given or not moving.isdisjoint(value_operands(node)):
            moving.add(node)
    return moving


def _numbers_of(node: fx.Node) -> list[object]:
    return computing_numbers(node.target, node.args, node.kwargs, places=picks(node.target))


def same_tensor(a: Tensor, b: Tensor | None) -> bool:
    """Whether two literal tensors are of one type and shape, with the same numbers."""
    return b is not None and a.dtype is b.dtype and a.device == b.device and torch.equal(a, b)
