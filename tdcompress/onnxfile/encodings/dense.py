"""Dense: an ordinary initializer; with a narrower stored type, an initializer and a Cast."""

from collections.abc import Sequence

from tdcompress.onnxfile.encodings.base import Room, Section, SectionKey, Weight, cast_node
from tdcompress.onnxfile.tensors import from_array, to_array


class _Dense:
    infers = True
    shares = False

    def handicap(self, elements: int) -> float:
        return 0.0

    def holds(self, form: str) -> bool:
        return form == ""

    def write(self, weights: Sequence[Weight], key: SectionKey) -> Section:
        prefix = key.prefix if key.narrow else ""
        return Section(
            initializers=[from_array(weight.array.astype(key.stored), prefix + weight.name) for weight in weights],
            nodes=[cast_node(prefix + weight.name, weight.name, key.dtype) for weight in weights if key.narrow],
        )

    def read(self, section: Section, key: SectionKey, room: Room) -> list[Weight]:
        weights = []
        for tensor in section.initializers:
            narrow = to_array(tensor)
            room.take(narrow.size * key.dtype.itemsize, tensor.name)
            weights.append(Weight(name=tensor.name.removeprefix(key.prefix), array=narrow.astype(key.dtype)))
        return weights


DENSE = _Dense()
