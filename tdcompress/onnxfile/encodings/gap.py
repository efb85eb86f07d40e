"""Positions as distances: code c < skip means "c zeros, then a value", code c = skip means "skip zeros, no value".

With codes of b bits, skip = 2^b - 1. The step of a code is c + 1, or skip; the running sum of steps is where its value
goes in a vector whose place 0 is before the first weight. A skip's own place gets a 0: it lies strictly between the
values around it, so no two codes share a place and ScatterElements is well defined.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto

from tdcompress.onnxfile.encodings.bits import SHARING, join, part, part_nodes
from tdcompress.onnxfile.encodings.frame import Codes, Encoded, Positions, scatter
from tdcompress.onnxfile.encodings.names import Names
from tdcompress.onnxfile.tensors import Array

# What step4 may cost more in bytes before gap4 or gap8 is taken. Their decoders make 7 passes over 4 bytes a code, step4 makes 2.
# A runtime holds the result of every pass until all is folded. Half a percent of bytes buys half of that time.
SKIPS_HANDICAP = 0.005


@dataclass(frozen=True)
class GapCodec:
    """Gap codes of 8 bits, of 6 as `bits.join` lays them, or of 4: byte i has code i in its high half, n + i in its low half.

    Four bits are unpacked by BitShift and Mod on uint8, not by ONNX's uint4 type: that needs opset 21. The halves are
    laid out so that the runtime's loops are over n bytes each, which loads faster than pairs of neighbours.
    """

    bits: Literal[4, 6, 8]
    zero_first = True

    @property
    def skip(self) -> int:
        """The code without a value."""
        return (1 << self.bits) - 1

    def encode(self, positions: Positions, total: int) -> Encoded:
        """See `Codec`; codes that share bytes are filled up by skips, which may end beyond `total`."""
        gaps = np.diff(positions, prepend=-1) - 1
        skips = gaps // self.skip
        codes = np.full(positions.size + int(skips.sum()), self.skip, np.uint8)
        codes[np.cumsum(skips + 1) - 1] = gaps - skips * self.skip
        if self.bits == 8:
            return Encoded(codes=codes, before=1, after=0)
        fill = -codes.size % SHARING[self.bits]
        codes = np.append(codes, np.full(fill, self.skip, np.uint8))
        after = max(0, int(positions[-1]) + 1 + fill * self.skip - total) if fill else 0
        if self.bits == 6:
            return Encoded(codes=join(codes, 6), before=1, after=after)
        halves = codes.reshape(2, -1)
        pairs = np.bitwise_or(halves[:1] << 4, halves[1:], dtype=np.uint8)
        return Encoded(codes=pairs, before=1, after=after)  # (1, n)

    def decode(self, codes: Codes, total: int) -> Positions:
        """See `Codec`."""
        flat = part(codes.reshape(-1), self.bits)
        has_value = flat != self.skip
        places: Positions = np.cumsum(flat.astype(np.int64) + has_value) - 1
        return np.compress(has_value, places)

    def nodes(self, names: Names, dtype: np.dtype[Any], length: int) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
        """See `Codec`."""
        constants: dict[str, Array] = {
            "axis": np.array(0, np.int64),
            "skip": np.array(self.skip, np.int32),
        }
        unpack: list[onnx.NodeProto] = []
        if self.bits == 4:
            constants |= {
                "halves": np.array([[4], [0]], np.uint8),
                "base": np.array(16, np.uint8),
                "row": np.array([-1], np.int64),
            }
            unpack = [
                names.node("BitShift", "codes halves", "shifted", direction="RIGHT"),  # (1, n) by (2, 1) gives (2, n)
                names.node("Mod", "shifted base", "pairs"),
                names.node("Reshape", "pairs row", "nibbles"),
            ]
        if self.bits == 6:
            unpack, more = part_nodes(names, 6, "codes", "gaps")
            constants |= more
        else:
            unpack.append(names.node("Cast", "nibbles" if unpack else "codes", "gaps", to=TensorProto.INT32))
        tail, more = scatter(names, dtype, length, "scattered")
        constants |= more
        nodes = [
            *unpack,
            names.node("Less", "gaps skip", "has_value"),
            names.node("Cast", "has_value", "ones", to=TensorProto.INT32),
            names.node("Add", "gaps ones", "steps"),
            names.node("CumSum", "steps axis", "places"),
            names.node("CumSum", "ones axis", "counts"),
            names.node("Mul", "counts ones", "order"),  # a skip reads values[0], the zero
            names.node("Gather", "values order", "scattered"),
            *tail,
        ]
        return nodes, constants
