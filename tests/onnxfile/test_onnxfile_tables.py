"""What ``inspect`` and ``pack`` print: each weight with zeros, encoding, bytes and bound; the whole; what was left alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from small_models import make_model

from tdcompress.inspection import file_tables, packing_lines
from tdcompress.onnxfile.inspect import inspect_model
from tdcompress.onnxfile.metadata import set_metadata
from tdcompress.onnxfile.pack import pack_model


def test_every_weight_and_the_whole(make_small_net: Callable[..., onnx.ModelProto]) -> None:
    model = make_small_net(0.9)
    set_metadata(model, {"accuracy": "0.9814814814814815", "classes": "[0.9814814814814815]", "sparsity_model": "unknown"})
    report = inspect_model(pack_model(model)[0])
    tensors, whole = file_tables(Path("m.onnx"), report)
    assert [column.title for column in tensors.columns] == ["tensor", "shape", "zeros", "encoding", "bytes", "bound"]
    assert len(tensors.rows) == len(report.tensors)
    (row,) = (row for row in tensors.rows if row[0] == "conv2.weight")
    (tensor,) = (tensor for tensor in report.tensors if tensor.name == "conv2.weight")
    # 32 filters of 144 lose 129 each: 89.6 %
    assert row[1:] == ("32x16x3x3", "89.6", "gap8, float32", f"{tensor.file_bytes:,}", f"{tensor.bound_bytes:,.0f}")
    facts = dict(whole.rows)
    assert facts["file"] == f"{report.file_bytes:,} bytes, {report.gzip_bytes:,} gzipped"
    assert facts["bound of the weights"].startswith(f"{report.bound_bytes:,.0f} bytes")
    assert facts["operators"].startswith("BatchNormalization 2, Conv 2, ")
    assert (facts["accuracy"], facts["classes"], facts["sparsity_model"]) == ("98.15 %", "[0.9814814814814815]", "unknown")


def test_a_file_without_weights_or_of_zeros_alone() -> None:
    for arrays, parameters, rows in (({}, "none", 0), ({"w": np.zeros(8, np.float32)}, "8, 100.0 % of them zero", 1)):
        nodes = [helper.make_node("Add", ["x", "w" if arrays else "x"], ["y"])]
        model = onnx.load_model_from_string(make_model(nodes, arrays, {"x": ["b", 8]}))
        tensors, whole = file_tables(Path("m.onnx"), inspect_model(model))
        facts = dict(whole.rows)
        assert (len(tensors.rows), whole.title) == (rows, "" if rows else "m.onnx")
        assert (facts["bound of the weights"], facts["parameters"]) == ("0 bytes", parameters)
        assert "compiled" not in facts


def test_packing_in_words(make_small_net: Callable[..., onnx.ModelProto]) -> None:
    model = make_small_net(0.9)
    assert list(packing_lines(pack_model(model)[1])) == []
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "conv2.weight")
    array = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(np.where(array == 0, np.float32(-0.0), array), weight.name))
    report = pack_model(model, values="float16")[1]
    rounded, outputs, negative = packing_lines(report)
    assert rounded.startswith(f"float16: weights differ by at most {report.weight_error:.2g} of the largest in their tensor, ")
    assert outputs == f"float16: outputs on random inputs differ by at most {report.output_error:.2g} of the largest"
    assert "were not compared" in list(packing_lines(replace(report, output_error=None)))[1]
    assert negative == f"{32 * 129:,} weights that were -0.0 are +0.0"
    (left,) = packing_lines(replace(report, values="float32", negative_zeros=0, kept_dense=dict.fromkeys("abcd", "of a whim")))
    assert left == "with zeros, but kept dense because of a whim: a, b, c and 1 more"


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({}, ("accuracy", "4.12 %")),
        ({"task": "classification"}, ("accuracy", "4.12 %")),
        ({"task": "translation"}, ("BLEU", "4.12")),
    ],
)
def test_what_was_measured_has_the_name_of_the_tasks_measure(
    make_small_net: Callable[..., onnx.ModelProto], task: dict[str, str], said: tuple[str, str]
) -> None:
    report = replace(inspect_model(make_small_net(0.9)), metadata={"accuracy": "0.0412", **task})
    told = dict(file_tables(Path("m.onnx"), report)[1].rows)
    assert told[said[0]] == said[1]
    assert len({"accuracy", "BLEU"} & set(told)) == 1


def test_what_was_pruned_is_shown(make_small_net: Callable[..., onnx.ModelProto]) -> None:
    pruned = {"prune_granularity": "2:4", "prune_fraction": "0.5"}
    told = dict(file_tables(Path("m.onnx"), replace(inspect_model(make_small_net(0.9)), metadata=pruned))[1].rows)
    assert (told["prune_granularity"], told["prune_fraction"]) == ("2:4", "50.00 %")


def test_each_tasks_measure_is_known_to_readers_of_files() -> None:
    pytest.importorskip("torch")
    from tdcompress.records.measures import MEASURES
    from tdcompress.tasks.registry import TASKS

    assert {name: task.measure for name, task in TASKS.items()} == MEASURES
