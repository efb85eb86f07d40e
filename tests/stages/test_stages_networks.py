"""What each stage makes, on one short training of each kind; the tasks are made by the runner as a run makes them."""

import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_recipes import small_recipe
from words import TINY, write_corpus

from tdcompress.errors import ModelError, RecipeError
from tdcompress.lineage import units
from tdcompress.lineage.network import load_network, new_network, training_targets
from tdcompress.lineage.origin import origin_of
from tdcompress.onnxfile.load import load_model
from tdcompress.pipeline import Machine, Runner, Workspace
from tdcompress.processor import Processor
from tdcompress.recipes.source import parse_recipe
from tdcompress.report import text
from tdcompress.runs import workers
from tdcompress.runs.plan import plan_run
from tdcompress.runs.rows import why
from tdcompress.sparsity.shares import Extent, selected_counts
from tdcompress.stages import STAGES, export
from tdcompress.stores.folder import FolderStore
from tdcompress.train.recalibrate import recalibrate

TABLES = """
[sparsity]
method = "{method}"

[train]
epochs = 1
batch_size = 32
optimizer = {{ name = "sgd", lr = 0.05, momentum = 0.9 }}
"""
UNITS = {"sparsity.granularity": "unit", "sparsity.gamma": 0.5, "sparsity.alpha": 0.5}
CUBIC = {"sparsity.gamma": 0.5, "sparsity.schedule": "cubic"}
RELEASED = 'fraction = 0.5\nevaluation = "released"'
SAMPLES = 359


@pytest.fixture(scope="module")
def runner(tmp_path_factory, make_recorder):
    return Runner(store=FolderStore(tmp_path_factory.mktemp("stages")), watcher=make_recorder(), facts={})


@pytest.fixture(scope="module")
def plan(runner):
    def make(method="none", prune="fraction = 0.5", **changes):
        text = small_recipe("short", TABLES.format(method=method), width=8, hidden=16, prune=prune)
        return plan_run(parse_recipe(text, "stages.toml", changes), runner.store)

    return make


@pytest.fixture(scope="module")
def row(plan):
    return lambda *args, **changes: plan(*args, **changes).rows[0]


def layers(artifact):
    return {layer["name"]: (layer["total"], layer["kept"], layer["shape"]) for layer in artifact.record["layers"]}


def outputs(artifact):
    with torch.inference_mode():
        return load_network(artifact)(*origin_of(artifact).data.task({}).examples(50))


@pytest.mark.parametrize("fraction", [0.0, 0.29, 0.5, 0.9])
def test_weights_are_pruned_by_the_share_of_each_filter(runner, row, fraction):
    pruned = runner.ensure(row(prune=f"fraction = {fraction}").pruned)
    shapes = {"conv1.weight": (8, 9), "conv2.weight": (16, 72), "conv3.weight": (16, 144), "hidden.weight": (16, 64)}
    kept = {name: rows * (size - math.floor(fraction * size + 1e-9)) for name, (rows, size) in shapes.items()}
    assert {name: count for name, (_, count, _) in layers(pruned).items()} == kept
    total = sum(rows * size for rows, size in shapes.values())
    assert pruned.record["sparsity_prunable"] == pytest.approx(1 - sum(kept.values()) / total)
    record = pruned.record
    assert record["sparsity_model"] == pytest.approx(1 - record["parameters_nonzero"] / record["parameters_total"])
    model = load_file(pruned.file("model.safetensors"))
    for name, mask in load_file(pruned.file("masks.safetensors")).items():
        assert not model[name][~mask].any()


def test_a_fixed_number_of_weights_is_kept_in_each_filter(runner, row):
    pruned = runner.ensure(row(prune="keep_per_filter = 3").pruned)
    assert {name: kept for name, (_, kept, _) in layers(pruned).items()} == {
        "conv1.weight": 24, "conv2.weight": 48, "conv3.weight": 48, "hidden.weight": 48,
    }  # fmt: skip


