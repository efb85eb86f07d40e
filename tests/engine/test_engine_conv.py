"""Convolutions: hand-computed numbers, and random shapes against onnxruntime for every instruction set."""

from __future__ import annotations

import contextlib
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tdcompress.engine import Session, explain
from tdcompress.engine.binding import library
from tdcompress.engine.choose import KernelChoice
from tdcompress.engine.lower import conv as lower_conv


def conv_node(**attributes: object):
    return helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attributes)


def test_known_numbers(model):
    """A 3x3 kernel with two weights on a 2x3 image: y[r, c] = 2 x[r, c-1] + 3 x[r+1, c]."""
    w = np.zeros((1, 1, 3, 3), np.float32)
    w[0, 0, 1, 0], w[0, 0, 2, 1] = 2, 3
    x = np.array([[[[1, 2, 3], [4, 5, 6]]]], np.float32)
    data = model([conv_node(pads=[1, 1, 1, 1])], {"w": w}, {"x": ["b", 1, 2, 3]})
    assert Session(data).run(None, {"x": x})[0].tolist() == [[[[12, 17, 22], [0, 8, 10]]]]


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 32, 33, 48, 64, 112, 130])
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_every_row_width(model, check, isa, width, density):
    rng = np.random.default_rng(width)
    w = (rng.standard_normal((23, 3, 3, 3)) * (rng.random((23, 3, 3, 3)) < density)).astype(np.float32)
    w[0] = 0
    data = model([conv_node(pads=[1, 1, 1, 1])], {"w": w}, {"x": ["b", 3, 6, width]})
    assert [layer.kernel for layer in explain(data, isa=isa)] == ["dense" if density == 1 else "sparse"]
    check(data, {"x": rng.standard_normal((2, 3, 6, width)).astype(np.float32)}, isa)


@pytest.mark.parametrize("width", [5, 8, 13, 16, 32, 33, 64])
def test_every_displacement_of_the_lanes(model, isa, width):
    """Filter f has one weight, 1, at column f of 31: it gives the image moved by f - 15 columns, to the last bit."""
    w = np.eye(31, dtype=np.float32).reshape(31, 1, 1, 31)
    x = np.random.default_rng(width).standard_normal((1, 1, 6, width)).astype(np.float32)
    data = model([conv_node(pads=[0, 15, 0, 15])], {"w": w}, {"x": ["b", 1, 6, width]})
    assert [layer.kernel for layer in explain(data, isa=isa)] == ["sparse"]
    padded = np.pad(x[0, 0], ((0, 0), (15, 15)))
    want = np.stack([padded[:, f : f + width] for f in range(31)])
    np.testing.assert_array_equal(Session(data, isa=isa).run(None, {"x": x})[0][0], want)


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 8]))
    kernel = [draw(st.integers(1, 5)) for _ in range(2)]
    dilations = [draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in range(2)]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = [draw(st.integers(0, 4)) for _ in range(4)]
    size = [draw(st.integers(max(1, extent[i] - pads[i] - pads[2 + i]), 40)) for i in range(2)]
    return {
        "groups": groups,
        "inner": draw(st.integers(1, 5)),
        "filters": groups * draw(st.integers(1, 7)),
        "kernel": kernel,
        "dilations": dilations,
        "pads": pads,
        "size": size,
        "strides": [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(2)],
        "density": draw(st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.6, 1.0])),
        "bias": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**20)),
        "isa": draw(st.sampled_from(["best", "avx2", "scalar"])),
        "forced": draw(st.sampled_from(["chosen", "sparse", "dense"])),
    }


