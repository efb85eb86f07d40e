"""bitmask: one bit an element, set where a value is; bit 7 - k of byte i is element k n + i. Best below about 75 % zeros.

Its decoder works on every element, not on every value, so it loads more slowly than the gap encodings.
"""

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tdcompress.onnxfile.encodings.frame import Codes, Encoded, FrameEncoding, Positions
from tdcompress.onnxfile.encodings.names import Names
from tdcompress.onnxfile.tensors import Array


class _BitmaskCodec:
    zero_first = True

    def encode(self, positions: Positions, total: int) -> Encoded:
        bits = np.zeros(-(-total // 8) * 8, np.uint8)
        bits[positions] = 1
        return Encoded(codes=np.packbits(bits.reshape(8, -1), axis=0), before=0, after=bits.size - total)  # (1, n)

    def decode(self, codes: Codes, total: int) -> Positions:
        return np.flatnonzero(np.unpackbits(codes.reshape(1, -1), axis=0))

    def nodes(self, names: Names, dtype: np.dtype[Any], length: int) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
        nodes = [
            names.node("BitShift", "codes shifts", "shifted", direction="RIGHT"),  # (1, n) by (8, 1) gives (8, n)
            names.node("Mod", "shifted two", "bits"),
            names.node("Reshape", "bits row", "flat_bits"),
            names.node("Cast", "flat_bits", "ones", to=TensorProto.INT32),
            names.node("CumSum", "ones axis", "counts"),
            names.node("Mul", "counts ones", "order"),  # an unset bit reads values[0], the zero
            names.node("Gather", "values order", "flat"),
        ]
        return nodes, {
            "shifts": np.arange(7, -1, -1, dtype=np.uint8)[:, np.newaxis],
            "two": np.array(2, np.uint8),
            "row": np.array([-1], np.int64),
            "axis": np.array(0, np.int64),
        }


BITMASK = FrameEncoding(codec=_BitmaskCodec(), slower=math.inf)
