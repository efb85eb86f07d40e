"""Every weight of a model as a dense array, whatever its encoding; and the model with all its weights dense."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from google.protobuf.message import Message

from tdcompress.errors import ModelError
from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.encodings.base import RENAME, RESERVED, Room, Section, SectionKey, Weight
from tdcompress.onnxfile.encodings.coo import decode_coo
from tdcompress.onnxfile.graphs import graphs, node_lists
from tdcompress.onnxfile.listed_names import with_own_names
from tdcompress.onnxfile.load import STANDARD
from tdcompress.onnxfile.passes import graph_pass
from tdcompress.onnxfile.shifted import SHIFT, Shift, read_shifts, write_shifts
from tdcompress.onnxfile.tensors import Array, from_array, to_array

# A file may unpack to this much: 99.9 % zeros in float32 is a ratio near 700; small files get a floor.
UNPACKED_FLOOR_BYTES = 64 * 2**20
UNPACKED_RATIO = 1024
SMALLEST_CONSTANT = 32  # elements; Constant nodes with fewer hold axes and the like, and cannot pay for a node of their own


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredWeight(Weight):
    """A weight and how it was found in the file.

    Attributes:
        key: encoding ("constant" is none of `ENCODINGS`), element types seen and stored, number of the graph or function.
        path: of the graph, "" is the main one; or of the function.
        message: what holds this weight alone; None where its section holds several.
        shift: how it came from what its section holds, where that is its difference from its zero point.
    """

    key: SectionKey
    path: str
    message: Message | None
    shift: Shift | None = None

    @property
    def full_name(self) -> str:
        """Unique in the model: two branches of an If may use one name."""
        return self.path + self.name


def stored_weights(model: onnx.ModelProto) -> list[StoredWeight]:
    """Every weight of the model under its own name, decoded, with its encoding; the main graph's first, in file order.

    Raises:
        ModelError: a packed or sparse weight is malformed, the file unpacks to more than it may, or its list of names is damaged.
    """
    model = with_own_names(model)
    room = _room(model)
    return [weight for number, (path, graph) in enumerate(graphs(model)) for weight in _read_graph(graph, number, path, room)]


def constant_weights(model: onnx.ModelProto) -> list[StoredWeight]:
    """Weights in Constant nodes, of graphs and of the model's own functions: some exporters write them so.

    Raises:
        ModelError: shape and data of one do not fit together, or the list of names is damaged.
    """
    model = with_own_names(model)
    return [
        _alone("constant", node.output[0], to_array(tensor), node, number, path)
        for number, (path, nodes) in enumerate(node_lists(model))
        for node in nodes
        if (tensor := constant_tensor(node)) is not None
    ]


def constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """What a Constant node holds, if that is large enough to be a weight."""
    if node.op_type != "Constant" or node.domain not in STANDARD:
        return None
    held = (attribute.t for attribute in node.attribute if attribute.name == "value")
    return next((tensor for tensor in held if np.prod(tensor.dims, dtype=float) >= SMALLEST_CONSTANT), None)


def still_packed(model: onnx.ModelProto) -> str:
    """Which weight is no ordinary initializer, in words for `passes.graph_pass`; "" where none is packed or sparse."""
    for path, graph in graphs(model):
        left = [t.name for t in graph.initializer if t.name.startswith(RESERVED)] + [
            s.values.name for s in graph.sparse_initializer
        ]
        if left:
            return f"{path + left[0]!r} is still packed"
    return ""


@graph_pass(ensures=[still_packed])
def densified(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy where every weight is an ordinary initializer of its own name, bit for bit what the network saw before.

    Requires: a well-formed graph (`passes.malformed`); packed weights are as `pack_model` writes them.
    Ensures: the same network; no packed and no sparse weight.

    Raises:
        ModelError: the graph is malformed, or as `stored_weights`.
    """
    dense = onnx.ModelProto()
    dense.CopyFrom(with_own_names(model))
    room = _room(model)
    for number, (path, graph) in enumerate(graphs(dense)):
        packed = [weight for weight in _read_graph(graph, number, path, room) if is_packed(weight.key)]
        _remove_sections(graph)
        del graph.sparse_initializer[:]
        graph.initializer.extend(from_array(weight.array, weight.name) for weight in packed)
    return dense


