"""Every weight of a model as a dense array, whatever its encoding; and the model with all its weights dense."""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from tdcompress.errors import ModelError
from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.encodings.base import RESERVED, Key, Room, Section, Weight
from tdcompress.onnxfile.encodings.coo import decode_coo
from tdcompress.onnxfile.graphs import graphs
from tdcompress.onnxfile.tensors import Array, from_array, to_array

# A file may unpack to this much: 99.9 % zeros in float32 is a ratio near 700; small files get a floor.
UNPACKED_FLOOR_BYTES = 64 * 2**20
UNPACKED_RATIO = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredWeight(Weight):
    """A weight and how it was found in the file.

    Attributes:
        key: encoding, element types seen and stored, number of the graph.
        path: of the graph; "" is the main one.
    """

    key: Key
    path: str

    @property
    def full_name(self) -> str:
        """Unique in the model: two branches of an If may use one name."""
        return self.path + self.name


def dense_initializers(model: onnx.ModelProto) -> dict[str, Array]:
    """Every weight of the model, decoded; those of subgraphs are named "node.attribute/name".

    Raises:
        ModelError: a packed or sparse weight is malformed, or the file unpacks to more than it may.
    """
    return {weight.full_name: weight.array for weight in stored_weights(model)}


def stored_weights(model: onnx.ModelProto) -> list[StoredWeight]:
    """Every weight of the model, decoded, with its encoding; the main graph's first, in file order.

    Raises:
        ModelError: as `dense_initializers`.
    """
    room = _room(model)
    return [weight for number, (path, graph) in enumerate(graphs(model)) for weight in _read_graph(graph, number, path, room)]


def densified(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy where every weight is an ordinary initializer, bit for bit what the network saw before.

    Raises:
        ModelError: as `dense_initializers`.
    """
    dense = onnx.ModelProto()
    dense.CopyFrom(model)
    room = _room(model)
    for number, (path, graph) in enumerate(graphs(dense)):
        packed = [weight for weight in _read_graph(graph, number, path, room) if is_packed(weight.key)]
        _remove_sections(graph)
        del graph.sparse_initializer[:]
        graph.initializer.extend(from_array(weight.array, weight.name) for weight in packed)
    return dense


def is_packed(key: Key) -> bool:
    """Whether a weight is anything else than an ordinary initializer."""
    return key.encoding != "dense" or key.narrow


def _room(model: onnx.ModelProto) -> Room:
    return Room(left_bytes=UNPACKED_FLOOR_BYTES + UNPACKED_RATIO * model.ByteSize())


def _read_graph(graph: onnx.GraphProto, number: int, path: str, room: Room) -> list[StoredWeight]:
    """The weights of one graph, without those of its subgraphs; `number` is its place in the order of `graphs`."""

    def standard(encoding: str, name: str, array: Array) -> StoredWeight:
        key = Key(graph=number, encoding=encoding, dtype=array.dtype, stored=array.dtype)
        return StoredWeight(name=name, array=array, key=key, path=path)

    found = [standard("dense", t.name, to_array(t)) for t in graph.initializer if not t.name.startswith(RESERVED)]
    for sparse in graph.sparse_initializer:
        if not sparse.values.name.startswith(RESERVED):
            found.append(standard("sparse_initializer", sparse.values.name, decode_coo(sparse, room)))
    for key, section in sections(graph).items():
        if key.graph != number:
            raise ModelError(f"packed weights at {key.prefix!r} are in the wrong graph; was the file edited?")
        for weight in _read_section(key, section, room):
            found.append(StoredWeight(name=weight.name, array=weight.array, key=key, path=path))
    return found


def sections(graph: onnx.GraphProto) -> dict[Key, Section]:
    """The messages that packing added to a graph, by section, in their order in the file.

    Raises:
        ModelError: a reserved name is not of a known format.
    """
    found: dict[Key, Section] = {}

    def section_of(name: str) -> Section:
        return found.setdefault(Key.of(name), Section())

    for tensor in graph.initializer:
        if tensor.name.startswith(RESERVED):
            section_of(tensor.name).initializers.append(tensor)
    for sparse in graph.sparse_initializer:
        if sparse.values.name.startswith(RESERVED):
            section_of(sparse.values.name).sparse_initializers.append(sparse)
    for node in graph.node:
        reserved = _reserved_name(node)
        if reserved is not None:
            section_of(reserved).nodes.append(node)
    return found


def _reserved_name(node: onnx.NodeProto) -> str | None:
    return next((name for name in node.input if name.startswith(RESERVED)), None)


def _read_section(key: Key, section: Section, room: Room) -> list[Weight]:
    """Decode a section, then write it again: only what comes out identical was made by `write` and means what we read."""
    encoding = ENCODINGS.get(key.encoding)
    if encoding is None:
        raise ModelError(f"packed weights at {key.prefix!r} are of an encoding that this version does not know")
    weights = encoding.read(section, key, room)
    again = encoding.write(weights, key)
    same = (
        _canonical(section.initializers) == _canonical(again.initializers)
        and _canonical(section.sparse_initializers) == _canonical(again.sparse_initializers)
        and _canonical(section.nodes) == _canonical(again.nodes)
    )
    if not same:
        raise ModelError(f"packed weights at {key.prefix!r} are not as this format writes them; was the file edited?")
    return weights


def _canonical(messages: Iterable[onnx.TensorProto | onnx.SparseTensorProto | onnx.NodeProto]) -> list[bytes]:
    """Serialised, without labels that other tools add to nodes and that change nothing, in an order of its own."""
    plain = []
    for message in messages:
        if isinstance(message, onnx.NodeProto):
            copy = onnx.NodeProto()
            copy.CopyFrom(message)
            for label in ("name", "doc_string", "metadata_props"):
                copy.ClearField(label)
            message = copy
        plain.append(message.SerializeToString(deterministic=True))
    return sorted(plain)


def _remove_sections(graph: onnx.GraphProto) -> None:
    for number in range(len(graph.initializer) - 1, -1, -1):
        if graph.initializer[number].name.startswith(RESERVED):
            del graph.initializer[number]
    for number in range(len(graph.node) - 1, -1, -1):
        if _reserved_name(graph.node[number]) is not None:
            del graph.node[number]
