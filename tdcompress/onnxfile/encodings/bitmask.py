"""bitmask: one bit an element, set where a value is; first element in the highest bit. Best below about 75 % zeros.

Its decoder works on every element, not on every value, so it loads more slowly than the gap encodings.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tdcompress.onnxfile.encodings.frame import Codes, FrameEncoding, Names, Positions
from tdcompress.onnxfile.tensors import Array


class _BitmaskCodec:
    def encode(self, positions: Positions, total: int) -> tuple[Codes, int]:
        bits = np.zeros(total, np.uint8)
        bits[positions] = 1
        codes = np.packbits(bits)
        return codes[:, np.newaxis], 8 * codes.size

    def decode(self, codes: Codes, total: int) -> Positions:
        return np.flatnonzero(np.unpackbits(codes.reshape(-1)))

    def nodes(self, names: Names, dtype: np.dtype[Any], length: int) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
        nodes = [
            names.node("BitShift", "codes shifts", "shifted", direction="RIGHT"),  # (n, 1) by (8,) gives (n, 8)
            names.node("Mod", "shifted two", "bits"),
            names.node("Reshape", "bits row", "flat_bits"),
            names.node("Cast", "flat_bits", "ones", to=TensorProto.INT32),
            names.node("CumSum", "ones axis", "counts"),
            names.node("Mul", "counts ones", "order"),  # an unset bit reads values[0], the zero
            names.node("Gather", "values order", "flat"),
        ]
        return nodes, {
            "shifts": np.arange(7, -1, -1, dtype=np.uint8),
            "two": np.array(2, np.uint8),
            "row": np.array([-1], np.int64),
            "axis": np.array(0, np.int64),
        }


BITMASK = FrameEncoding(codec=_BitmaskCodec(), loads_fast=False)