@pytest.mark.parametrize("shares", ["layer", "erk", "global"])
def test_a_budget_is_split_over_the_layers_as_the_shares_say(runner, row, shares):
    pruned = runner.ensure(row(prune=f'fraction = 0.9\nshares = "{shares}"').pruned)
    sizes = {
        "conv1.weight": (8, 9, 15),
        "conv2.weight": (16, 72, 30),
        "conv3.weight": (16, 144, 38),
        "hidden.weight": (16, 64, 80),
    }
    extents = [Extent(name=name, rows=rows, length=size, erk=erk) for name, (rows, size, erk) in sizes.items()]
    kept = {name: count for name, (_, count, _) in layers(pruned).items()}
    total = sum(each.entries for each in extents)
    if shares == "global":
        assert sum(kept.values()) == total - math.floor(0.9 * total)
    else:
        counts = selected_counts(extents, 0.9, shares).counts
        assert kept == {each.name: each.entries - counts[each.name] for each in extents}
    for mask in load_file(pruned.file("masks.safetensors")).values():
        assert bool(mask.flatten(1).any(1).all())  # no filter is empty


@pytest.mark.parametrize("granularity", ["2:4", "1x4"])
def test_patterns_are_trained_pruned_stored_packed_and_exported(runner, row, granularity):
    changes = {"sparsity.gamma": 0.5, "sparsity.granularity": granularity, "sparsity.exclude": ["conv1"]}
    planned = row("targeted", "fraction = 0.5", **changes)
    exported = runner.ensure(planned.export)
    pruned = runner.ensure(planned.pruned)
    counts = layers(pruned)
    assert {name: kept / total for name, (total, kept, _) in counts.items()} == dict.fromkeys(counts, 0.5)
    for mask in load_file(pruned.file("masks.safetensors")).values():
        if granularity == "2:4":
            groups = mask.movedim(1, -1).reshape(-1, 4)
            assert bool((groups.sum(1) == 2).all())
        else:
            blocks = mask.reshape(mask.shape[0] // 4, 4, -1)
            assert torch.equal(blocks.all(1), blocks.any(1))
    assert planned.steps["store"].stage.name == "store"
    assert exported.record["accuracy"] == pytest.approx(pruned.record["accuracy"], abs=2 / SAMPLES)
    dense = runner.ensure(row("targeted", "fraction = 0.0", **changes).export)
    assert exported.record["onnx_bytes"] < dense.record["onnx_bytes"]
    assert planned.id == "targeted-0.5"


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


def test_statistics_are_estimated_again_on_plain_training_images(runner, row):
    plain, again = row(prune="fraction = 0.9"), row(prune="fraction = 0.9\nrecalibrate = 100000")  # more than there are: all
    assert plain.train.key == again.train.key
    assert plain.pruned.key != again.pruned.key
    before, after = runner.ensure(plain.pruned), runner.ensure(again.pruned)
    origin = origin_of(after)
    task = origin.data.task({})
    expected, samples = load_network(before), task.train_set(origin.seed)
    recalibrate(expected, [samples.preprocess(samples.pixels)])
    network, tensors = load_network(after), expected.state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, tensors[name], rtol=1e-4, atol=1e-4)
    assert after.record["accuracy_before"] == before.record["accuracy"]
    assert before.record["accuracy_before"] is None
    assert load_file(before.file("masks.safetensors")).keys() == load_file(after.file("masks.safetensors")).keys()

    batches = [torch.cat([images for (images,) in task.plain_batches(seed, 64, torch.device("cpu"))]) for seed in (0, 0, 1)]
    assert len(batches[0]) == 64
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])


def test_pruning_splits_as_training_did_unless_it_says_otherwise(row):
    trained = {"sparsity.gamma": 0.5, "sparsity.shares": "erk"}
    assert row("targeted", **trained).pruned.settings.shares == "erk"
    assert row("targeted", **trained, **{"prune.shares": "global"}).pruned.settings.shares == "global"
    assert row("targeted", **trained, **{"prune.granularity": "unit"}).pruned.settings.shares == "layer"
    assert row("targeted", "keep_per_filter = 3", **trained).pruned.settings.shares == "filter"
    keys = {row("targeted", **trained, **more).pruned.key for more in ({}, {"prune.shares": "global"}, {"prune.shares": "layer"})}
    assert len(keys) == 3


def test_a_schedule_by_share_knows_the_trainings_epochs(row):
    cubic = {"sparsity.gamma": 0.5, "sparsity.schedule": "cubic"}
    assert row("targeted", **cubic, **{"train.epochs": 7}).train.settings.method.settings.schedule_epochs == 7
    options = row("targeted", **cubic).config.options
    assert options["freeze_share"] == 0.3
    assert "schedule_epochs" not in options
    assert "freeze_share" not in row("targeted", **{"sparsity.gamma": 0.5}).config.options


