"""step4: half a byte a value says how many places after the last one it comes, 1 to 15. Best up to about 70 % zeros.

A value that is farther away needs a zero in between that is kept like a value. Up to 70 % zeros there are hardly any, and the
decoder is short: nothing to tell apart, no values to pick, so a runtime folds it in half of gap4's time.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tdcompress.onnxfile.encodings.frame import Codes, Encoded, FrameEncoding, Positions, scatter
from tdcompress.onnxfile.encodings.names import Names
from tdcompress.onnxfile.tensors import Array

_LONGEST = 15


class _StepCodec:
    zero_first = False

    def encode(self, positions: Positions, total: int) -> Encoded:
        """See `Codec`; an odd number of codes is filled up by a zero right after the last value."""
        steps = np.diff(positions, prepend=-1)
        far = (steps - 1) // _LONGEST
        codes = np.full(positions.size + int(far.sum()), _LONGEST, np.uint8)
        own = np.cumsum(far + 1) - 1  # where in `codes` the values are; the others are fillers
        codes[own] = steps - far * _LONGEST
        codes = np.append(codes, np.ones(codes.size % 2, np.uint8))
        places = np.cumsum(codes, dtype=np.int64) - 1
        high, low = codes.reshape(2, -1)
        pairs = np.bitwise_or(high << 4, low, dtype=np.uint8)
        after = max(0, int(places[-1]) + 1 - total) if places.size else 0
        return Encoded(codes=pairs, before=1, after=after, fillers=np.delete(places, own))

    def decode(self, codes: Codes, total: int) -> Positions:
        """See `Codec`."""
        flat = codes.reshape(-1)
        places: Positions = np.cumsum(np.concatenate([flat >> 4, flat & 15]), dtype=np.int64) - 1
        return places

    def nodes(self, names: Names, dtype: np.dtype[Any], length: int) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
        """See `Codec`."""
        tail, constants = scatter(names, dtype, length, "values")
        constants |= {"axis": np.array(0, np.int64), "four": np.array(4, np.uint8), "base": np.array(16, np.uint8)}
        nodes = [
            names.node("BitShift", "codes four", "high", direction="RIGHT"),
            names.node("Mod", "codes base", "low"),
            names.node("Concat", "high low", "nibbles", axis=0),
            names.node("Cast", "nibbles", "steps", to=TensorProto.INT32),
            names.node("CumSum", "steps axis", "places"),
            *tail,
        ]
        return nodes, constants


STEP4 = FrameEncoding(codec=_StepCodec(), slower=0.0)
