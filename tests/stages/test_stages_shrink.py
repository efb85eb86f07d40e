"""From the recipe to the narrow network and back from disk: alignment, fine-tuning after shrinking, layers that stay dense."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_recipes import small_recipe

from tdcompress.errors import ArtifactError, InterruptedRun, ModelError, RecipeError
from tdcompress.lineage.network import load_network, new_network
from tdcompress.lineage.origin import origin_of
from tdcompress.pipeline import Runner
from tdcompress.recipes.source import parse_recipe
from tdcompress.runs.manifest import DENSE_FILE
from tdcompress.runs.plan import plan_run
from tdcompress.runs.rows import make_report
from tdcompress.runs.verification import verify_path
from tdcompress.stages.prune import make_masks
from tdcompress.stores.folder import FolderStore

RECIPE = small_recipe(
    "aligned",
    """
[sparsity]
method = "none"
granularity = "unit"

[train]
epochs = 0
batch_size = 16
optimizer = { name = "sgd", lr = 0.05, momentum = 0.9 }
""",
    width=8,
    hidden=16,
    prune="fraction = 0.6",
)
CPU = torch.device("cpu")
TIMES = {"seconds": None, "images_per_second": None}
WEIGHTS = ("conv1.weight", "conv2.weight", "conv3.weight", "hidden.weight")


def plan(runner, **changes):
    return plan_run(parse_recipe(RECIPE, "shrink.toml", changes), runner.store)


def test_align_is_a_setting_of_the_stage(runner):
    (plain,), (aligned,) = plan(runner).rows, plan(runner, **{"shrink.align": 4}).rows
    assert plain.pruned.key == aligned.pruned.key
    assert plain.deployed.key != aligned.deployed.key
    made = [runner.ensure(row.deployed) for row in (plain, aligned)]
    widths = [[load_network(found).state_dict()[name].shape[0] for name in WEIGHTS] for found in made]
    assert widths == [[4, 7, 7, 7], [4, 8, 8, 8]]  # n - floor(0.6 n), rounded up
    reasons = {dead["layer"]: dead["reason"] for dead in made[1].record["dead_but_kept"]}
    assert reasons == dict.fromkeys(("conv2", "conv3", "hidden"), "kept to align to 4")
    assert made[0].record["accuracy"] == made[1].record["accuracy"]


def test_alignments_can_be_swept_and_name_their_rows(runner):
    assert [row.id for row in plan(runner, **{"sweep.shrink.align": [1, 8]}).rows] == [
        "none-0.6",
        "none-shrink-align8-0.6",
    ]


def test_an_alignment_below_one_is_refused(runner):
    with pytest.raises(RecipeError, match=r"shrink\.align: 0 is out of range"):
        plan(runner, **{"shrink.align": 0})


def test_a_shrunk_network_trains_on_as_a_stage_of_its_own(runner):
    (row,) = plan(runner, **{"finetune.epochs": 2, "finetune.after": "shrink"}).rows
    assert (row.pruned.stage.name, row.steps["shrink"].stage.name, row.deployed.stage.name) == ("prune", "shrink", "finetune")
    assert row.deployed.inputs == {"network": row.steps["shrink"]}
    shrunk, tuned = runner.ensure(row.steps["shrink"]), runner.ensure(row.deployed)
    assert shrunk.key == plan(runner).rows[0].deployed.key  # shared with rows that do not train on
    before, after = load_file(shrunk.file("model.safetensors")), load_file(tuned.file("model.safetensors"))
    assert {name: value.shape for name, value in before.items()} == {name: value.shape for name, value in after.items()}
    assert all(after[name].ne(before[name]).float().mean() > 0.9 for name in WEIGHTS)
    assert tuned.file("kept_channels.json").read_bytes() == shrunk.file("kept_channels.json").read_bytes()
    assert len(tuned.file("metrics.jsonl").read_text().splitlines()) == 2
    assert tuned.record["epochs"] == 2
    assert tuned.record["accuracy"] > shrunk.record["accuracy"] + 0.2  # this one was never trained before
    network = load_network(tuned)  # from the plain constructor and kept_channels.json
    assert [network.state_dict()[name].shape[0] for name in WEIGHTS] == [4, 7, 7, 7]
    assert origin_of(tuned).data.task({}).measured(network, CPU) == tuned.record["accuracy"]
    kept = tuned.file("kept_channels.json")
    whole = kept.read_text()
    for content, error in (("{", ArtifactError), ("[]", ArtifactError), ("{}", ModelError), ('{"format": 9}', ModelError)):
        kept.write_text(content)
        with pytest.raises(error, match=r"kept_channels.* damaged, or of another version \("):
            load_network(tuned)
    kept.write_text(whole)


def test_fine_tuning_after_shrinking_goes_on_bit_exactly_where_it_was_stopped(runner, make_recorder, tmp_path):
    (row,) = plan(runner, **{"finetune.epochs": 2, "finetune.after": "shrink"}).rows
    whole = runner.ensure(row.deployed)
    store = FolderStore(tmp_path)
    signals = iter([None] * 100 + [15])
    with pytest.raises(InterruptedRun, match="stopped after step") as stopped:
        Runner(store=store, watcher=make_recorder(), facts={}, should_stop=lambda: next(signals, None)).ensure(row.deployed)
    assert stopped.value.exit_code == 143
    assert not store.find_or_set_aside("finetune", row.deployed.key)
    again = make_recorder()
    resumed = Runner(store=store, watcher=again, facts={}).ensure(row.deployed)
    assert again.made == ["finetune"]
    assert again.kept[-1] == "shrink"
    assert resumed.files["model.safetensors"] == whole.files["model.safetensors"]
    assert {**resumed.record, **TIMES} == {**whole.record, **TIMES}


def nonzero(folder: Path) -> int:
    """Parameters that are not zero in a stage's network; what BatchNorm keeps of its batches is no parameter."""
    state = load_file(folder / "model.safetensors")
    return sum(int(value.count_nonzero()) for name, value in state.items() if not name.endswith(("_mean", "_var", "_tracked")))