def test_one_training_feeds_many_prunings(runner, row):
    first, second = row(prune="fraction = 0.5"), row(prune="fraction = 0.25")
    assert first.train.key == second.train.key
    assert first.pruned.key != second.pruned.key
    made = runner.made
    runner.ensure(row(prune="fraction = 0.125").pruned)
    assert runner.made == made + 1


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("none", {}),
        ("none", {"prune.granularity": "unit"}),
        ("targeted", UNITS),
        ("targeted", {**UNITS, "prune.granularity": "weight"}),
        ("targeted", {**UNITS, "sparsity.scope": "group"}),
        ("targeted", {**UNITS, "prune.scope": "group", "prune.align": 4}),
        ("targeted", {**UNITS, "prune.unit": "filter"}),
        ("targeted", {"sparsity.keep_per_filter": 3, "sparsity.alpha": 0.5}),
    ],
    ids=str,
)
def test_masked_and_deployed_networks_are_the_same_network(runner, row, method, changes):
    planned = row(method, "fraction = 0.6", **changes)
    masked, deployed = runner.ensure(planned.pruned), runner.ensure(planned.deployed)
    assert deployed.stage == ("shrink" if planned.config.granularity == "unit" else "store")
    assert abs(masked.record["accuracy"] - deployed.record["accuracy"]) <= 2.001 / SAMPLES
    torch.testing.assert_close(outputs(deployed), outputs(masked), rtol=1e-4, atol=1e-4)
    if deployed.stage == "store":
        state = load_network(deployed).state_dict()
        for name, value in load_network(masked).state_dict().items():
            assert value.shape == state[name].shape
            assert value.numpy().tobytes() == state[name].numpy().tobytes()
    else:
        record = deployed.record
        assert record["parameters_after"] < record["parameters_before"]
        assert record["macs_after"] < record["macs_before"]
        assert record["max_error"] <= 1e-10 * max(record["max_output"], 1.0)


def test_units_are_pruned_by_layer_and_rounded_up_to_a_multiple(runner, row):
    def kept(**changes):
        planned = row("targeted", "fraction = 0.6", **{**UNITS, **changes})
        state = load_network(runner.ensure(planned.pruned)).state_dict()
        names = ("conv1.weight", "conv2.weight", "conv3.weight", "hidden.weight")
        return [int(state[name].flatten(1).any(1).sum()) for name in names]

    assert kept() == [4, 7, 7, 7]  # n - floor(0.6 n)
    assert kept(**{"prune.align": 4}) == [4, 8, 8, 8]


def test_whole_units_take_their_affine_along_and_filters_do_not(runner, row):
    for unit, affine_too in (("whole", True), ("filter", False)):
        planned = row("targeted", "fraction = 0.6", **UNITS, **{"prune.unit": unit})
        masks = load_file(runner.ensure(planned.pruned).file("masks.safetensors"))
        assert ("norm1.bias" in masks) == affine_too


def test_released_evaluation_prunes_every_candidate_of_the_training(runner, row):
    def masks(prune, **changes):
        planned = row("targeted", prune, **{"sparsity.gamma": 0.5, "sparsity.alpha": 0.5, **changes})
        return load_file(runner.ensure(planned.pruned).file("masks.safetensors"))

    released, plain = masks("fraction = 0.1", **{"prune.evaluation": "released"}), masks("fraction = 0.5")
    assert all(torch.equal(released[name], plain[name]) for name in plain)
    released, plain = masks("fraction = 0.75", **{"prune.evaluation": "released"}), masks("fraction = 0.75")
    assert all(torch.equal(released[name], plain[name]) for name in plain)


@pytest.mark.parametrize("changes", [{}, {"prune.granularity": "unit"}], ids=str)
def test_finetuning_changes_what_stays_and_no_zero(runner, row, changes):
    planned = row(**changes, **{"finetune.epochs": 1, "finetune.lr": 0.01})
    assert list(planned.steps) == ["prune", "finetune pruned", "shrink" if changes else "store"]
    assert planned.steps["finetune pruned"].inputs == {"network": planned.pruned}
    tuned, pruned = runner.ensure(planned.steps["finetune pruned"]), runner.ensure(planned.pruned)
    before, after = (load_file(artifact.file("model.safetensors")) for artifact in (pruned, tuned))
    for name, mask in load_file(pruned.file("masks.safetensors")).items():
        assert not after[name][~mask].any()
        assert after[name][mask].ne(before[name][mask]).float().mean() > 0.3
    assert tuned.record["parameters_nonzero"] <= pruned.record["parameters_nonzero"]
    assert len(tuned.file("metrics.jsonl").read_text().splitlines()) == 1
    deployed = runner.ensure(planned.deployed)
    assert abs(tuned.record["accuracy"] - deployed.record["accuracy"]) <= 2.001 / SAMPLES


