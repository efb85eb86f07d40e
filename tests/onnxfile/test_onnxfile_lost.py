"""One huge weight beside small ones: what rounding would lose, and that it then does not happen."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from weights import dense_initializers

from tdcompress.inspection import packing_lines
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.rounding import Rounding, lost_share

Make = Callable[..., onnx.ModelProto]


def with_head(
    model: onnx.ModelProto, change: Callable[[np.ndarray], np.ndarray], name: str = "head.weight"
) -> tuple[onnx.ModelProto, np.ndarray]:
    """The model with another weight of this name, and that weight."""
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    array = change(numpy_helper.to_array(weight)).astype(np.float32)
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    return model, array


def outlier(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """The weight of the largest size becomes `value`."""
    return lambda array: np.where(np.abs(array) == np.abs(array).max(), value, array)


def test_lost_by_hand() -> None:
    """1 became 0, -2 has another sign, 4 doubled, 8 became 0.5; 16 stayed, and 3 moved by two thirds of itself."""
    exact = np.array([0, 1, -2, 4, 8, 16, 3], np.float32)
    rounded = np.array([0, 0, 2, 8, 0.5, 16, 5], np.float32)
    assert lost_share(exact, rounded) == 4 / 6
    assert lost_share(np.zeros(4, np.float32), np.zeros(4, np.float32)) == 0
    assert Rounding().with_weight(exact, rounded) == Rounding(error=7.5 / 16, underflows=1, lost=4 / 6)
    assert Rounding(lost=0.75, underflows=2).with_weight(exact, rounded) == Rounding(error=7.5 / 16, underflows=3, lost=0.75)


@pytest.mark.parametrize("form", ["int8-kept", "int4-kept"])
def test_a_weight_of_which_an_outlier_would_leave_nothing_stays_float32(make_small_net: Make, form: str) -> None:
    model, head = with_head(make_small_net(0.75), outlier(1e5))
    packed, report = pack_model(model, values=form)
    half = np.median(np.abs(head[head != 0]))
    reason = f"most of its values, half of them below {half:.3g}, would be lost beside its largest, 1e+05"
    assert report.kept_float32 == {"head.weight": reason}
    assert dense_initializers(packed)["head.weight"].tobytes() == head.tobytes()
    assert {tensor.name for tensor in report.tensors if tensor.stored == form} == {"conv1.weight", "conv2.weight"}
    assert list(packing_lines(report))[-1] == f"kept in float32 because {reason}: head.weight"


def test_three_quarters_of_the_values_may_be_lost_and_the_report_says_how_many(make_small_net: Make) -> None:
    """With the largest at 7 a step is 1, and what is below 1/2 becomes 0: first three quarters of the values, then one more."""

    def with_small(count: int) -> Callable[[np.ndarray], np.ndarray]:
        def change(array: np.ndarray) -> np.ndarray:
            flat = np.zeros(array.size)
            flat[: 4 * 40 : 4] = [*[0.25] * count, *[3.0] * (39 - count), 7.0]
            return flat.reshape(array.shape)

        return change

    _, report = pack_model(with_head(make_small_net(0.75), with_small(30))[0], values="int4-kept")
    assert report.kept_float32 == {}
    assert (report.lost, report.underflows) == (0.75, 30)
    said = "int4-kept: up to 75.0 % of a tensor's weights moved by 0.9 of their own size or more"
    assert said in list(packing_lines(report))
    _, report = pack_model(with_head(make_small_net(0.75), with_small(31))[0], values="int4-kept")
    assert report.kept_float32 == {
        "head.weight": "most of its values, half of them below 0.25, would be lost beside its largest, 7"
    }
    assert (report.lost, report.underflows) == (0.0, 0)


def test_a_codebook_has_room_for_an_outlier_and_none_for_many_of_them(make_small_net: Make) -> None:
    model, head = with_head(make_small_net(0.75), outlier(1e5))
    packed, report = pack_model(model, values="codebook16")
    assert (report.kept_float32, report.lost) == ({}, 0.0)
    assert np.float32(1e5) in dense_initializers(packed)["head.weight"]

    def many(array: np.ndarray) -> np.ndarray:
        flat = array.reshape(-1).copy()
        flat[np.flatnonzero(flat)[:20]] = 1e5 * np.arange(1, 21)
        return flat.reshape(array.shape)

    model, head = with_head(make_small_net(0.75), many, "conv2.weight")
    half = np.median(np.abs(head[head != 0]))
    reason = f"most of its values, half of them below {half:.3g}, would be lost beside its largest, 2e+06"
    assert pack_model(model, values="codebook16")[1].kept_float32["conv2.weight"] == reason


def test_values_too_small_for_float16_stay_float32(make_small_net: Make) -> None:
    """Below 2**-25 float16 has nothing but 0."""
    model, head = with_head(make_small_net(0.75), lambda array: np.sign(array) * 2.0**-26)
    packed, report = pack_model(model, values="float16")
    assert report.kept_float32 == {"head.weight": "most of its values are too small for float16"}
    assert dense_initializers(packed)["head.weight"].tobytes() == head.tobytes()
    assert pack_model(with_head(make_small_net(0.75), lambda array: np.sign(array) * 2.0**-24)[0], values="float16")[1].lost == 0
