"""Positions as Rice codes: the zeros before a value, divided by 2^k, in unary; the remainder in k bits (Rice 1979).

Flags say it in unary: 0 stands for 2^k zeros, 1 for a value. Where zeros lie anywhere and k fits their share, it is 1 % above the
least bits there are (`position_bits`); codes of fixed length, as `gap` has them, are 7 to 9 % above at 90 to 99 % zeros.

All bits stand in one array: the flags, and then the remainders bit by bit, the highest of all of them first. A runtime works on
every bit, so it loads in more time and memory than codes that stand in bytes. Where loading counts, large weights do without.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tdcompress.errors import ModelError
from tdcompress.onnxfile.encodings.frame import BRIEF, Codes, Encoded, FrameEncoding, Positions, scatter
from tdcompress.onnxfile.encodings.names import Names
from tdcompress.onnxfile.tensors import Array

# What the bytes count more than those of `gap`, which loads faster.
_RICE_HANDICAP = 0.01


@dataclass(frozen=True)
class RiceCodec:
    """Rice codes with remainders of `low` bits; one more, all ones, is what flags without a value read: a step of 2^low."""

    low: int
    zero_first = True

    def encode(self, positions: Positions, total: int) -> Encoded:
        """See `Codec`; bytes are filled up by flags without a value, which may end beyond `total`."""
        gaps = np.diff(positions, prepend=-1) - 1
        skips = gaps >> self.low
        remainders = np.append((1 << self.low) - 1, gaps & ((1 << self.low) - 1))
        n_flags = positions.size + int(skips.sum())
        fill = -(n_flags + self.low * remainders.size) % 8
        bits = np.zeros(n_flags + fill + self.low * remainders.size, np.uint8)
        flags, planes = np.split(bits, [n_flags + fill])
        flags[np.cumsum(skips + 1) - 1] = 1
        planes[:] = (remainders >> np.arange(self.low - 1, -1, -1)[:, np.newaxis] & 1).reshape(-1)
        end = (int(positions[-1]) + 1 if positions.size else 0) + (fill << self.low)
        return Encoded(
            codes=np.packbits(bits.reshape(8, -1), axis=0),  # (1, n)
            before=1,
            after=max(0, end - total),
            more={"parts": np.array([flags.size, planes.size], np.int64)},
        )

    def decode(self, codes: Codes, total: int) -> Positions:
        """See `Codec`; as many bits as flags and remainders of all values take are there for one number of flags only.

        Raises:
            ModelError: for none.
        """
        bits = np.unpackbits(codes.reshape(1, -1), axis=0).reshape(-1)
        used = self.low + np.cumsum(1 + self.low * bits, dtype=np.int64)
        n_flags = int(np.searchsorted(used, bits.size)) + 1
        if n_flags > bits.size or used[n_flags - 1] != bits.size:
            raise ModelError("their codes are cut off; the file is damaged")
        flags, planes = np.split(bits, [n_flags])
        remainders: Positions = self._powers @ planes.astype(np.int64).reshape(self.low, -1)
        steps = np.take(remainders + 1, np.cumsum(flags, dtype=np.int64) * flags)
        places: Positions = np.cumsum(steps) - 1
        return np.compress(flags == 1, places)

    def nodes(self, names: Names, dtype: np.dtype[Any], length: int) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
        """See `Codec`; names between are short, since they take most of the decoder's bytes."""
        tail, constants = scatter(names, dtype, length, "v")
        nodes = [
            names.node("BitShift", "codes shifts", "s", direction="RIGHT"),  # (1, n) by (8, 1) gives (8, n)
            names.node("Mod", "s two", "b"),
            names.node("Reshape", "b row", "r"),
            names.node("Cast", "r", "i", to=TensorProto.INT32),
            helper.make_node("Split", [names("i"), names("parts")], [names("f"), names("p")]),  # flags, planes of remainders
            names.node("Reshape", "p planes", "q"),
            names.node("MatMul", "powers q", "m"),
            names.node("Add", "m one", "n"),
            names.node("CumSum", "f axis", "c"),
            names.node("Mul", "c f", "o"),  # a flag without a value reads the first remainder, and values[0], the zero
            names.node("Gather", "n o", "t"),
            names.node("CumSum", "t axis", "places"),
            names.node("Gather", "values o", "v"),
            *tail,
        ]
        return nodes, constants | {
            "shifts": np.arange(7, -1, -1, dtype=np.uint8)[:, np.newaxis],
            "two": np.array(2, np.uint8),
            "row": np.array([-1], np.int64),
            "planes": np.array([self.low, -1], np.int64),
            "powers": self._powers.astype(np.int32),
            "one": np.array(1, np.int32),
            "axis": np.array(0, np.int64),
        }

    @property
    def _powers(self) -> Array:
        return 1 << np.arange(self.low - 1, -1, -1)


RICE1 = FrameEncoding(codec=RiceCodec(1), slower=math.inf, labels=BRIEF)
RICE3, RICE4, RICE6 = (FrameEncoding(codec=RiceCodec(low), slower=_RICE_HANDICAP, labels=BRIEF, large=False) for low in (3, 4, 6))