@settings(max_examples=300, derandomize=True, deadline=None)
@given(case=convolutions())
def test_random_convolutions(model, check, case):
    rng = np.random.default_rng(case["seed"])
    shape = (case["filters"], case["inner"], *case["kernel"])
    constants = {"w": (rng.standard_normal(shape) * (rng.random(shape) < case["density"])).astype(np.float32)}
    if case["bias"]:
        constants["b"] = rng.standard_normal(case["filters"]).astype(np.float32)
    node = helper.make_node(
        "Conv",
        ["x", *constants],
        ["y"],
        group=case["groups"],
        dilations=case["dilations"],
        pads=case["pads"],
        strides=case["strides"],
    )
    channels = case["groups"] * case["inner"]
    data = model([node], constants, {"x": ["b", channels, *case["size"]]})
    x = rng.standard_normal((2, channels, *case["size"])).astype(np.float32)
    names = [isa.name for isa in library().instruction_sets]
    with contextlib.ExitStack() as forced:
        if case["forced"] != "chosen":
            forced.enter_context(patch.object(lower_conv, "choose_conv", lambda **_: KernelChoice(kernel=case["forced"], why="")))
        check(data, {"x": x}, case["isa"] if case["isa"] in names else None)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_auto_pad(model, check, auto_pad, stride):
    rng = np.random.default_rng(0)
    data = model(
        [conv_node(auto_pad=auto_pad, strides=[stride, stride])],
        {"w": rng.standard_normal((4, 2, 3, 4)).astype(np.float32)},
        {"x": ["b", 2, 9, 12]},
    )
    check(data, {"x": rng.standard_normal((1, 2, 9, 12)).astype(np.float32)})


@pytest.mark.parametrize("stride", [1, 2])
def test_one_dimensional(model, check, stride):
    rng = np.random.default_rng(0)
    data = model(
        [conv_node(pads=[2, 1], strides=[stride])],
        {"w": rng.standard_normal((4, 2, 4)).astype(np.float32)},
        {"x": ["b", 2, 50]},
    )
    check(data, {"x": rng.standard_normal((3, 2, 50)).astype(np.float32)})