def test_finetuning_has_a_schedule_of_its_own(runner, row):
    changes = {"finetune.epochs": 2, "finetune.lr": 0.01, "finetune.lr_schedule.name": "cosine"}
    tuned = runner.ensure(row(**changes).steps["finetune pruned"])
    rates = [json.loads(line)["lr"] for line in tuned.file("metrics.jsonl").read_text().splitlines()]
    steps = 1438 // 32
    expected = [0.01 * 0.5 * (1 + math.cos(math.pi * (epoch * steps - 1) / (2 * steps))) for epoch in (1, 2)]
    assert rates == pytest.approx(expected)
    assert row(**changes).train.key == row().train.key


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


def test_rows_that_differ_in_augmentation_share_the_images(plan):
    found = plan(**{"sweep.data.crop_padding": [0, 1], "sweep.model.init": ["dirac"], "sweep.data.flip": [False, "alternating"]})
    assert len({row.train.key for row in found.rows}) == 4
    assert [row.config.differs for row in found.rows] == [
        {"data.crop_padding": padding, "data.flip": flip} for padding in (0, 1) for flip in (False, "alternating")
    ]
    assert [row.id for row in found.rows] == [
        "none-0.5",
        "none-alternating-0.5",
        "none-crop_padding1-0.5",
        "none-crop_padding1-alternating-0.5",
    ]
    loaded = [row.train.settings.data.load({}) for row in found.rows]
    assert len({id(data.train) for data in loaded}) == 1
    assert [data.augmentation.crop_padding for data in loaded] == [0, 0, 1, 1]


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
    moved.write_bytes(b"other")
    with pytest.raises(ModelError, match="holds no weights, neither safetensors nor torch's"):
        train(moved)
    with pytest.raises(ModelError, match=r"where the initial weights with sha256 .* lie is not known"):
        runner.ensure(row(**{"model.init": str(moved), "train.epochs": 0}).train)


def test_a_sweep_over_seeds_names_its_rows_and_trains_each(plan):
    found = plan(**{"sweep.seed": [0, 1]})
    assert [row.id for row in found.rows] == ["none-seed0-0.5", "none-seed1-0.5"]
    assert len({row.train.key for row in found.rows}) == 2
    assert found.dense_train.key == found.rows[0].train.key


def test_number_formats_are_rows_of_one_network(plan):
    found = plan(**{"export.values": ["float32", "int8"]})
    assert [(row.id, row.config.values) for row in found.rows] == [("none-0.5-float32", "float32"), ("none-0.5-int8", "int8")]
    assert len({row.deployed.key for row in found.rows}) == 1
    assert len({row.export.key for row in found.rows}) == 2


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


def test_a_training_with_gates_is_exported_with_its_gates(runner, plan):
    """Without an untargeted training the dense file is that of the first training, as it is deployed."""
    found = plan("l0", **{"sparsity.initial_drop": 0.5})
    trained = runner.ensure(found.dense_train)
    assert runner.ensure(found.dense).record["accuracy"] == pytest.approx(trained.record["accuracy"], abs=2.1 / SAMPLES)
    deployed, raw = load_network(trained).state_dict(), load_file(trained.file("model.safetensors"))
    ratio = (deployed["conv1.weight"] / raw["conv1.weight"]).nan_to_num()
    assert 0 < ratio.min() < ratio.max() < 1


def test_every_name_of_a_row_is_unique_and_can_name_a_file(plan):
    found = plan(**{"sweep.prune.fraction": [0.1, 0.25], "sweep.prune.granularity": ["weight", "unit"], "sweep.seed": [0, 1]})
    names = [row.id for row in found.rows]
    assert len(set(names)) == 8
    assert all("/" not in name and name == name.strip(". ") for name in names)


def test_where_data_lies_and_what_is_measured_do_not_change_the_key_of_a_training(row):
    assert row().train.key == row(**{"bench.budget": "quick", "export.pack": "never", "prune.fraction": 0.1}).train.key
    for changes in ({"seed": 1}, {"train.epochs": 2}, {"model.width": 4}, {"data.crop_padding": 0}):
        assert row(**changes).train.key != row().train.key