@pytest.mark.parametrize("granularity", ["unit", "weight"])
def test_a_run_tells_the_masked_network_from_the_fine_tuned_one(run_text, tmp_path, granularity):
    changes = {"finetune.epochs": 1, "finetune.lr": 0.05, "prune.granularity": granularity}
    finished, _ = run_text(RECIPE, tmp_path, changes)
    (row,) = finished.report.rows
    links = json.loads((finished.folder / "stages.json").read_text())[row.id]
    compact = "shrink" if granularity == "unit" else "store"
    assert set(links) == {"train", "prune", "finetune", compact, "export"}
    records = {
        stage: json.loads((finished.folder / link / "manifest.json").read_text())["record"] for stage, link in links.items()
    }
    assert row.accuracy_masked == records["prune"]["accuracy"]
    assert row.accuracy_finetuned == records["finetune"]["accuracy"] > row.accuracy_masked  # never trained before
    assert row.accuracy_onnx == pytest.approx(row.accuracy_finetuned, abs=2.001 / 359)
    assert (row.epochs, row.finetune_epochs, row.finetune_after) == (1, 1, "prune")
    assert row.sparsity_model == records["finetune"]["sparsity_model"]
    if granularity == "unit":
        assert row.parameters_nonzero == nonzero(finished.folder / links["shrink"]) <= row.shrunk.parameters_after
    else:
        assert row.parameters_nonzero == records["finetune"]["parameters_nonzero"]


def test_dead_channels_that_alignment_kept_are_packed_away(runner):
    def exported(**changes):
        (row,) = plan(runner, **changes).rows
        return runner.ensure(row.export).record

    packed, dense, plain = exported(**{"shrink.align": 16}), exported(**{"shrink.align": 16, "export.pack": "never"}), exported()
    assert set(dense["encodings"]) == set(plain["encodings"]) == {"dense"}  # without dead channels there is nothing to pack
    assert set(packed["encodings"]) > {"dense"}
    assert packed["onnx_bytes"] < 0.8 * dense["onnx_bytes"]
    assert packed["parameters_nonzero"] == dense["parameters_nonzero"] > plain["parameters_nonzero"]  # what reads dead channels
    assert packed["accuracy"] == dense["accuracy"]


def test_a_run_says_that_the_certificate_is_from_before_the_fine_tuning(run_text, tmp_path):
    changes = {"sweep.finetune.epochs": [0, 1], "finetune.after": "shrink", "finetune.lr": 0.05}
    finished, watcher = run_text(RECIPE, tmp_path, changes)
    assert sorted(watcher.made) == ["export", "export", "export", "finetune", "prune", "shrink", "train"]
    plain, tuned = finished.report.rows
    assert (plain.id, tuned.id) == ("none-0.6", "none-finetune1-after-shrink-0.6")
    assert (plain.finetune_after, plain.accuracy_finetuned, tuned.finetune_after) == (None, None, "shrink")
    assert plain.shrunk == tuned.shrunk
    assert tuned.accuracy_masked == plain.accuracy_masked
    assert tuned.accuracy_onnx == pytest.approx(tuned.accuracy_finetuned, abs=2.001 / 359)
    assert tuned.epochs == tuned.finetune_epochs == 1
    markdown = (finished.folder / "report.md").read_text()
    assert "The certificate is of shrinking; fine-tuning after it changed the weights." in markdown
    assert "| then fine-tuned |" in markdown
    links = json.loads((finished.folder / "stages.json").read_text())
    assert set(links[tuned.id]) == {"train", "prune", "shrink", "finetune", "export"}
    assert plain.parameters_nonzero == nonzero(finished.folder / links[plain.id]["shrink"])
    assert tuned.parameters_nonzero == nonzero(finished.folder / links[tuned.id]["finetune"])
    assert max(plain.parameters_nonzero, tuned.parameters_nonzero) <= plain.shrunk.parameters_after < plain.parameters_total
    _, second = run_text(RECIPE, tmp_path, changes)
    assert second.made == []
    assert verify_path(finished.folder)


