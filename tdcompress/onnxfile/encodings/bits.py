"""Codes of 4, 6 or 8 bits in bytes, and the standard operators that take them out again as int32.

Codes stand in rows of equal length, so that a runtime's loops are long. Of 4 bits, two rows share bytes. Of 6 bits, three of
four rows have a byte each, and the fourth, cut in three, fills their highest bits. ONNX's own uint4 type would need opset 21.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from tdcompress.errors import ModelError
from tdcompress.onnxfile.encodings.names import Names
from tdcompress.onnxfile.tensors import Array

Codes = npt.NDArray[np.uint8]

SHARING: Mapping[int, int] = MappingProxyType({4: 2, 6: 4, 8: 1})
"""Bits of a code -> the number of codes that share bytes, which the number of all codes is a multiple of."""
_CUTS = np.array([[0], [2], [4]], np.uint8)  # where the fourth row's bits are cut


def join(codes: Codes, bits: int) -> Codes:
    """Codes below 2^bits, (K,), in bytes: (K / 2,) of 4 bits, (3, K / 4) of 6, (K,) of 8.

    Args:
        codes: a multiple of `SHARING[bits]`.
        bits: 4, 6 or 8.
    """
    if bits == 8:
        return codes
    rows = codes.reshape(SHARING[bits], -1)
    if bits == 4:
        joined: Codes = np.bitwise_or(rows[0] << 4, rows[1], dtype=np.uint8)
    else:
        joined = np.bitwise_or(rows[:3], (rows[3:] >> _CUTS & 3) << 6, dtype=np.uint8)
    return joined


def part(joined: Codes, bits: int) -> Codes:
    """The codes that `join` was given.

    Raises:
        ModelError: six bits do not come in threes.
    """
    if bits == 8:
        return joined.reshape(-1)
    if bits == 4:
        return np.concatenate([joined >> 4, joined & 15], axis=None)
    if joined.size % 3:
        raise ModelError("their codes are cut off; the file is damaged")
    rows = joined.reshape(3, -1)
    last = np.bitwise_or.reduce(rows >> 6 << _CUTS, axis=0)
    return np.concatenate([rows & 63, last], axis=None).astype(np.uint8)


def part_nodes(names: Names, bits: int, source: str, target: str) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Nodes from joined codes to int32 (K,), and their constants, which several can share.

    Args:
        names: gives full names.
        bits: 4, 6 or 8.
        source: name of the bytes; names between begin with it.
        target: name of the codes.
    """
    low, high, whole = (f"{source}{step}" for step in ("l", "h", "w"))
    if bits == 8:
        return [names.node("Cast", source, target, to=TensorProto.INT32)], {}
    if bits == 4:
        return [
            names.node("BitShift", f"{source} four", high, direction="RIGHT"),
            names.node("Mod", f"{source} sixteen", low),
            names.node("Concat", f"{high} {low}", whole, axis=0),
            names.node("Cast", whole, target, to=TensorProto.INT32),
        ], {"four": np.array(4, np.uint8), "sixteen": np.array(16, np.uint8)}
    return [
        names.node("Mod", f"{source} sixtyfour", low),
        names.node("Reshape", f"{low} row", f"{low}r"),
        names.node("Cast", f"{low}r", f"{low}i", to=TensorProto.INT32),
        names.node("BitShift", f"{source} six", high, direction="RIGHT"),
        names.node("Cast", high, f"{high}i", to=TensorProto.INT32),
        names.node("MatMul", f"quarters {high}i", whole),  # (3,) by (3, n) gives (n,)
        names.node("Concat", f"{low}i {whole}", target, axis=0),
    ], {
        "sixtyfour": np.array(64, np.uint8),
        "six": np.array(6, np.uint8),
        "row": np.array([-1], np.int64),
        "quarters": np.array([1, 4, 16], np.int32),
    }
