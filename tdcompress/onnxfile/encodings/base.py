"""What every encoding can do: write some weights as messages of a graph, and read them back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import helper

from tdcompress.errors import ModelError
from tdcompress.onnxfile.encodings.forms import FORMS
from tdcompress.onnxfile.tensors import PACKABLE, Array, message_bytes

RESERVED = "tdc1."  # every name that packing adds to a graph starts so; the digit is the version of the format
RENAME = f"names that begin with {RESERVED!r} are reserved for packed weights: in a file that was never packed, rename them"
LARGE = 1 << 18
"""Elements of a weight from which on a decoder of its own is worth its nodes, and memory while a file is loaded its bytes."""
_SHARED_HANDICAP = 0.10
_PREFIX = re.compile(r"tdc1\.(\d{1,6})\.([a-z0-9_]+)\.([fiu]\d)([fiu]\d|[a-z]\d)?\.(?:([1-9]\d{0,5})\.)?")
_FORMS = {form.code: name for name, form in FORMS.items()}
_DTYPES = {dtype.str[1:]: dtype for dtype in PACKABLE.values()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Weight:
    """One weight as the network sees it: its name in the graph and its dense values, of any shape."""

    name: str
    array: Array


@dataclass(frozen=True, kw_only=True)
class SectionKey:
    """What the weights of one section have in common.

    Attributes:
        graph: number of the graph in the order of `graphs.graphs` (names have to differ between nested graphs).
        encoding: name of the encoding.
        dtype: element type that the network sees.
        stored: element type of the values in the file.
        form: how values are kept, of `FORMS`; "" = as numbers of the type `stored`. With a form, both types are float32.
        part: 0, or 1, 2, ... for what is too much for one decoder.
    """

    graph: int
    encoding: str
    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    form: str = ""
    part: int = 0

    @property
    def prefix(self) -> str:
        """Start of every name of the section: "tdc1.0.gap8.f4.", narrow "tdc1.0.gap8.f4f2.", part 1 "tdc1.0.gap8.f4.1."."""
        stored = FORMS[self.form].code if self.form else self.stored.str[1:] if self.narrow else ""
        part = f"{self.part}." if self.part else ""
        return f"{RESERVED}{self.graph}.{self.encoding}.{self.dtype.str[1:]}{stored}.{part}"

    @property
    def narrow(self) -> bool:
        """Whether values are kept in another element type than the network sees."""
        return self.dtype != self.stored

    @property
    def rounded(self) -> bool:
        """Whether values are other than they were before packing."""
        return self.narrow or self.form != ""

    @property
    def stored_name(self) -> str:
        """What values are kept as, in words."""
        return self.form or self.stored.name

    @staticmethod
    def of(name: str) -> "SectionKey":
        """The key of the section that a reserved name belongs to.

        Raises:
            ModelError: the name starts as a reserved one but is not one of this format's.
        """
        match = _PREFIX.match(name)
        form = _FORMS.get(match[4], "") if match and match[3] == "f4" else ""
        if match is None or match[3] not in _DTYPES or not (form or (match[4] or match[3]) in _DTYPES):
            raise ModelError(f"{name!r} looks like a packed weight, but not of a known format; was the file edited? {RENAME}")
        return SectionKey(
            graph=int(match[1]),
            encoding=match[2],
            dtype=_DTYPES[match[3]],
            stored=_DTYPES[match[3] if form else match[4] or match[3]],
            form=form,
            part=int(match[5] or 0),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """The messages that one encoding puts into a graph."""

    initializers: list[onnx.TensorProto] = field(default_factory=list)
    sparse_initializers: list[onnx.SparseTensorProto] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def n_bytes(self) -> int:
        """Bytes that this section takes in the serialised graph."""
        return message_bytes([*self.initializers, *self.sparse_initializers, *self.nodes])


@dataclass(kw_only=True)
class Room:
    """Bytes that a file may still unpack to; a crafted file asks for more than memory holds."""

    left_bytes: int

    def take(self, n_bytes: int, name: str) -> None:
        """Account for `n_bytes` before they are allocated.

        Raises:
            ModelError: the file unpacks to more than it may.
        """
        self.left_bytes -= n_bytes
        if self.left_bytes < 0:
            raise ModelError(f"{name!r} unpacks to {n_bytes} bytes, more than a file of this size may; damaged or hostile")


class Encoding(Protocol):
    """One way to keep weights. `write` and `read` are inverse to each other, bit for bit."""

    def handicap(self, elements: int) -> float:
        """How much more its bytes count with `prefer="speed"`, because a runtime takes more time and memory to load them.

        Args:
            elements: of the weight; infinite where it is not used for one of this size.
        """

    @property
    def infers(self) -> bool:
        """Whether onnx can infer shapes and types from it, as `onnx.checker` does with `full_check`."""

    @property
    def shares(self) -> bool:
        """Whether all weights of a section have one decoder."""

    def holds(self, form: str) -> bool:
        """Whether values can be kept in this form; every encoding holds numbers as they are, ""."""

    def write(self, weights: Sequence[Weight], key: SectionKey) -> Section:
        """Messages that make every weight known in the graph under its name.

        Every other name that is needed starts with `key.prefix`.
        """

    def read(self, section: Section, key: SectionKey, room: Room) -> list[Weight]:
        """The weights of a section that was found in a file; every index is checked before it is used.

        The caller compares `write(read(section))` with the section, so nodes need no check of their own here.

        Args:
            section: nodes and constants found under the prefix.
            key: how they are stored.
            room: bytes that may still be unpacked.

        Raises:
            ModelError: this is not what `write` makes, or it would unpack to more than `room`.
        """


def shared_handicap(elements: int) -> float:
    """What the bytes of a large weight count more in a decoder that weights share: it holds each number five times.

    Args:
        elements: of the weight.
    """
    return _SHARED_HANDICAP if elements >= LARGE else 0.0


def cast_node(source: str, target: str, dtype: np.dtype[Any]) -> onnx.NodeProto:
    """Cast stored values to the element type that the network computes with.

    Args:
        source: name of the stored tensor.
        target: name of what is computed with.
        dtype: its element type.
    """
    return helper.make_node("Cast", [source], [target], to=helper.np_dtype_to_tensor_dtype(dtype))
