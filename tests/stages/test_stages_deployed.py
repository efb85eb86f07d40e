"""The network that is deployed is the one that was trained and masked: its outputs, its zeros, its gates."""

import pytest
import torch
from safetensors.torch import load_file
from short_trainings import SAMPLES, UNITS, layers

from tdcompress.lineage.network import load_network
from tdcompress.lineage.origin import origin_of


def outputs(artifact):
    with torch.inference_mode():
        return load_network(artifact)(*origin_of(artifact).data.task({}).examples(50))


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


def test_a_training_with_gates_is_exported_with_its_gates(runner, plan):
    """Without an untargeted training the dense file is that of the first training, as it is deployed."""
    found = plan("l0", **{"sparsity.initial_drop": 0.5})
    trained = runner.ensure(found.dense_train)
    assert runner.ensure(found.dense).record["accuracy"] == pytest.approx(trained.record["accuracy"], abs=2.1 / SAMPLES)
    deployed, raw = load_network(trained).state_dict(), load_file(trained.file("model.safetensors"))
    ratio = (deployed["conv1.weight"] / raw["conv1.weight"]).nan_to_num()
    assert 0 < ratio.min() < ratio.max() < 1
