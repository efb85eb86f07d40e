"""Fine-tuning changes what stays, no zero, and by a schedule of its own."""

import json
import math

import pytest
from safetensors.torch import load_file
from short_trainings import SAMPLES


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
