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
from tdcompress.onnxfile.prepare import LOWEST_OPSET

FOLDED_BY_TRANSLATION = ("Shape", "Size")
"""Known without computing anything (translate.py)."""

NOTES: Mapping[str, str] = MappingProxyType(
    {
        "Add": "so Sub, Mul, Div, Max, Min, Sum, Mean, Pow, comparisons, logic and Where: computed operands of one rank, "
        "constants the same for every image",
        "Equal": "so Less, Greater and the like: floats and small integers; wide integers with a constant below 2^24",
        "Expand": "so Tile: not the batch",
        "Gather": "rows of a constant table by computed numbers (embeddings), or computed data by constant indices",
        "BatchNormalization": "in evaluation mode",
        "Cast": "to float32 and bool; of bools and integers to wider integers",
        "Concat": "constants too, if they are the same for every image",
        "Conv": "one or two spatial axes; any kernel, stride, padding, dilation and groups; constant weights",
        "Dropout": "in evaluation mode: nothing",
        "Gelu": "with erf",
        "Gemm": "constant weights; not transA",
        "MatMul": "of an input with a constant on either side, or of two computed tensors with the same leading axes",
        "MaxPool": "so AveragePool: one or two spatial axes; without indices",
        "Pad": "constant, reflect, edge; negative pads with constant",
        "ReduceMean": "so all of Reduce: over named axes of an image",
        "Resize": "nearest, linear, cubic; no antialiasing, no tf_crop_and_resize",
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
        f"Opsets {OLDEST_OPSET} to {NEWEST_OPSET} of the standard domain; older ones are raised to {LOWEST_OPSET} by onnx's "
        f"converter. Inputs: {_names(DTYPES)}; outputs: `float32`. Integers and bools may be looked up, compared, "
        "chosen by, moved and cast, not computed with.",
        "",
        "`If` is settled when the model is loaded: its condition must be a constant, or follow from the shapes of the inputs.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(supported_text(), end="")