def test_golden_keys_of_a_recipes_tasks(plan, runner, monkeypatch, tmp_path):
    """These change only when a stage's version is raised or a setting is added: old results are then made again."""
    monkeypatch.setattr(
        workers, "read_host", lambda: SimpleNamespace(id="host", versions=("onnxruntime 1", "OMP_WAIT_POLICY=ACTIVE"))
    )
    monkeypatch.setattr("tdcompress.stages.vocabulary.version", lambda package: "1")
    text = TINY.format(root=write_corpus(tmp_path, train=4, others=2))
    prepared = plan_run(parse_recipe(text, "words.toml"), runner.store).rows[0].train.inputs.values()
    changes = {"sparsity.gamma": 0.5, "sparsity.alpha": 0.5}
    weights = plan("targeted", "fraction = 0.5", **changes, **{"analyse.bins": 8, "bench.budget": "quick"})
    units = plan("targeted", **changes, **{"prune.granularity": "unit", "finetune.epochs": 1, "finetune.after": "shrink"})
    (first,), (second,) = weights.rows, units.rows
    tasks = [*prepared, *first.tasks(), *weights.analyses, weights.bench, second.steps["shrink"], second.steps["finetune shrunk"]]
    assert {task.stage.name: task.key for task in tasks} == GOLDEN
    assert GOLDEN.keys() == STAGES.keys()


GOLDEN = {
    "vocabulary": "4975f3c948da101a",
    "train": "be437e485bdfe044",
    "prune": "183173e9261e5d50",
    "finetune": "ed923a1297c3bce7",
    "shrink": "9b1802cf2177058b",
    "store": "a816ac72301b82f3",
    "export": "31ff3a1fcff238b8",
    "bench": "81f74c7d9cc8fc0c",
    "analyse": "44feb3be1c6560bb",
}


@pytest.mark.parametrize(
    ("prune", "changes", "said"),
    [
        ("keep_per_filter = 3", {"prune.granularity": "unit", "sparsity.gamma": 0.5}, "prune.keep_per_filter: it counts weights"),
        ("fraction = 0.5", {"sparsity.schedule": "ramp", "sparsity.gamma": 0.5}, "sparsity.ramp_epochs"),
        (RELEASED, {"sparsity.keep_per_filter": 3}, "prune.evaluation: .*this targeted has no gamma"),
        (RELEASED, {"sparsity.gamma": 0.5, "prune.granularity": "unit"}, "of granularity .weight., and here it is .unit."),
        ("keep_per_filter = 3", {"sparsity.gamma": 0.5, "prune.evaluation": "released"}, "keep_per_filter is no share"),
        (
            "fraction = 0.75",
            {"sparsity.gamma": 0.5, "prune.granularity": "2:4"},
            "prune.fraction: 0.75 is no share that .2:4. can",
        ),
        ("keep_per_filter = 2", {"sparsity.gamma": 0.5, "prune.granularity": "2:4"}, "prune.keep_per_filter: not a key"),
        ("fraction = 0.5", {"sparsity.gamma": 0.5, "sparsity.granularity": "2:4"}, "sparsity.granularity: .*conv1 has 1 input"),
        (
            "fraction = 0.5",
            {"sparsity.gamma": 0.5, "prune.granularity": "1x4", "model.width": 6},
            "prune.granularity: .*conv1 has 6",
        ),
        (RELEASED, {"sparsity.gamma": 0.5, "prune.shares": "erk"}, "split by .filter., and here shares = .erk."),
        ("keep_per_filter = 3", {"sparsity.gamma": 0.5, "prune.shares": "erk"}, "prune.shares: they split a fraction"),
        ("fraction = 0.5", {"sparsity.keep_per_filter": 3, "sparsity.shares": "erk"}, "sparsity.shares: they split gamma"),
        ("fraction = 0.5", {**UNITS, "sparsity.shares": "filter"}, "sparsity.shares: .filter. is a share of the weights"),
        ("fraction = 0.5", {**UNITS, "prune.shares": "filter"}, "prune.shares: .filter. is a share of the weights"),
        ("fraction = 0.5", {**CUBIC, "sparsity.freeze_share": 0.5}, "sparsity.freeze_share: 0.5 would freeze the masks"),
        ("fraction = 0.5", {**CUBIC, "sparsity.schedule_epochs": 5}, "sparsity.schedule_epochs: 5, but the training has 1"),
        ("fraction = 0.5", {**CUBIC, "sparsity.ramp_share": [0.5, 0.2]}, "sparsity.ramp_share: "),
    ],
)
def test_combinations_that_cannot_be_are_refused(plan, prune, changes, said):
    with pytest.raises(RecipeError, match=said):
        plan("targeted", prune, **changes)


