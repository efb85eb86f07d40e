from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

MakeModel = Callable[..., Path]


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Write a small network: input (B, 4) -> Gemm with `hidden` units -> Relu -> Gemm -> logits (B, 3)."""

    def make(
        name: str = "dense.onnx",
        hidden: int = 8,
        shape: tuple[object, ...] = ("batch", 4),
        input_name: str = "input",
        tiny_weights: int = 0,
    ) -> Path:
        generator = np.random.default_rng(hidden)
        first = generator.standard_normal((4, hidden)).astype(np.float32)
        first.reshape(-1)[:tiny_weights] = 1e-40
        second = generator.standard_normal((hidden, 3)).astype(np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("Gemm", [input_name, "first"], ["hidden"]),
                helper.make_node("Relu", ["hidden"], ["kept"]),
                helper.make_node("Gemm", ["kept", "second"], ["logits"]),
            ],
            "tiny",
            [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (shape[0], 3))],
            [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return make
