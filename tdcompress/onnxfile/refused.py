"""Why onnxruntime does not load a file, in words of ours, where we know."""

from __future__ import annotations

from pathlib import Path

import onnx

from tdcompress.onnxfile.float64 import not_in_float64

COMPILED = "EPContext"
"""Operator that holds what `tdcompress compile`, or another program, made of a network for one plugin of onnxruntime."""


def why_refused(error: Exception, model: onnx.ModelProto | Path) -> str:
    """What is behind an error of onnxruntime's, and what to do; "" where nothing is known.

    Args:
        error: onnxruntime's.
        model: the model, or its file, which onnx has read before.
    """
    if COMPILED in str(error):
        return (
            "it is compiled, and runs where the plugin that it was made for is registered (docs/provider.md); give the file that "
            "it was made of"
        )
    if isinstance(model, Path) and any("\udc80" <= letter <= "\udcff" for letter in str(model)):  # how Python reads other bytes
        return "the name of the file, or of a folder that it is in, is not UTF-8, which onnxruntime asks for: rename it"
    return not_in_float64(error, model)