def test_released_evaluation_is_refused_for_methods_without_candidates(plan):
    with pytest.raises(RecipeError, match=r'line \d+: prune\.evaluation: .* this dropout has no gamma; take "plain"'):
        plan("dropout", RELEASED)


def test_masks_are_those_of_the_smallest_magnitudes(runner, row):
    planned = row(prune="fraction = 0.5")
    trained = load_file(runner.ensure(planned.train).file("model.safetensors"))
    masks = load_file(runner.ensure(planned.pruned).file("masks.safetensors"))
    for name, mask in masks.items():
        rows = trained[name].flatten(1).abs().numpy()
        dropped = np.argsort(rows, axis=1, kind="stable")[:, : rows.shape[1] // 2]
        expected = np.ones(rows.shape, bool)
        np.put_along_axis(expected, dropped, False, axis=1)
        np.testing.assert_array_equal(mask.flatten(1).numpy(), expected)


def test_layers_that_are_included_are_asked_for_as_units(runner, row, monkeypatch):
    plain, asked = (row("none", f'fraction = 0.37\ngranularity = "unit"{more}') for more in ("", '\ninclude = ["conv2"]'))
    assert plain.train.key == asked.train.key
    assert plain.pruned.key != asked.pruned.key
    given, find = [], units.find_units
    monkeypatch.setattr(units, "_found", {})
    monkeypatch.setattr(units, "find_units", lambda *args, include, **rest: given.append(include) or find(*args, **rest))
    assert layers(runner.ensure(plain.pruned)) == layers(runner.ensure(asked.pruned))  # its units can leave in any case
    assert given == [(), ("conv2",)]


def test_units_of_networks_that_are_built_alike_are_found_once(runner, plan, monkeypatch):
    """In all trainings of a sweep, and again where a trained network is read back, pruned and shrunk."""
    traced, find = [], units.find_units
    monkeypatch.setattr(units, "_found", {})
    monkeypatch.setattr(units, "find_units", lambda model, *args, **more: traced.append(model) or find(model, *args, **more))
    found = plan("targeted", **UNITS, **{"sweep.sparsity.alpha": [0.4, 0.6]})
    pruned = [runner.ensure(row.pruned) for row in found.rows]
    assert len(pruned) == 2
    assert len(traced) == 1
    asked = found.rows[0].train.settings
    for other in (
        {"seed": 7},  # networks may be wired by chance
        {"model.width": 4},
        {"sparsity.scope": "group"},
        {"sparsity.unit": "filter"},
        {"sparsity.exclude": ["conv2"]},
    ):
        training = plan("targeted", **UNITS, **other).rows[0].train.settings
        task = training.data.task({})
        training_targets(training, new_network(training, task), task)
    assert len(traced) == 6
    task = asked.data.task({})
    assert training_targets(asked, new_network(asked, task), task).groups == training_targets(asked, traced[0], task).groups
    assert len(traced) == 6


def test_the_trainings_include_holds_unless_pruning_has_its_own_or_prunes_weights(row):
    changes = {**UNITS, "sparsity.gamma": 0.5, "sparsity.include": ["conv2"]}

    def included(**more):
        return row("targeted", "fraction = 0.5", **changes, **more).pruned.settings.include

    assert included() == ("conv2",)
    assert included(**{"prune.include": ["conv3"]}) == ("conv3",)
    assert included(**{"prune.include": []}) == included(**{"prune.granularity": "weight"}) == ()


def test_a_training_drops_units_that_could_never_leave_where_it_includes_their_layer(runner):
    """Shortcuts that pad their channels keep all that is written into the stream."""
    text = small_recipe("short", TABLES.format(method="targeted"), width=8, hidden=16)
    text = text.replace('name = "digits_cnn"\nwidth = 8\nhidden = 16', 'name = "cifar_resnet20"\nshortcut = "pad"')
    found = []
    for include in ([], ["stages.0.0.conv2"]):
        recipe = parse_recipe(text, "padded.toml", {**UNITS, "sparsity.include": include})
        training = plan_run(recipe, runner.store).rows[0].train.settings
        task = training.data.task({})
        targets = training_targets(training, new_network(training, task), task)
        found.append({group.name for group in targets.groups})
    assert found[1] - found[0] == {"stages.0.0.conv2"}


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
