"""What the engine runs, as text: read from the registries, so that docs/engine.md cannot say anything else.

`python -m tdcompress.engine.supported` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable

from tdcompress.engine.binding import DTYPES
from tdcompress.engine.constants.evaluate import EVALUATORS
from tdcompress.engine.read import NEWEST_OPSET, OLDEST_OPSET
from tdcompress.engine.translate.graph import TRANSLATORS
from tdcompress.onnxfile.prepare import LOWEST_OPSET

FOLDED_BY_TRANSLATION = ("Shape", "Size")
"""Known without computing anything (translate/graph.py)."""

NOTES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Pow", "And", "Or", "Xor", "Where"),
        "computed operands have one rank; constants are the same for every image",
    ),
    (("BatchNormalization",), "in evaluation mode"),
    (("Cast",), "to float32 and bool; of bools and integers also to wider integers"),
    (("Concat",), "also of constants that are the same for every image"),
    (("Conv",), "one or two spatial axes; any kernel, stride, padding, dilation and groups; constant weights"),
    (("Dropout",), "in evaluation mode, where it does nothing"),
    (
        ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
        "as Add; of floats and small integers, and of wide integers with a constant below 2^24",
    ),
    (("Expand", "Tile"), "along any axis but the batch"),
    (("Gather",), "rows of a constant table by computed numbers (embeddings), or computed data by constant indices"),
    (("Gelu",), "the exact form, with erf"),
    (("Gemm",), "constant weights; not transA"),
    (
        ("MatMul",),
        "of an input with a constant on either side, or of two computed tensors with the same leading axes; a constant on the "
        "left also of an input with the batch behind",
    ),
    (("MaxPool", "AveragePool"), "one or two spatial axes; without indices"),
    (("Pad",), "constant, reflect and edge; negative pads with constant only"),
    (
        ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"),
        "over named axes of an image",
    ),
    (("Flatten", "Squeeze", "Unsqueeze", "Slice", "Split"), "the batch stays first and whole"),
    (
        ("Reshape", "Transpose"),
        "the batch stays whole; it may be joined with the axis behind it, and be another axis than the first, for operators that "
        "work on each number alone, `MatMul`, `Reshape` and `Transpose`",
    ),
    (("Resize",), "nearest, linear and cubic; no antialiasing, no tf_crop_and_resize"),
)
"""Operators of which not everything is handled, and what of them is."""


def _names(names: Iterable[str]) -> str:
    return _listed(sorted(names))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def supported_text() -> str:
    """Operators, opsets and input types, as markdown."""
    folded = (*(name for name in EVALUATORS if name not in TRANSLATORS), *FOLDED_BY_TRANSLATION)
    lines = [
        f"Operators: {_names(TRANSLATORS)}.",
        "",
        *(f"- {_listed(operators)}: {note}." for operators, note in NOTES),
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
