"""What a training stage makes, of whom it learns, and what it starts from."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from short_trainings import SAMPLES

from tdcompress.errors import ModelError
from tdcompress.pipeline import Machine, Runner
from tdcompress.processor import Processor
from tdcompress.stores.folder import FolderStore


def test_a_schedule_by_share_knows_the_trainings_epochs(row):
    cubic = {"sparsity.gamma": 0.5, "sparsity.schedule": "cubic"}
    assert row("targeted", **cubic, **{"train.epochs": 7}).train.settings.method.settings.schedule_epochs == 7
    options = row("targeted", **cubic).config.options
    assert options["freeze_share"] == 0.3
    assert "schedule_epochs" not in options
    assert "freeze_share" not in row("targeted", **{"sparsity.gamma": 0.5}).config.options


def test_a_training_learns_from_the_untargeted_one(runner, row):
    sparse = {"sparsity.gamma": 0.5, "sparsity.alpha": 0.5}
    alone, taught = row("targeted", **sparse), row("targeted", **sparse, **{"distill.weight": 0.5})
    teacher = taught.train.inputs["teacher"]
    assert teacher.key == row().train.key
    weights = [load_file(runner.ensure(task).file("model.safetensors")) for task in (alone.train, taught.train, teacher)]
    assert not torch.equal(weights[0]["conv1.weight"], weights[1]["conv1.weight"])
    assert not torch.equal(weights[1]["conv1.weight"], weights[2]["conv1.weight"])
    loss = [json.loads(runner.ensure(task).file("metrics.jsonl").read_text())["loss"] for task in (alone.train, taught.train)]
    assert loss[0] != loss[1]


def test_what_a_teacher_taught_needs_it_no_more(runner, plan):
    """Without an untargeted row the dense file is a taught training's; that of the teacher may be on another machine."""
    found = plan("targeted", **{"sparsity.gamma": 0.5, "sparsity.alpha": 0.5, "distill.temperature": 2.0, "seed": 5})
    taught = runner.ensure(found.dense_train)
    shutil.rmtree(runner.ensure(found.dense_train.inputs["teacher"]).folder)
    exported = runner.ensure(found.dense)
    assert exported.record["accuracy"] == pytest.approx(taught.record["accuracy"], abs=2.001 / SAMPLES)


def test_metrics_are_kept_as_json_lines(runner, row):
    trained = runner.ensure(row().train)
    (line,) = map(json.loads, trained.file("metrics.jsonl").read_text().splitlines())
    assert {"epoch", "step", "loss", "train_accuracy", "test_accuracy", "images_per_second"} <= set(line)
    assert line["test_accuracy"] == trained.record["accuracy"]


def test_a_training_settles_by_the_machine_that_it_is_given(runner, plan):
    planned = plan(**{"train.epochs": 0, "train.threads": 0, "train.precision": "auto", "seed": 77})
    machine = Machine(processor=Processor(name="Another 1", machine="x86_64", flags=()), cores=1, places=planned.places)
    given = Runner(store=runner.store, watcher=runner.watcher, facts={}, machine=machine)
    record = given.ensure(planned.dense_train).record
    assert (record["device"], record["threads"], record["precision"]) == ("Another 1, 1 thread", 1, "float32")


def test_training_starts_from_given_weights(runner, row, plan, tmp_path):
    def train(init):
        planned = plan(**{"model.init": str(init), "train.epochs": 0})
        placed = Runner(store=runner.store, watcher=runner.watcher, facts={}, machine=Machine(places=planned.places))
        return placed.ensure(planned.dense_train)

    trained = runner.ensure(row().train)
    init = tmp_path / "init.safetensors"
    init.write_bytes(trained.file("model.safetensors").read_bytes())
    started = train(init)
    assert started.record["accuracy"] == trained.record["accuracy"]
    assert started.file("model.safetensors").read_bytes() == trained.file("model.safetensors").read_bytes()
    moved = tmp_path / "elsewhere.safetensors"
    init.rename(moved)
    assert train(moved).key == started.key  # by content, not by path
    with pytest.raises(ModelError, match=r"where the initial weights with sha256 .* lie is not known"):
        runner.ensure(row(**{"model.init": str(moved), "train.epochs": 0, "seed": 5}).train)


def test_where_data_lies_and_what_is_measured_do_not_change_the_key_of_a_training(row):
    assert row().train.key == row(**{"bench.budget": "quick", "export.pack": "never", "prune.fraction": 0.1}).train.key
    for changes in ({"seed": 1}, {"train.epochs": 2}, {"model.width": 4}, {"data.crop_padding": 0}):
        assert row(**changes).train.key != row().train.key


def test_initial_weights_that_changed_after_they_were_hashed_are_refused(runner, row, plan, tmp_path):
    path = tmp_path / "init.safetensors"
    path.write_bytes(runner.ensure(row().train).file("model.safetensors").read_bytes())
    planned = plan(**{"model.init": str(path), "train.epochs": 0})
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)  # they fit, and are others
    placed = Runner(
        store=FolderStore(tmp_path / "stages"), watcher=runner.watcher, facts={}, machine=Machine(places=planned.places)
    )
    with pytest.raises(ModelError, match=re.escape(f"model.init: {path} was changed after the run hashed it; ") + ".* run again"):
        placed.ensure(planned.dense_train)