def wrong_sections(model: onnx.ModelProto) -> str:
    """Which reserved name is not of a known section of its own graph, in words for `passes.graph_pass`; "" where all are."""
    for number, (path, graph) in enumerate(graphs(with_own_names(model))):
        try:
            keys = list(sections(graph))
        except ModelError as error:
            return str(error)
        for key in keys:
            if key.graph != number or key.encoding not in (*ENCODINGS, SHIFT):
                return f"the names {path + key.prefix!r} are of another graph, or of no known encoding"
    return ""


def is_packed(key: SectionKey) -> bool:
    """Whether a weight is anything else than an ordinary initializer."""
    return key.encoding != "dense" or key.narrow


def _room(model: onnx.ModelProto) -> Room:
    return Room(left_bytes=UNPACKED_FLOOR_BYTES + UNPACKED_RATIO * model.ByteSize())


def _read_graph(graph: onnx.GraphProto, number: int, path: str, room: Room) -> list[StoredWeight]:
    """The weights of one graph, without those of its subgraphs; `number` is its place in the order of `graphs`."""
    found = [_alone("dense", t.name, to_array(t), t, number, path) for t in graph.initializer if not t.name.startswith(RESERVED)]
    for sparse in graph.sparse_initializer:
        name = sparse.values.name
        if not name.startswith(RESERVED):
            found.append(_alone("sparse_initializer", name, decode_coo(sparse, room), sparse, number, path))
    of_keys = sections(graph)
    shifts = {
        shift.difference: shift for key, section in of_keys.items() if key.encoding == SHIFT for shift in _shifts(key, section)
    }
    for key, section in of_keys.items():
        if key.graph != number:
            raise ModelError(f"packed weights at {key.prefix!r} are in the wrong graph; was the file edited? {RENAME}")
        for weight in _read_section(key, section, room) if key.encoding != SHIFT else ():
            shift = shifts.pop(weight.name, None)
            if shift is None and weight.name.startswith(RESERVED):
                raise ModelError(f"{weight.name!r} is packed, but no weight of the network; was the file edited? {RENAME}")
            name, array = (weight.name, weight.array) if shift is None else (shift.name, shift.back(weight.array))
            found.append(StoredWeight(name=name, array=array, key=key, path=path, message=None, shift=shift))
    if shifts:
        raise ModelError(f"{next(iter(shifts))!r} is read, but not packed; was the file edited? {RENAME}")
    return found


def _shifts(key: SectionKey, section: Section) -> list[Shift]:
    """As `read_shifts`, and written again."""
    shifts = read_shifts(key, section)
    if not _same(section, write_shifts(shifts)):
        raise ModelError(f"packed weights at {key.prefix!r} are not as this format writes them; was the file edited? {RENAME}")
    return shifts


def _alone(encoding: str, name: str, array: Array, message: Message, graph: int, path: str) -> StoredWeight:
    key = SectionKey(graph=graph, encoding=encoding, dtype=array.dtype, stored=array.dtype)
    return StoredWeight(name=name, array=array, key=key, path=path, message=message)


def sections(graph: onnx.GraphProto) -> dict[SectionKey, Section]:
    """The messages that packing added to a graph, by section, in their order in the file.

    Raises:
        ModelError: a reserved name is not of a known format.
    """
    found: dict[SectionKey, Section] = {}

    def section_of(name: str) -> Section:
        return found.setdefault(SectionKey.of(name), Section())

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


def _read_section(key: SectionKey, section: Section, room: Room) -> list[Weight]:
    """Decode a section, then write it again: only what comes out identical was made by `write` and means what we read."""
    what = f"packed weights at {key.prefix!r} ({_members(section)})"
    encoding = ENCODINGS.get(key.encoding)
    if encoding is None:
        raise ModelError(f"{what} are of an encoding that this version does not know; {RENAME}")
    try:
        weights = encoding.read(section, key, room)
    except ModelError as error:
        raise ModelError(f"{what}: {error}; {RENAME}") from error
    again = encoding.write(weights, key)
    if not _same(section, again):
        raise ModelError(f"{what} are not as this format writes them; was the file edited? {RENAME}")
    return weights


def _same(section: Section, again: Section) -> bool:
    return (
        _canonical(section.initializers) == _canonical(again.initializers)
        and _canonical(section.sparse_initializers) == _canonical(again.sparse_initializers)
        and _canonical(section.nodes) == _canonical(again.nodes)
    )


def _members(section: Section) -> str:
    """The weights that a section makes known, as far as its nodes tell: the first two by name."""
    names = [name for node in section.nodes for name in node.output if not name.startswith(RESERVED)]
    named = ", ".join(names[:2]) or "no weight is read from them"
    return f"{named} and {len(names) - 2} more" if len(names) > 2 else named


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
