"""An exported file: how it is written, what it says of itself, and the formats that share one network."""

import json
from pathlib import Path

import numpy as np
import pytest

from tdcompress.onnxfile.load import load_model
from tdcompress.pipeline import Machine, Workspace
from tdcompress.report import text
from tdcompress.runs.rows import why
from tdcompress.stages import export


@pytest.mark.parametrize("values", ["float32", "int8", "codebook16"])
def test_an_export_is_saved_once(runner, row, tmp_path, monkeypatch, make_recorder, values):
    """Rounded, packed, compared and measured in memory: what is published first is what stays."""
    task = row(**{"export.values": [values]}).export
    network = runner.ensure(task.inputs["network"])
    saved, replace = [], Path.replace

    def counted(self, target):
        if Path(target).parent == tmp_path:
            saved.append((Path(target).name, self.read_bytes()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", counted)
    work = Workspace(folder=tmp_path, inputs={"network": network}, machine=Machine(), progress=make_recorder())
    export.run(task.settings, work)
    assert sorted(name for name, _ in saved) == ["model.onnx", "samples.npz"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict(saved)


def test_what_stays_float32_is_in_the_record_its_notes_and_the_row(runner, row):
    planned = row(prune="fraction = 0.5", **{"export.values": ["codebook16"]})
    exported = runner.ensure(planned.export).recorded(planned.export.stage.record)
    assert exported.kept_float32["head.weight"] == "its zeros are too few to pack"
    assert exported.notes == text.by_reason("kept in float32", exported.kept_float32)
    assert why(planned, None, exported).endswith("; ".join(exported.notes))


@pytest.mark.parametrize(
    ("pack", "said"),
    [("auto", ": pruned weights make the file smaller, not faster"), ("never", ', and pack = "never" stores them all')],
)
def test_a_row_says_what_its_zeros_are_good_for(runner, row, pack, said):
    planned = row(prune="fraction = 0.9", **{"export.pack": pack})
    exported = runner.ensure(planned.export).recorded(planned.export.stage.record)
    assert (exported.encodings.keys() == {"dense"}) is (pack == "never")
    assert why(planned, None, exported) == f"onnxruntime multiplies the zeros too{said}"


@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_a_file_says_how_its_pixels_are_normalised(runner, row, kind):
    """Inside the graph or in front of it, the file is measured through it: its accuracy is torch's."""
    exported = runner.ensure(row(**{"data.normalise": "unit", "export.input": kind}).export)
    proto = load_model(exported.file("model.onnx"))
    facts = {item.key: item.value for item in proto.metadata_props}
    assert json.loads(facts["preprocessing"])["deviation"] == [16.0]
    assert json.loads(facts["preprocessing_inside"]) is (kind == "uint8")
    with np.load(exported.file("samples.npz")) as samples:
        assert samples["input"].max() == (16 if kind == "uint8" else 1.0)


@pytest.mark.parametrize(
    ("prune", "said"),
    [
        ("fraction = 0.5", {"granularity": "weight", "fraction": "0.5", "shares": "filter"}),
        ('granularity = "2:4"\nfraction = 0.5\nexclude = ["conv1"]', {"granularity": "2:4", "fraction": "0.5"}),
        ('granularity = "1x4"\nfraction = 0.75\nshares = "erk"', {"granularity": "1x4", "fraction": "0.75", "shares": "erk"}),
        ('granularity = "unit"\nfraction = 0.0', {"granularity": "unit", "fraction": "0.0"}),
        ("keep_per_filter = 3", {"granularity": "weight", "keep_per_filter": "3"}),
    ],
)
def test_a_file_says_what_was_pruned(runner, row, prune, said):
    exported = runner.ensure(row(prune=prune).export)
    facts = {item.key: item.value for item in load_model(exported.file("model.onnx")).metadata_props}
    assert {key.removeprefix("prune_"): value for key, value in facts.items() if key.startswith("prune_")} == said


def test_the_fraction_of_the_released_evaluation_is_the_one_that_held(runner, row):
    planned = row("targeted", "fraction = 0.0", **{"sparsity.gamma": 0.5, "sparsity.alpha": 0.5, "prune.evaluation": "released"})
    said = {"prune_granularity": "weight", "prune_fraction": 0.5, "prune_shares": "filter"}
    assert export.pruning_facts(runner.ensure(planned.pruned)) == said


def test_a_network_that_went_through_no_pruning_says_nothing_of_it(runner, row):
    assert export.pruning_facts(runner.ensure(row().train)) == {}


def test_number_formats_of_one_network_are_traced_once_and_each_is_as_if_it_were_alone(
    runner, row, tmp_path, monkeypatch, make_recorder
):
    network = runner.ensure(row().export.inputs["network"])

    def exported(folder, values, **more):
        task = row(**{"export.values": [values], **more}).export
        (tmp_path / folder).mkdir()
        work = Workspace(folder=tmp_path / folder, inputs={"network": network}, machine=Machine(), progress=make_recorder())
        export.run(task.settings, work)
        return {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    traced = []
    trace = export.to_model_proto
    monkeypatch.setattr(export, "to_model_proto", lambda *given, **named: traced.append(1) or trace(*given, **named))
    monkeypatch.setattr("tdcompress.export.traced_once._kept", {})
    together = [exported(f"together-{values}", values) for values in ("float32", "int8", "codebook16")]
    assert len(traced) == 1
    exported("pixels", "float32", **{"export.input": "uint8"})
    assert len(traced) == 2  # another graph
    monkeypatch.setattr("tdcompress.export.traced_once._kept", {})
    assert exported("alone", "codebook16") == together[2]
    assert len(traced) == 3
