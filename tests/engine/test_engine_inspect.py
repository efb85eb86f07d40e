"""`inspect --backend engine`, also of files that leave sizes open or keep their weights beside them."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from tdcompress.cli import main


@pytest.fixture
def open_file(model, tmp_path):
    w = np.random.default_rng(0).standard_normal((12, 3, 3, 3)).astype(np.float32)
    data = model([helper.make_node("Conv", ["x", "w"], ["y"], name="conv")], {"w": w}, {"x": ["b", 3, "h", "w_"]})
    path = tmp_path / "open.onnx"
    onnx.save(onnx.load_model_from_string(data), path, save_as_external_data=True, location="open.onnx.data", size_threshold=0)
    return path


def test_a_shape_opens_what_the_file_does_not_say(open_file, capsys):
    assert main(["inspect", str(open_file), "--backend", "engine", "--external-data", "--shape", "1x3x20x24", "--json"]) == 0
    (layer,) = json.loads(capsys.readouterr().out)
    assert (layer["layer"], layer["weights"], layer["kernel"]) == ("conv", 324, "dense")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--backend", "engine", "--external-data"], "--shape"),
        (["--backend", "engine", "--shape", "1x3x9x9"], "--external-data"),
        (["--backend", "engine", "--external-data", "--shape", "1x3x9x9", "--shape", "1x3x9x9"], "for each of x"),
        (["--backend", "engine", "--external-data", "--shape", "1x4x9x9"], "cannot have the shape"),
        (["--shape", "1x3x9x9"], "--backend engine"),
    ],
)
def test_what_is_no_shape_is_said_in_one_line(open_file, capsys, arguments, text):
    assert main(["inspect", str(open_file), *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
