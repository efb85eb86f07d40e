"""What the engine runs, as text: read from the registries, so that docs/engine.md cannot say anything else.

`python -m tdcompress.engine.supported` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from tdcompress.engine.binding import DTYPES
from tdcompress.engine.constants import EVALUATORS
from tdcompress.engine.read import NEWEST_OPSET, OLDEST_OPSET
from tdcompress.engine.translate import TRANSLATORS

FOLDED_BY_TRANSLATION = ("Shape", "Size")
"""Known without computing anything (translate.py)."""

NOTES: Mapping[str, str] = MappingProxyType(
    {
        "Add": "so Sub, Mul, Div, Max, Min, Pow: two operands; computed ones of one rank, constants the same for every image",
        "BatchNormalization": "in evaluation mode",
        "Cast": "of an input to float32",
        "Concat": "constants too, if they are the same for every image",
        "Conv": "one or two spatial axes; any kernel, stride, padding, dilation and groups; constant weights",
        "Dropout": "in evaluation mode: nothing",
        "Gelu": "with erf",
        "Gemm": "constant weights; not transA",
        "MatMul": "of an input with a constant on either side, or of two computed tensors with the same leading axes",
        "MaxPool": "so AveragePool: one or two spatial axes; without indices",
        "Pad": "constant, reflect, edge; negative pads with constant",
        "ReduceMean": "so ReduceMax, ReduceSum: over named axes of an image",
        "Reshape": "so Flatten, Squeeze, Unsqueeze, Transpose, Slice, Split: the batch stays first and whole",
    }
)
"""Per operator, what of it is handled, where that is not all."""


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def supported_text() -> str:
    """Operators, opsets and input types, as markdown."""
    folded = (*(name for name in EVALUATORS if name not in TRANSLATORS), *FOLDED_BY_TRANSLATION)
    lines = [
        f"Operators: {_names(TRANSLATORS)}.",
        "",
        *(f"- `{name}`: {note}." for name, note in sorted(NOTES.items())),
        "",
        f"On constants, when the model is loaded, also: {_names(folded)}.",
        "",
        f"Opsets {OLDEST_OPSET} to {NEWEST_OPSET} of the standard domain. Inputs: {_names(DTYPES)}; outputs: `float32`.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(supported_text(), end="")