def test_weights_are_not_shrunk_so_they_do_not_train_on_after_it(runner):
    changes = {"sparsity.granularity": "weight", "finetune.epochs": 1, "finetune.after": "shrink"}
    with pytest.raises(RecipeError, match=r"finetune\.after: weights are pruned here, and only units are shrunk"):
        plan(runner, **changes)


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_excluded_layers_stay_dense_though_they_were_trained_on(runner, granularity):
    changes = {"sparsity.granularity": granularity, "prune.exclude": ["conv2", "hidden"]}
    (row,), (all_of_them,) = plan(runner, **changes).rows, plan(runner, **{"sparsity.granularity": granularity}).rows
    assert row.train.key == all_of_them.train.key
    assert row.pruned.key != all_of_them.pruned.key
    state = load_file(runner.ensure(row.pruned).file("model.safetensors"))
    full = {name: bool((state[name] != 0).all()) for name in WEIGHTS}
    assert full == {"conv1.weight": False, "conv2.weight": True, "conv3.weight": False, "hidden.weight": True}


def test_excluded_layers_are_known_before_anything_is_trained(runner):
    with pytest.raises(RecipeError, match=r"prune\.exclude: exclude = 'conv9' names no convolution or linear layer of DigitsCnn"):
        plan(runner, **{"prune.exclude": ["conv9"]})
    with pytest.raises(RecipeError, match=r"sparsity\.exclude: exclude = 'conv9' names no convolution or linear layer"):
        plan(runner, **{"sparsity.granularity": "weight", "sparsity.exclude": ["conv9"]})
    with pytest.raises(RecipeError, match=r"sparsity\.exclude: every layer of DigitsCnn is excluded: nothing is left to prune"):
        plan(runner, **{"sparsity.exclude": ["conv1", "conv2", "conv3", "hidden"], "prune.exclude": []})
    short, many = (plan(runner, **{"sweep.prune.exclude": [[], names]}).rows[1].id for names in (["conv1"], ["conv1"] * 9))
    assert (short, many) == ("none-without-conv1-0.6", "none-without-9-layers-0.6")


def test_the_trainings_exclude_holds_unless_pruning_has_its_own(runner):
    def zeros(**changes):
        (row,) = plan(runner, **{"sparsity.exclude": ["conv2"], **changes}).rows
        state = load_file(runner.ensure(row.pruned).file("model.safetensors"))
        return [name for name in WEIGHTS if not state[name].all()]

    assert zeros() == ["conv1.weight", "conv3.weight", "hidden.weight"]
    assert zeros(**{"prune.exclude": []}) == list(WEIGHTS)


def test_the_methods_scores_rank_the_groups_that_it_was_trained_on(runner):
    def kept(**changes):
        (row,) = plan(runner, **{"sparsity.method": "l0", **changes}).rows
        training = row.train.settings
        task, scores = training.data.task({}), {"conv1": torch.arange(8.0), "conv2": torch.arange(16.0)}
        masks, _ = make_masks(row.pruned.settings, training, new_network(training, task), scores, task)
        return {name: masks[f"{name}.weight"].flatten(1).any(1).nonzero().ravel().tolist() for name in ("conv1", "conv2")}

    own = {"conv1": list(range(4, 8)), "conv2": list(range(9, 16))}
    assert kept() == kept(**{"prune.exclude": ["hidden"]}) == kept(**{"prune.scope": "group"}) == own
    assert kept(**{"sparsity.exclude": ["conv2"], "prune.exclude": []})["conv1"] == own["conv1"]
    assert kept(**{"sparsity.exclude": ["conv2"], "prune.exclude": []})["conv2"] != own["conv2"]  # by magnitude


def test_a_network_with_new_statistics_is_certified_exported_and_shown_with_both_accuracies(runner):
    """Certificate, shrunk network and file are of one network: all are made after the statistics were estimated again."""
    found = plan(runner, **{"train.epochs": 1, "prune.recalibrate": 256})
    row = found.rows[0]
    artifacts = {task.key: runner.ensure(task) for task in (found.dense, row.train, row.pruned, row.steps["shrink"], row.export)}
    sizes = {f"{row.id}.onnx": 1, DENSE_FILE: 2}
    shown = make_report(found, artifacts, sizes).rows[0]
    assert shown.accuracy_before is not None
    assert shown.accuracy_before != shown.accuracy_masked
    assert shown.accuracy_shrunk == shown.accuracy_masked
    assert abs(shown.accuracy_onnx - shown.accuracy_masked) <= 2 / 359
    assert artifacts[row.steps["shrink"].key].record["max_error"] < 1e-6
