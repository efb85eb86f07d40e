"""float16 values: what is rounded, what stays float32, and what is said of both."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from weights import dense_initializers

from tdcompress.inspection import packing_lines
from tdcompress.onnxfile.load import infers_strictly
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.reports import PackReport
from tdcompress.onnxfile.runtime import OutputDifference, compare_outputs, open_session
from tdcompress.onnxfile.weights import densified

Make = Callable[..., onnx.ModelProto]


def test_float16_values(make_resnet32: Make, run_model: Callable, optimised_graph: Callable) -> None:
    dense = make_resnet32(0.9)
    packed, report = pack_model(dense, values="float16")
    exact, rounded = dense_initializers(dense), dense_initializers(packed)
    for name, array in exact.items():
        matrix = array.ndim >= 2
        wanted = array.astype(np.float16).astype(np.float32) if matrix else array
        assert rounded[name].dtype == np.float32
        assert rounded[name].tobytes() == wanted.tobytes(), name
    assert 0 < report.weight_error < 2**-11
    assert report.underflows == sum(int(np.count_nonzero((rounded[name] == 0) & (array != 0))) for name, array in exact.items())
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    wanted, given = run_model(dense, images)[0], run_model(packed, images)[0]
    assert 0 < np.abs(wanted - given).max() / np.abs(wanted).max() < 5e-3
    assert report.output_error is not None
    assert 0 < report.output_error < 5e-3
    assert report.file_bytes < 0.62 * pack_model(dense)[1].file_bytes
    assert optimised_graph(packed, "all") == optimised_graph(densified(packed), "all")
    assert infers_strictly(packed)


@pytest.mark.parametrize(
    ("value", "reason", "lost"),
    [
        (np.nan, "it holds NaN or infinity", 4),
        (np.inf, "it holds NaN or infinity", 4),
        (-3.4e37, "a value of size 3.4e+37 is beyond float16's 65504", 0),
    ],
)
def test_what_float16_cannot_hold_stays_float32_and_says_why(make_small_net: Make, value: float, reason: str, lost: int) -> None:
    """The head's first output reads that value, so it is not finite for any of the 4 random images; the other 9 are compared."""
    model = make_small_net(0.9)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "head.weight")
    array = numpy_helper.to_array(weight).copy()
    array[0, 0] = value
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    packed, report = pack_model(model, values="float16")
    assert report.kept_float32 == {"head.weight": reason}
    assert report.kept_dense == {}
    assert dense_initializers(packed)["head.weight"].tobytes() == array.tobytes()
    stored = {tensor.name: tensor.stored for tensor in report.tensors if len(tensor.shape) > 1}
    assert stored == {"conv1.weight": "float16", "conv2.weight": "float16", "head.weight": "float32"}
    assert PackReport.from_json(report.to_json()) == report
    assert report.outputs_not_finite == (lost, lost)
    assert report.output_error is not None
    assert 0 < report.output_error < 5e-3
    said = list(packing_lines(report))
    assert said[-1] == f"kept in float32 because {reason}: head.weight"
    assert (said[1] == "float16: 4 outputs on random inputs were NaN or infinite, 4 are now; these were not compared") == (
        lost > 0
    )


def test_outputs_are_compared_where_they_are_finite() -> None:
    def times(factors: list[float]) -> onnx.ModelProto:
        graph = helper.make_graph(
            [helper.make_node("Mul", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
            [numpy_helper.from_array(np.array(factors, np.float32), "w")],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)

    def compared(first: list[float], second: list[float]) -> OutputDifference:
        sessions = [open_session(times(factors)) for factors in (first, second)]
        return compare_outputs(*sessions, [{"x": np.array([1, 2, 2, 1], np.float32)}])

    assert compared([1, 2, 4, 1], [1, 1, 4, 1]) == OutputDifference(error=2 / 8, not_finite=(0, 0))
    assert compared([np.nan, 2, np.inf, 1], [np.nan, 1, 4, 1]) == OutputDifference(error=2 / 4, not_finite=(2, 1))
    assert compared([np.nan] * 4, [1, 1, 1, 1]) == OutputDifference(error=None, not_finite=(4, 0))
    assert compared([0, 0, 0, 0], [0, 1, 0, 0]) == OutputDifference(error=2.0, not_finite=(0, 0))


def test_outputs_of_every_kind_are_compared() -> None:
    """Classes, sequences, maps; and none where how many there are follows from the values."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    score = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    kinds = {
        "class": (
            [helper.make_node("ArgMax", ["h"], ["y"], axis=1, keepdims=0)],
            helper.make_tensor_value_info("y", TensorProto.INT64, [1]),
        ),
        "sequence": (
            [helper.make_node("SequenceConstruct", ["h", "x"], ["y"])],
            helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None),
        ),
        "map": (
            [helper.make_node("ZipMap", ["h"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3])],
            onnx.ValueInfoProto(name="y", type=helper.make_sequence_type_proto(score)),
        ),
        "found": (
            [helper.make_node("Floor", ["h"], ["f"]), helper.make_node("NonZero", ["f"], ["y"])],
            helper.make_tensor_value_info("y", TensorProto.INT64, [2, None]),
        ),
    }
    found = {}
    for kind, (nodes, output) in kinds.items():
        sessions = []
        for factors in ([1, 2, 4, 1], [1, 5, 4, 0.5]):
            weight = numpy_helper.from_array(np.array(factors, np.float32), "w")
            graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["h"]), *nodes], "g", [x], [output], [weight])
            imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
            sessions.append(open_session(helper.make_model(graph, opset_imports=imports, ir_version=8)))
        found[kind] = compare_outputs(*sessions, [{"x": np.array([[1, 1, 1, 1]], np.float32)}]).error
    assert found == {"class": 1 / 2, "sequence": 3 / 4, "map": 3 / 4, "found": None}


def test_rounding_alone_leaves_zeros_where_they_are(make_small_net: Make, arrays: Callable) -> None:
    dense = make_small_net(0.9)
    rounded, report = pack_model(dense, values="float16", sparse=False)
    assert set(report.encodings) == {"dense"}
    assert {tensor.stored for tensor in report.tensors if len(tensor.shape) > 1} == {"float16"}
    assert arrays(rounded) == arrays(pack_model(dense, values="float16")[0])
    same, report = pack_model(dense, sparse=False)
    assert same.SerializeToString(deterministic=True) == dense.SerializeToString(deterministic=True)


def test_float16_leaves_what_it_cannot_hold(make_small_net: Make) -> None:
    dense = make_small_net(0.5)
    (tensor,) = (t for t in dense.graph.initializer if t.name == "conv2.weight")
    large = numpy_helper.to_array(tensor).copy()
    large[0, 0, 0, 0] = 1e5
    tensor.CopyFrom(numpy_helper.from_array(large, tensor.name))
    packed, report = pack_model(dense, values="float16")
    stored = {tensor.name: tensor.stored for tensor in report.tensors}
    assert stored["conv2.weight"] == "float32"
    assert stored["conv1.weight"] == "float16"
    assert dense_initializers(packed)["conv2.weight"].tobytes() == large.tobytes()
