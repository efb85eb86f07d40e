"""How the kept values of a section are stored where not as numbers of their own: few bits each, and a table a weight.

Every kept value has a code, and every weight has a table. All tables stand one after the other, so each value has to find its
own. A step is put at the first value of each weight. The running sum of steps is where the table of a value begins.

| node | gives, for weights of 2 and 3 kept values with tables of 16 |
|---|---|
| ScatterElements of steps 1 16 at starts 1 3 into zeros | `marks = 0 1 0 16 0 0` |
| CumSum(marks) | `offsets = 0 1 1 17 17 17` |

Entry 0 of the tables is a 0: codes without a value read it. onnxruntime folds these operators when it loads a file; it would run
DequantizeLinear on every call.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import TensorProto, helper

from tdcompress.errors import ModelError
from tdcompress.onnxfile.encodings.names import Names
from tdcompress.onnxfile.levels import codebook, grid_scale, nearest_level
from tdcompress.onnxfile.tensors import Array

Constants = dict[str, Array]
_HALF = 4  # bits of a code that shares its byte


class Form(Protocol):
    """Float32 values <-> codes and tables. A table is found from the rounded values alone, so nothing else has to be kept."""

    @property
    def code(self) -> str:
        """What names of a section hold for it."""

    @property
    def bits(self) -> int:
        """Of a code: 4 or 8."""

    @property
    def has_zero(self) -> bool:
        """Whether a value 0 among others costs no level, as encodings need that keep some zeros."""

    def rounded(self, kept: Array) -> Array:
        """The values that come back, float32 (K,); `kept`, float32 (K,), are such as `refusal` lets through."""

    def refusal(self, kept: Array) -> str:
        """Why values cannot be rounded, "" where they can.

        Args:
            kept: float32 (K,), finite, not 0; no fewer than 2 of them differ.
        """

    def table(self, rounded: Array) -> Array:
        """Float32, (entries,): of the values of one weight, at least one."""

    def codes(self, rounded: Array, table: Array) -> Array:
        """One a value, (K,): uint8 below 2^bits, or int8.

        Args:
            rounded: values that `rounded` gave, float32 (K,).
            table: that of `table`, float32 (entries,).
        """

    def values(self, codes: Array, tables: Array, offsets: Array) -> Array:
        """What the nodes compute.

        Args:
            codes: one a value, (K,).
            tables: of all weights, one after the other, float32 (T,).
            offsets: where the table of each value begins, int64 (K,).

        Returns:
            float32 (K,).

        Raises:
            IndexError: a code is beyond the tables.
        """

    def nodes(self, names: Names) -> tuple[list[onnx.NodeProto], Constants]:
        """From "whole" codes, "offsets" and "tables" to "values"; codes of 4 bits are uint8, of 8 bits int8."""

    def entropy(self, rounded: Array) -> tuple[float, int]:
        """(bits of a value, bytes of the table) in the bound."""


@dataclass(frozen=True)
class _Codebook:
    code = "c4"
    bits = _HALF
    has_zero = False

    def rounded(self, kept: Array) -> Array:
        levels = codebook(kept, 1 << self.bits)
        return np.take(levels, nearest_level(kept, levels))

    def refusal(self, kept: Array) -> str:
        return ""

    def table(self, rounded: Array) -> Array:
        return np.unique(rounded)

    def codes(self, rounded: Array, table: Array) -> Array:
        return np.searchsorted(table, rounded).astype(np.uint8)

    def values(self, codes: Array, tables: Array, offsets: Array) -> Array:
        return np.take(tables, offsets + codes)

    def nodes(self, names: Names) -> tuple[list[onnx.NodeProto], Constants]:
        return [
            names.node("Cast", "whole", "entries", to=TensorProto.INT32),
            names.node("Add", "offsets entries", "chosen"),
            names.node("Gather", "tables chosen", "values"),
        ], {}

    def entropy(self, rounded: Array) -> tuple[float, int]:
        levels = np.unique(rounded)
        return float(np.log2(max(1, levels.size))), levels.nbytes


@dataclass(frozen=True)
class _Integers:
    """Whole multiples of one scale a weight, from -top to top; half bytes hold them 8 higher."""

    code: str
    bits: int
    has_zero = True

    @property
    def top(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def lift(self) -> int:
        return 8 if self.bits == _HALF else 0

    def rounded(self, kept: Array) -> Array:
        scale = self.table(kept)
        return np.rint(kept / scale).astype(np.float32) * scale + np.float32(0)  # -0.0 becomes 0.0

    def refusal(self, kept: Array) -> str:
        largest = float(np.abs(kept).max())
        if 1e-30 < largest < 1e30:  # so that scales and products are normal numbers, and exact
            return ""
        return f"its largest value is of size {largest:.3g}; integers are for 1e-30 to 1e30"

    def table(self, rounded: Array) -> Array:
        return np.array([grid_scale(rounded, self.top)])

    def codes(self, rounded: Array, table: Array) -> Array:
        whole = np.clip(np.rint(rounded / table), -self.top, self.top) + self.lift
        return whole.astype(np.uint8 if self.lift else np.int8)

    def values(self, codes: Array, tables: Array, offsets: Array) -> Array:
        return (codes.astype(np.float32) - np.float32(self.lift)) * tables[offsets]

    def nodes(self, names: Names) -> tuple[list[onnx.NodeProto], Constants]:
        constants: Constants = {"middle": np.array(self.lift, np.float32)} if self.lift else {}
        lower = [names.node("Sub", "wide middle", "multiples")] if self.lift else []
        return [
            names.node("Cast", "whole", "wide" if self.lift else "multiples", to=TensorProto.FLOAT),
            *lower,
            names.node("Gather", "tables offsets", "scales"),
            names.node("Mul", "multiples scales", "values"),
        ], constants

    def entropy(self, rounded: Array) -> tuple[float, int]:
        return float(self.bits), 4


FORMS: Mapping[str, Form] = MappingProxyType(
    {"codebook16": _Codebook(), "int8-kept": _Integers("q8", 8), "int4-kept": _Integers("q4", _HALF)}
)
"""As `pack --values` and `export.values` name them."""


def write_form(form: Form, names: Names, lead: int, pieces: Sequence[Array]) -> tuple[list[onnx.NodeProto], Constants]:
    """Nodes that make "values" known, and their constants.

    Args:
        form: how values are stored.
        names: gives full names.
        lead: how many zeros "values" starts with, 0 or 1.
        pieces: the values of each weight, float32 (K,).
    """
    starts = lead + np.cumsum([0, *(piece.size for piece in pieces)])
    present = [(start, piece) for start, piece in zip(starts[:-1], pieces, strict=True) if piece.size]
    tables = [np.zeros(1, np.float32), *(form.table(piece) for _, piece in present)]
    coded = [form.codes(piece, table) for (_, piece), table in zip(present, tables[1:], strict=True)]
    codes = np.concatenate([form.codes(np.zeros(lead, np.float32), np.ones(1, np.float32)), *coded])
    unpack, constants = _halved(names, codes) if form.bits == _HALF else ([], {"whole": codes})
    constants |= {
        "count": np.array([codes.size + codes.size % 2 if unpack else codes.size], np.int64),
        "starts": np.array([start for start, _ in present], np.int32),
        "jumps": np.array([table.size for table in tables[:-1]], np.int32),
        "tables": np.concatenate(tables),
        "axis": np.array(0, np.int64),
    }
    none = helper.make_tensor("", TensorProto.INT32, [1], bytes(4), raw=True)
    nodes, more = form.nodes(names)
    return [
        *unpack,
        names.node("ConstantOfShape", "count", "unmarked", value=none),
        names.node("ScatterElements", "unmarked starts jumps", "marks"),
        names.node("CumSum", "marks axis", "offsets"),
        *nodes,
    ], constants | more


def _halved(names: Names, codes: Array) -> tuple[list[onnx.NodeProto], Constants]:
    """Two codes a byte, the first half of them in the high halves; and the nodes from there to "whole"."""
    high, low = np.append(codes, np.zeros(codes.size % 2, np.uint8)).reshape(2, -1)
    nodes = [
        names.node("BitShift", "kept halves", "kept_shifted", direction="RIGHT"),  # (1, n) by (2, 1) gives (2, n)
        names.node("Mod", "kept_shifted base", "kept_pairs"),
        names.node("Reshape", "kept_pairs row", "whole"),
    ]
    return nodes, {
        "kept": np.bitwise_or(high << 4, low, dtype=np.uint8)[np.newaxis],
        "halves": np.array([[4], [0]], np.uint8),
        "base": np.array(16, np.uint8),
        "row": np.array([-1], np.int64),
    }


def read_form(form: Form, constant: Callable[[str, np.dtype[Any]], Array]) -> Array:
    """The "values" that `write_form` made known, perhaps one more; what a crafted file says is checked before it is used.

    Args:
        form: how values are stored.
        constant: (name, element type) -> the constant; raises KeyError or ModelError.

    Raises:
        ModelError: starts, tables and codes do not fit.
    """
    if form.bits == _HALF:
        pairs = constant("kept", np.dtype(np.uint8)).reshape(-1)
        codes = np.concatenate([pairs >> 4, pairs & 15])
    else:
        codes = constant("whole", np.dtype(np.int8)).reshape(-1)
    starts, jumps = (constant(name, np.dtype(np.int32)).reshape(-1).astype(np.int64) for name in ("starts", "jumps"))
    tables = constant("tables", np.dtype(np.float32)).reshape(-1)
    inside = starts.size == jumps.size and np.all((starts >= 0) & (starts < codes.size)) and np.all(jumps > 0)
    if not inside or jumps.sum() >= tables.size:
        raise ModelError("their tables are damaged")
    marks = np.zeros(codes.size, np.int64)
    marks[starts] = jumps
    offsets = np.cumsum(marks)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            values = form.values(codes, tables, offsets)
    except IndexError as error:
        raise ModelError("a value is in none of their tables; the file is damaged") from error
    if not np.isfinite(values).all():
        raise ModelError("their tables hold NaN or infinity; the file is damaged")
    return values
