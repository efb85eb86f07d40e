"""The key of an export leaves out what its file does not use, and nothing else."""

import itertools
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.artifacts import content_key
from tdcompress.onnxfile.encodings.forms import FORMS
from tdcompress.onnxfile.load import serialised
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.quantise import quantise_model
from tdcompress.records import Values
from tdcompress.stages.export import ExportTable, Settings, as_asked

SIZE = 192
TABLES = [
    ExportTable(pack=pack, prefer=prefer, int8_range=bits, values=(values,))
    for pack, prefer, bits, values in itertools.product(
        ("auto", "never"), ("speed", "size"), ("portable", "full"), get_args(Values)
    )
    if pack == "auto" or values not in FORMS
]


@pytest.fixture(scope="module")
def calibration() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(8, SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def dense() -> onnx.ModelProto:
    """One layer with few weights that are not 0, so that what loads slowly is smaller."""
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(SIZE, SIZE)) * (generator.random((SIZE, SIZE)) < 0.04)
    nodes = [helper.make_node("MatMul", ["input", "w"], ["output"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIZE]) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(weights.astype(np.float32), "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def as_the_table_says(table: ExportTable, dense: onnx.ModelProto, calibration: np.ndarray) -> onnx.ModelProto:
    """The file made with all that the table says, used or not."""
    (values,), pack = table.values, table.pack == "auto"
    if values == "int8":
        return quantise_model(dense, calibration, weight_range=table.int8_range, pack=pack, prefer=table.prefer)[0]
    return pack_model(dense, values, table.prefer, sparse=pack)[0] if pack or values != "float32" else dense


def test_settings_that_have_one_key_make_one_file(dense: onnx.ModelProto, calibration: np.ndarray) -> None:
    made: dict[Any, set[bytes]] = {}
    for table in TABLES:
        settings = table.of(*table.values)
        file = serialised(as_the_table_says(table, dense, calibration))
        assert serialised(as_asked(settings, dense, lambda: calibration)) == file
        made.setdefault(content_key(settings), set()).add(file)
    assert all(len(of_one_key) == 1 for of_one_key in made.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pack": False}, "prefer: it chooses"),
        ({"prefer": None}, "prefer: it chooses"),
        ({"int8_range": "full"}, "int8_range: it is of"),
        ({"values": "int8"}, "int8_range: it is of"),
    ],
)
def test_settings_hold_nothing_that_their_format_does_not_use(changes: dict[str, Any], said: str) -> None:
    usual = {"pack": True, "prefer": "speed", "input": "float32", "values": "float32", "int8_range": None}
    assert Settings(**usual) == ExportTable().of("float32")
    with pytest.raises(ValueError, match=said):
        Settings(**(usual | changes))
