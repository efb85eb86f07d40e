"""Small plan files that have every kernel, for fuzz_plan.c to damage: `python tests/support/plan_seeds.py FOLDER` writes them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from small_models import make_model

from tdcompress.engine import compile_model
from tdcompress.engine.binding import library


def pruned(shape: tuple[int, ...], zeros: float, seed: int) -> np.ndarray:
    """Random weights of which a share is zero."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * (rng.random(shape) >= zeros)).astype(np.float32)


def convolutions() -> bytes:
    """Dense, sparse, strided, grouped and dilated ones, a residual, a pre-activation unit, pooling."""
    nodes = [
        helper.make_node("Conv", ["x", "stem"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "s", "s", "s", "s"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "sparse"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Conv", ["c", "down"], ["d"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["d", "wide"], ["e"], group=2, dilations=[1, 2], pads=[0, 2, 1, 1]),
        helper.make_node("MaxPool", ["e"], ["m"], kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node("Sigmoid", ["m"], ["g"]),
        helper.make_node("Mul", ["m", "g"], ["h"]),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    constants = {
        "stem": pruned((4, 3, 3, 3), 0, 0),
        "s": np.full(4, 0.5, np.float32),
        "sparse": pruned((4, 4, 3, 3), 0.8, 1),
        "down": pruned((4, 4, 3, 3), 0.8, 2),
        "wide": pruned((6, 2, 3, 2), 0, 3),
    }
    return make_model(nodes, constants, {"x": ["b", 3, 12, 12]})


def rows(height: int = 5, width: int = 7) -> bytes:
    """Moving, resizing, choosing, reducing: for images of six channels of this size."""
    nodes = [
        helper.make_node("Gather", ["x", "picked"], ["a"], axis=1),
        helper.make_node("Resize", ["a", "", "scales"], ["b"], mode="linear"),
        helper.make_node("Less", ["b", "low"], ["c"]),
        helper.make_node("Where", ["c", "low", "b"], ["d"]),
        helper.make_node("ReduceMin", ["d", "axes"], ["e"]),
        helper.make_node("Sub", ["d", "e"], ["f"]),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Pad", ["t", "pads"], ["q"]),
        helper.make_node("Softmax", ["q"], ["y"], axis=-1),
    ]
    constants = {
        "picked": np.array([5, 0, 0, 3]),
        "scales": np.array([1, 1, 2, 1.5], np.float32),
        "low": np.array([[[-0.25]]], np.float32),
        "axes": np.array([1]),
        "pads": np.array([0, 1, 0, 0, 0, 0, 1, 2]),
    }
    return make_model(nodes, constants, {"x": ["b", 6, height, width]}, opset=19)


def tokens() -> bytes:
    """A table's rows, fully connected layers of every kind, attention."""
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"]),
        helper.make_node("MatMul", ["e", "project"], ["q"]),
        helper.make_node("Transpose", ["e"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "t"], ["s"]),
        helper.make_node("Softmax", ["s"], ["w"], axis=-1),
        helper.make_node("MatMul", ["w", "e"], ["a"]),
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("Gemm", ["f", "sparse"], ["g"], transB=1),
        helper.make_node("Tanh", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "dense"], ["y"], transB=1),
    ]
    constants = {
        "table": pruned((7, 8), 0, 4),
        "project": pruned((8, 8), 0, 5),
        "sparse": pruned((20, 40), 0.9, 6),
        "dense": pruned((5, 20), 0, 7),
    }
    return make_model(nodes, constants, {"x": ["b", 5]}, dtype=TensorProto.INT64)


MODELS = (convolutions, rows, tokens)


def main(folder: Path) -> None:
    """One file per network and instruction set of this machine."""
    for make in MODELS:
        for isa in library().instruction_sets:
            compile_model(make(), folder / f"{make.__name__}-{isa.name}.tdc", isa=isa.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