def residual_unit(rng: np.random.Generator, *, stride: int, post_activation: bool):
    """Two units as ResNets have them: batch norm, shortcut with its own convolution, then an identity shortcut."""

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    constants = {"w1": normal(6, 4, 3, 3), "w2": normal(6, 6, 3, 3), "ws": normal(6, 4, 1, 1), "w3": normal(6, 6, 3, 3)}
    for w in constants.values():
        w[rng.random(w.shape) < 0.8] = 0
    nodes = []

    def add(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def norm(x, channels, output):
        names = [f"{output}_{k}" for k in ("scale", "shift", "mean", "variance")]
        for name in names:
            constants[name] = np.abs(normal(channels)) + np.float32(0.5)
        return add("BatchNormalization", [x, *names], output)

    pads = [1, 1, 1, 1]
    active = add("Relu", [norm("x", 4, "n0")], "a0")
    shortcut = add("Conv", [active, "ws"], "s", strides=[stride, stride])
    h = add("Conv", [active, "w1"], "c1", pads=pads, strides=[stride, stride])
    h = add("Relu", [norm(h, 6, "n1")], "a1")
    h = add("Conv", [h, "w2"], "c2", pads=pads)
    stream = add("Add", [h, shortcut], "sum1")
    if post_activation:
        stream = add("Relu", [stream], "r1")
    h = add("Conv", [add("Relu", [norm(stream, 6, "n2")], "a2"), "w3"], "c3", pads=pads)
    add("Add", [stream, h], "y")
    return nodes, constants


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("post_activation", [False, True])
@pytest.mark.parametrize("size", [8, 13, 32])
def test_fused_residual_units(model, check, isa, stride, post_activation, size):
    rng = np.random.default_rng(size)
    nodes, constants = residual_unit(rng, stride=stride, post_activation=post_activation)
    data = model(nodes, constants, {"x": ["b", 4, size, size]})
    check(data, {"x": rng.standard_normal((2, 4, size, size)).astype(np.float32)}, isa)


def test_fusion_leaves_one_call_per_convolution(model):
    """Normalisation, activation, shortcut and residual add no calls: a map in, three convolutions, a copy out."""
    nodes, constants = residual_unit(np.random.default_rng(0), stride=1, post_activation=False)
    session = Session(model(nodes, constants, {"x": ["b", 4, 16, 16]}))
    plan = next(iter(session._programs.values())).plan
    assert plan.op_count == 5
    assert [record.layer for record in plan.records] == ["c1", "c2", "c2 (joined shortcut)", "c3"]


def test_explain_tells_zeros_and_kernel(model):
    rng = np.random.default_rng(0)
    w = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    w[:, :, 1:] = 0
    data = model([conv_node()], {"w": w}, {"x": ["b", 8, 16, 16]})
    (record,) = explain(data)
    assert (record.layer, record.op, record.shape, record.weights, record.zeros) == ("conv", "conv", (8, 8, 3, 3), 576, 384)
    assert record.kernel == "sparse"
    assert "66.7 % zeros" in record.why
    (dense,) = explain(model([conv_node()], {"w": np.ones((12, 8, 3, 3), np.float32)}, {"x": ["b", 8, 16, 16]}))
    assert dense.kernel == "dense"


def test_not_a_number_stays_where_it_is(model, check):
    """Padding and masked lanes must not spread a NaN to where the convolution does not read it."""
    rng = np.random.default_rng(0)
    data = model(
        [conv_node(pads=[1, 1, 1, 1])], {"w": rng.standard_normal((3, 2, 3, 3)).astype(np.float32)}, {"x": ["b", 2, 6, 11]}
    )
    x = rng.standard_normal((1, 2, 6, 11)).astype(np.float32)
    x[0, 0, 2, 10] = np.nan
    check(data, {"x": x})


def residual_chain(model, size: int, *, read_again: bool) -> bytes:
    """stem, then two units r -> conv(relu(conv(r))) + r; with read_again the stem's output is added to the end once more."""
    rng = np.random.default_rng(size)
    weights = {f"w{i}": rng.standard_normal((12, 3 if i == 0 else 12, 3, 3)).astype(np.float32) for i in range(5)}
    for name, weight in weights.items():
        if name != "w0":
            weight[rng.random(weight.shape) < 0.9] = 0
    nodes = [helper.make_node("Conv", ["x", "w0"], ["r0"], pads=[1] * 4)]
    for unit in range(2):
        a, b, c = (f"{name}{unit}" for name in "abc")
        nodes += [
            helper.make_node("Conv", [f"r{unit}", f"w{2 * unit + 1}"], [a], pads=[1] * 4),
            helper.make_node("Relu", [a], [b]),
            helper.make_node("Conv", [b, f"w{2 * unit + 2}"], [c], pads=[1] * 4),
            helper.make_node("Add", [c, f"r{unit}"], [f"r{unit + 1}"]),
        ]
    nodes.append(helper.make_node("Add", ["r2", "r0"], ["y"]) if read_again else helper.make_node("Relu", ["r2"], ["y"]))
    return model(nodes, weights, {"x": ["b", 3, size, size]})


@pytest.mark.parametrize("size", [7, 8, 16, 20])
@pytest.mark.parametrize("read_again", [False, True])
def test_a_residual_is_overwritten_only_when_nobody_reads_it_again(model, check, isa, size, read_again):
    data = residual_chain(model, size, read_again=read_again)
    x = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    check(data, {"x": x}, isa=isa)
    if read_again:
        assert (
            Session(data).memory_bytes()["arena"] > Session(residual_chain(model, size, read_again=False)).memory_bytes()["arena"]
        )


@pytest.mark.parametrize("height", [13, 15, 16])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_strides_from_16_columns_to_8(model, check, isa, height, kernel, zeros):
    rng = np.random.default_rng(height)
    w = rng.standard_normal((6, 4, kernel, kernel)).astype(np.float32)
    w[rng.random(w.shape) < zeros] = 0
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["c"], strides=[2, 2], pads=[kernel // 2] * 4),
        helper.make_node("Conv", ["c", "v"], ["y"], pads=[2] * 4),
    ]
    v = rng.standard_normal((5, 6, 5, 5)).astype(np.float32)
    x = rng.standard_normal((2, 4, height, 16)).astype(np.float32)
    check(model(nodes, {"w": w, "v": v}, {"x": ["b", 4, height, 16]}), {"x": x}, isa=isa)
