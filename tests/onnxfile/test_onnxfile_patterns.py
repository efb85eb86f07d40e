"""The bound of a weight whose zeros follow a pattern counts the pattern's positions, not those of single weights."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.onnxfile.inspect import inspect_model
from tdcompress.onnxfile.metadata import GRANULARITY, set_metadata
from tdcompress.onnxfile.patterns import pattern_bounds

ENTROPY = 0.25 * 2 + 0.75 * math.log2(4 / 3)  # of a quarter kept, bits


def two_of_four(filters: int = 8, channels: int = 12) -> np.ndarray:
    """Bool (O, I, 3, 3): of every four neighbouring input channels two are kept, each filter's own."""
    pairs = np.array([(True, True, False, False), (True, False, False, True), (False, True, True, False)])
    chosen = pairs[np.arange(filters * 9 * channels // 4) % 3].reshape(filters, 3, 3, channels)
    return np.moveaxis(chosen, -1, 1)


def blocks(filters: int = 8, weights: int = 16) -> np.ndarray:
    """Bool (O, I): four neighbouring filters keep the same quarter."""
    kept = np.zeros((filters // 4, weights), bool)
    kept[:, ::4] = True
    return np.repeat(kept, 4, 0)


def test_two_of_four_take_one_of_six_pairs_a_group() -> None:
    kept = two_of_four()
    (bound,) = pattern_bounds(kept, 4, "2:4")
    assert bound == pytest.approx(432 * 4 + 216 * math.log2(6) / 8)
    kept[0, :4, 0, 0] = False  # a group with fewer: its pair is chosen all the same
    assert list(pattern_bounds(kept, 4, "2:4")) == [bound]
    kept[0, :3, 0, 0] = True
    assert list(pattern_bounds(kept, 4, "2:4")) == []


def test_linear_weights_that_an_exporter_transposed_follow_it_too() -> None:
    kept = two_of_four()[:, :, 0, 0]  # 8 x 12
    (bound,) = pattern_bounds(kept.T, 4, "2:4")
    assert bound == pytest.approx(48 * 4 + 24 * math.log2(6) / 8)


def test_blocks_have_a_quarter_of_the_positions() -> None:
    assert min(pattern_bounds(blocks(), 2, "1x4")) == pytest.approx(32 * 2 + 32 * ENTROPY / 8)
    assert min(pattern_bounds(blocks().T, 2, "1x4")) == pytest.approx(32 * 2 + 32 * ENTROPY / 8)


@pytest.mark.parametrize(
    ("pattern", "shape"), [("weight", (4, 4)), ("", (4, 4)), ("2:4", (4,)), ("1x4", (3, 5)), ("2:4", (6, 6))]
)
def test_what_follows_no_pattern_has_no_such_bound(pattern: str, shape: tuple[int, ...]) -> None:
    assert list(pattern_bounds(np.zeros(shape, bool), 4, pattern)) == []


@pytest.mark.parametrize(
    ("pattern", "bound"),
    [("2:4", 432 * 4 + 216 * math.log2(6) / 8), ("weight", 432 * 4 + 864 / 8), (None, 432 * 4 + 864 / 8)],
)
def test_a_file_says_which_pattern_was_pruned(pattern: str | None, bound: float) -> None:
    weight = np.where(two_of_four(), np.float32(1.5), np.float32(0))
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 12, 5, 5])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 3, 3])
    graph = helper.make_graph([node], "g", [value], [output], [numpy_helper.from_array(weight, "w")])
    model: onnx.ModelProto = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    if pattern is not None:
        set_metadata(model, {GRANULARITY: pattern})
    assert inspect_model(model).bound_bytes == pytest.approx(bound)
