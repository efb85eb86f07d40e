"""A plan as a file, for the C library (csrc/plan.h says what lies where, csrc/load.c reads it).

The same model, shapes and instruction set give the same bytes: no address, name of a machine or date is in them.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from ctypes import Structure, c_void_p
from dataclasses import dataclass

from tdcompress.engine.binding import DTYPES, ConvOp, InstructionSet
from tdcompress.engine.plan import Plan
from tdcompress.engine.steps import Shape
from tdcompress.errors import UnsupportedError

MAGIC, VERSION = b"TDCPLAN\n", 1
PORT_DIMS = 15
_HEADER = struct.Struct("<8s3q16s18q")
_PORT = struct.Struct(f"<{3 + PORT_DIMS}q")
_CHECKSUM_AT = 24
_LINE_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output of a plan: its name, element type, and shape without the batch."""

    name: str
    dtype: str
    shape: Shape


class _Data:
    """Tables and names side by side, each at the start of a cache line; offset 0 means none."""

    def __init__(self, sizes: Mapping[int, int]) -> None:
        self._sizes = sizes
        self._offsets: dict[int, int] = {}
        self._parts: list[bytes] = [bytes(_LINE_BYTES)]
        self._end = _LINE_BYTES

    def add(self, part: bytes) -> int:
        """The offset of more bytes."""
        offset = self._end
        self._parts.append(part + bytes(-len(part) % _LINE_BYTES))
        self._end += len(self._parts[-1])
        return offset

    def at(self, address: int | None) -> int:
        """The offset of the table at an address."""
        if not address:
            return 0
        if address not in self._offsets:
            self._offsets[address] = self.add(ctypes.string_at(address, self._sizes[address]))
        return self._offsets[address]

    def joined(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)


def pointers(structure: type[Structure], start: int = 0) -> Iterator[int]:
    """Where in a structure the addresses of tables are, in bytes."""
    for name, kind, *_ in structure._fields_:
        offset = start + getattr(structure, name).offset
        if kind is c_void_p:
            yield offset
        elif issubclass(kind, Structure):
            yield from pointers(kind, offset)


def _with_offsets(structure: Structure, data: _Data) -> bytearray:
    """A structure's bytes, with offsets in place of addresses."""
    words = bytearray(bytes(structure))
    for place in pointers(type(structure)):
        (address,) = struct.unpack_from("<Q", words, place)
        struct.pack_into("<Q", words, place, data.at(address))
    return words


def _program(plan: Plan, data: _Data) -> bytes:
    """Call after call: its number, its descriptor, and of a convolution the groups."""
    parts: list[bytes | bytearray] = []
    for op, descriptor in zip(plan.ops, plan.descriptors(), strict=False):
        parts += [struct.pack("<q", op.kind), _with_offsets(descriptor, data)]
        if isinstance(descriptor, ConvOp):
            struct.pack_into("<Q", parts[-1], ConvOp.groups.offset, 0)
            parts += [_with_offsets(group, data) for group in descriptor.groups[: descriptor.group_count]]
    return b"".join(parts)


def _port(port: Port, batch: int | None, data: _Data) -> bytes:
    dims = (batch or 0, *port.shape)
    if len(dims) > PORT_DIMS:
        raise UnsupportedError(
            f"{port.name!r} has {len(dims)} axes; a plan file has at most {PORT_DIMS}: use the engine in Python"
        )
    padded = dims + (0,) * (PORT_DIMS - len(dims))
    return _PORT.pack(data.add(port.name.encode() + b"\0"), DTYPES[port.dtype], len(dims), *padded)


def plan_bytes(plan: Plan, isa: InstructionSet, *, inputs: Sequence[Port], outputs: Sequence[Port], batch: int | None) -> bytes:
    """A plan's file.

    Args:
        plan: what runs.
        isa: what it was planned for.
        inputs: in the model's order.
        outputs: in the model's order.
        batch: the size that the model is fixed to; None = any.

    Raises:
        UnsupportedError: an input or output with too many axes; a machine that stores the highest byte first.
    """
    if sys.byteorder != "little":
        raise UnsupportedError("plan files are little-endian: make them on another machine, with --isa, in Python isa=")
    data = _Data(plan.sizes)
    program = _program(plan, data)
    constants = data.at(plan.constants)
    ports = b"".join(_port(port, batch, data) for port in (*inputs, *outputs))
    sections, start = [], _HEADER.size
    offsets = []
    for section in (ports, program, data.joined()):
        offsets.append(start)
        sections.append(section + bytes(-len(section) % _LINE_BYTES))
        start += len(sections[-1])
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        start,
        0,
        isa.name.encode(),
        isa.max_block,
        isa.dense_filters,
        isa.linear_lanes,
        plan.arena_elements,
        plan.op_count,
        len(inputs),
        len(outputs),
        offsets[0],
        offsets[1],
        len(program),
        offsets[2],
        len(sections[2]),
        constants,
        plan.sizes[plan.constants] // 4 if plan.constants else 0,
        *(0, 0, 0, 0),
    )
    return with_checksum(header + b"".join(sections))


def with_checksum(file: bytes) -> bytes:
    """A plan file with its checksum set: CRC-32 of all of it, the checksum itself taken as 0."""
    rest = file[_CHECKSUM_AT + 8 :]
    value = zlib.crc32(rest, zlib.crc32(file[:_CHECKSUM_AT] + bytes(8)))
    return file[:_CHECKSUM_AT] + struct.pack("<q", value) + rest
