"""Resizing: to sizes and by scales, in every mode, and what of it is refused."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from small_models import normal

from tdcompress.engine import Session
from tdcompress.errors import UnsupportedError

RNG = np.random.default_rng(11)
floats = partial(normal, RNG)


COORDINATES = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    mode=st.sampled_from(["nearest", "linear", "cubic"]),
    coordinates=st.sampled_from(COORDINATES),
    rounding=st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    resized=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    outside=st.booleans(),
)
def test_resizing_to_sizes(model, check, mode, coordinates, rounding, size, resized, outside):
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    if mode == "cubic":
        attributes["exclude_outside"] = int(outside)
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **attributes)
    sizes = np.array([2, 3, *resized])
    check(model([node], {"sizes": sizes}, {"x": [2, 3, *size]}, opset=19), {"x": floats(2, 3, *size)})


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    mode=st.sampled_from(["nearest", "linear"]),
    coordinates=st.sampled_from([name for name in COORDINATES if name != "align_corners"]),
    scales=st.tuples(st.sampled_from([0.3, 0.5, 0.6, 1.0, 1.5, 2.0, 2.7, 4.0]), st.sampled_from([0.4, 0.5, 1.0, 2.0, 3.0])),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
)
def test_resizing_by_scales(model, check, isa_all, mode, coordinates, scales, size):
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode=mode, coordinate_transformation_mode=coordinates)
    constants = {"scales": np.array([1, 1, *scales], np.float32)}
    data = model([node], constants, {"x": ["b", 3, *size]}, opset=19)
    for name in isa_all:
        check(data, {"x": floats(2, 3, *size)}, name)


def test_resizing_as_torch_writes_it(model, check):
    """Sizes from the input's own shape, the batch from there too."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "two"], ["front"]),
        helper.make_node("Concat", ["front", "back"], ["sizes"], axis=0),
        helper.make_node(
            "Resize", ["x", "", "", "sizes"], ["y"], mode="linear", coordinate_transformation_mode="pytorch_half_pixel"
        ),
    ]
    constants = {"zero": np.array([0]), "two": np.array([2]), "back": np.array([9, 11])}
    data = model(nodes, constants, {"x": ["b", 3, 5, 6]})
    for batch in (1, 3):
        check(data, {"x": floats(batch, 3, 5, 6)})


@pytest.mark.parametrize(
    ("inputs", "constants", "attributes"),
    [
        (["x", "", "s"], {"s": np.array([2, 1, 2, 2], np.float32)}, {}),
        (
            ["x", "", "s"],
            {"s": np.array([1, 1, 0.6, 0.6], np.float32)},
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        ),
        (
            ["x", "r", "s"],
            {"s": np.ones(4, np.float32), "r": np.ones(8, np.float32)},
            {"coordinate_transformation_mode": "tf_crop_and_resize"},
        ),
        (["x", "", "s"], {"s": np.array([1, 1, 0.5, 0.5], np.float32)}, {"mode": "linear", "antialias": 1}),
    ],
)
def test_resizing_that_is_refused(model, inputs, constants, attributes):
    with pytest.raises(UnsupportedError, match="Resize 'r'"):
        Session(model([helper.make_node("Resize", inputs, ["y"], name="r", **attributes)], constants, {"x": ["b", 3, 4, 4]}))
