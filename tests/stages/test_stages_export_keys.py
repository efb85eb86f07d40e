"""The key of an export leaves out what its file does not use, and nothing else.

So settings of one key make one file, and on a network where it can show, settings of two keys make two.
"""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tdcompress.artifacts import content_key
from tdcompress.data.digits import DigitsSettings
from tdcompress.export.to_onnx import to_model_proto
from tdcompress.onnxfile.encodings.forms import FORMS
from tdcompress.onnxfile.load import serialised
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.quantise import quantise_model
from tdcompress.records.stages import Values
from tdcompress.stages.export import ExportTable, Settings, as_asked
from tdcompress.tasks.classification import Classification

SIZE = 192
DENSITIES = (0.04, 0.2, 0.5)  # of layers; "size" keeps one of them at least in another encoding than "speed"
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
    """Layers of several densities, so large that each setting decides something in one of them."""
    generator = np.random.default_rng(0)
    weights, nodes = [], []
    for number, density in enumerate(DENSITIES):
        array = generator.normal(size=(SIZE, SIZE)) * (generator.random((SIZE, SIZE)) < density)
        weights.append(numpy_helper.from_array(array.astype(np.float32), f"w{number}"))
        nodes.append(helper.make_node("MatMul", [f"h{number}" if number else "input", f"w{number}"], [f"h{number + 1}"]))
    nodes[-1].output[0] = "output"
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIZE]) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def every_settings() -> Iterator[Settings]:
    """All that ``Settings`` takes, but that pixels come as float32."""
    for values, pack, prefer, bits in itertools.product(
        get_args(Values), (True, False), ("speed", "size", None), ("portable", "full", None)
    ):
        if pack or values not in FORMS:
            with contextlib.suppress(ValueError):
                yield Settings(values=values, pack=pack, prefer=prefer, int8_range=bits, input="float32", measures="all")


@pytest.fixture(scope="module")
def files(dense: onnx.ModelProto, calibration: np.ndarray) -> dict[Settings, bytes]:
    return {settings: serialised(as_asked(settings, dense, lambda: calibration)[0]) for settings in every_settings()}


def as_the_table_says(table: ExportTable, dense: onnx.ModelProto, calibration: np.ndarray) -> onnx.ModelProto:
    """The file made with all that the table says, used or not."""
    (values,), pack = table.values, table.pack == "auto"
    if values == "int8":
        return quantise_model(dense, calibration, weight_range=table.int8_range, pack=pack, prefer=table.prefer)[0]
    return pack_model(dense, values, table.prefer, sparse=pack)[0] if pack or values != "float32" else dense


def test_settings_that_have_one_key_make_one_file(
    files: dict[Settings, bytes], dense: onnx.ModelProto, calibration: np.ndarray
) -> None:
    for table in TABLES:
        assert serialised(as_the_table_says(table, dense, calibration)) == files[table.of(*table.values)]
    assert {table.of(*table.values) for table in TABLES} == set(files)


def test_settings_of_two_keys_make_two_files(files: dict[Settings, bytes]) -> None:
    assert len({content_key(settings) for settings in files}) == len(files) == 18
    same: dict[bytes, list[Settings]] = {}
    for settings, file in files.items():
        same.setdefault(file, []).append(settings)
    assert [made for made in same.values() if len(made) > 1] == []
    for name in {field.name for field in fields(Settings)} - {
        "input",
        "measures",
    }:  # a new one has to be among what is tried here
        assert len({getattr(settings, name) for settings in files}) > 1


def test_pixels_as_input_are_another_key_and_another_file() -> None:
    task, network = Classification(DigitsSettings().load()), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    made = {}
    for kind in ("float32", "uint8"):
        settings = ExportTable(input=kind).of("float32")
        (part,) = task.exports(network, pixels=settings.input == "uint8").parts
        made[content_key(settings)] = to_model_proto(part.module, part.samples, names=part.names, axes=part.axes)
    types = [proto.graph.input[0].type.tensor_type.elem_type for proto in made.values()]
    assert types == [TensorProto.FLOAT, TensorProto.UINT8]


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
    usual = {"pack": True, "prefer": "speed", "input": "float32", "values": "float32", "int8_range": None, "measures": "all"}
    assert Settings(**usual) == ExportTable().of("float32")
    with pytest.raises(ValueError, match=said):
        Settings(**(usual | changes))
