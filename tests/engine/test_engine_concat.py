"""Concatenation over channels, whatever its parts are and whoever reads the result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tdcompress.engine.binding import library

FLOAT = np.float32


def floats(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(FLOAT)


READERS = {
    "max pool": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "max pool unpadded": ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "average pool": ("AveragePool", {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]}),
    "global average": ("GlobalAveragePool", {}),
    "global max": ("GlobalMaxPool", {}),
    "conv": ("Conv", {"pads": [1, 1, 1, 1]}),
    "conv unpadded": ("Conv", {}),
    "strided conv": ("Conv", {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "strided conv unpadded": ("Conv", {"strides": [2, 2]}),
    "sigmoid": ("Sigmoid", {}),
    "batch norm": ("BatchNormalization", {}),
    "add": ("Add", {}),
    "mean": ("ReduceMean", {"axes": [1]}),
    "transpose": ("Transpose", {"perm": [0, 2, 3, 1]}),
    "flatten": ("Flatten", {}),
    "softmax": ("Softmax", {"axis": 1}),
    "concat": ("Concat", {"axis": 1}),
    "output": ("Identity", {}),
}


def concat_model(model, reader: str, parts: list[tuple[int, int]], size: tuple[int, int], after: str | None = None) -> bytes:
    """x (B, 3, H, W) -> a convolution per part (filters, kernel 1 or 3, same size) -> Concat -> a reader -> perhaps a pool."""
    constants: dict[str, np.ndarray] = {}
    nodes = []
    for index, (filters, kernel) in enumerate(parts):
        constants[f"w{index}"] = floats(index, filters, 3, kernel, kernel)
        nodes.append(helper.make_node("Conv", ["x", f"w{index}"], [f"p{index}"], pads=[kernel // 2] * 4))
    nodes.append(helper.make_node("Concat", [f"p{index}" for index in range(len(parts))], ["all"], axis=1))
    channels = sum(filters for filters, _ in parts)
    op, attributes = READERS[reader]
    inputs = ["all"]
    if op == "Conv":
        constants["w"], inputs = floats(99, 5, channels, 3, 3), ["all", "w"]
    if op == "BatchNormalization":
        constants.update({name: np.abs(floats(i, channels)) + FLOAT(0.5) for i, name in enumerate("abcd")})
        inputs = ["all", *"abcd"]
    if op == "Add":
        constants["w"], inputs = floats(99, channels, 3, 1, 1), ["all", "z"]
        nodes.append(helper.make_node("Conv", ["x", "w"], ["z"]))
    if op == "Concat":
        inputs = ["all", "x", "all"]
    nodes.append(helper.make_node(op, inputs, ["y" if after is None else "t"], **attributes))
    if after is not None:
        nodes.append(helper.make_node(after, ["t"], ["y"]))
    return model(nodes, constants, {"x": ["b", 3, *size]}, opset=17)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("size", [(28, 28), (14, 14), (7, 7), (9, 5)])
def test_every_reader_of_a_concatenation(model, check, isa, reader, size):
    data = concat_model(model, reader, [(16, 1), (24, 3), (8, 1)], size)
    check(data, {"x": floats(1, 2, 3, *size)}, isa)


@st.composite
def concatenations(draw):
    return {
        "reader": draw(st.sampled_from(sorted(READERS))),
        "parts": draw(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([1, 3])), min_size=1, max_size=4)),
        "size": (draw(st.integers(3, 33)), draw(st.integers(3, 33))),
        "after": draw(st.sampled_from([None, "Relu", "Sigmoid"])),
        "isa": draw(st.sampled_from(["best", "avx2", "scalar"])),
    }


@settings(max_examples=80, derandomize=True, deadline=None)
@given(case=concatenations())
def test_random_concatenations(model, check, case):
    data = concat_model(model, case["reader"], case["parts"], case["size"], case["after"])
    isa = case["isa"] if case["isa"] in [found.name for found in library().instruction_sets] else None
    check(data, {"x": floats(2, 2, 3, *case["size"])}, isa)


def test_inception_modules_with_a_pool_between_them(model, check, isa):
    """Four branches per module as in GoogLeNet, the last a pool and a 1x1 convolution; max pools and a global pool in between."""
    constants: dict[str, np.ndarray] = {}
    nodes = []

    def conv(x: str, name: str, channels: int, filters: int, kernel: int) -> str:
        constants[f"{name}.w"] = floats(len(constants), filters, channels, kernel, kernel) / FLOAT(np.sqrt(channels * kernel**2))
        nodes.append(helper.make_node("Conv", [x, f"{name}.w"], [f"{name}.c"], pads=[kernel // 2] * 4))
        nodes.append(helper.make_node("Relu", [f"{name}.c"], [name]))
        return name

    def module(x: str, name: str, channels: int) -> str:
        branches = [
            conv(x, f"{name}.1", channels, 16, 1),
            conv(conv(x, f"{name}.2a", channels, 12, 1), f"{name}.2b", 12, 24, 3),
            conv(conv(x, f"{name}.3a", channels, 4, 1), f"{name}.3b", 4, 8, 5),
        ]
        nodes.append(
            helper.make_node("MaxPool", [x], [f"{name}.p"], kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1], ceil_mode=1)
        )
        branches.append(conv(f"{name}.p", f"{name}.4", channels, 8, 1))
        nodes.append(helper.make_node("Concat", branches, [name], axis=1))
        return name

    def pool(x: str, name: str) -> str:
        nodes.append(helper.make_node("MaxPool", [x], [name], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1))
        return name

    x = pool(module(module("x", "a", 6), "b", 56), "p")
    x = pool(module(x, "c", 56), "q")
    nodes.append(helper.make_node("GlobalAveragePool", [module(x, "d", 56)], ["g"]))
    nodes.append(helper.make_node("Flatten", ["g"], ["y"]))
    check(model(nodes, constants, {"x": ["b", 6, 28, 28]}), {"x": floats(5, 3, 6, 28, 28)}, isa)
