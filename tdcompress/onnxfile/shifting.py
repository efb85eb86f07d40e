"""Which weights are packed as differences from their zero point, and the sections that they are in."""

from collections.abc import Mapping, Sequence

import numpy as np

from tdcompress.onnxfile.cost import own_bytes
from tdcompress.onnxfile.encodings.base import Section, SectionKey, Weight
from tdcompress.onnxfile.shifted import LOWEST_OPSET, Shift, shift_key, write_shifts
from tdcompress.onnxfile.tensors import Array, is_parameter, zeros_in
from tdcompress.onnxfile.weights import StoredWeight


def has_zeros(weight: StoredWeight, points: Mapping[str, Array]) -> bool:
    """Whether a weight of any shape has something to pack away.

    Args:
        weight: the weight.
        points: full name -> what stands for 0, broadcasting to the weight's shape; else that is 0.
    """
    array, point = weight.array, points.get(weight.full_name)
    zeros = zeros_in(array) if point is None else int(np.count_nonzero(array == point))
    return array.size > 1 and is_parameter(array.dtype) and zeros > 0


def wanted_shifts(
    opset: int, graph: int, weights: Sequence[StoredWeight], points: Mapping[str, Array]
) -> tuple[list[Shift], dict[str, str]]:
    """The weights of a graph that are packed as differences from their zero point; and why others with such zeros cannot be.

    Args:
        opset: of the model.
        graph: its number.
        weights: those that may be packed.
        points: full name -> zero points, broadcasting to the weight's shape.
    """
    found = [weight for weight in weights if weight.full_name in points and has_zeros(weight, points)]
    if opset < LOWEST_OPSET:
        why = f"its zeros stand at a zero point, which takes operator set {LOWEST_OPSET} to bring back: export it anew"
        return [], {weight.name: why for weight in found}
    return [
        Shift(key=shift_key(graph, weight.array.dtype), number=number, name=weight.name, zero=points[weight.full_name])
        for number, weight in enumerate(found)
    ], {}


def worth_shifting(
    planned: Mapping[SectionKey, Sequence[Weight]], shifts: Sequence[Shift]
) -> tuple[dict[SectionKey, Sequence[Weight]], list[Shift]]:
    """Sections without the differences that save no more bytes than their Add takes, and the shifts that are left.

    A sparse initializer would lie in the section of shifts by its name, so a weight that takes one stays dense too.

    Args:
        planned: packed weights by how they are stored.
        shifts: those of the same graph.
    """
    by_name = {shift.difference: shift for shift in shifts}

    def pays(weight: Weight, key: SectionKey) -> bool:
        saved = weight.array.nbytes - own_bytes(weight, key) - write_shifts([by_name[weight.name]]).n_bytes()
        return saved > 0 and key.encoding != "sparse_initializer"

    kept = {key: [each for each in members if each.name not in by_name or pays(each, key)] for key, members in planned.items()}
    used = {weight.name for members in kept.values() for weight in members}
    return {key: members for key, members in kept.items() if members}, [s for s in shifts if s.difference in used]


def with_adds(section: Section, members: Sequence[Weight], shifts: Mapping[str, Shift]) -> tuple[Section, list[Weight]]:
    """A section with the Adds of its differences behind it, and its weights as the network sees them.

    Args:
        section: as its encoding writes it.
        members: its weights.
        shifts: by the name of the difference.
    """
    adds = write_shifts([shifts[weight.name] for weight in members if weight.name in shifts])
    whole = Section(
        initializers=[*section.initializers, *adds.initializers],
        sparse_initializers=section.sparse_initializers,
        nodes=[*section.nodes, *adds.nodes],
    )
    return whole, [
        Weight(name=shift.name, array=shift.back(weight.array)) if (shift := shifts.get(weight.name)) else weight
        for weight in members
    ]
