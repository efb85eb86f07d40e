"""Weights of ONNX files, as tests compare them."""

from typing import Any

import onnx
from numpy.typing import NDArray

from tdcompress.onnxfile.weights import stored_weights


def dense_initializers(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Every weight as it is once decoded, by its full name."""
    return {weight.full_name: weight.array for weight in stored_weights(model)}
