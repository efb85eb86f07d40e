"""Fine-tuning changes what stays, no zero, and by a schedule of its own."""

import json
import logging
import math

import pytest
from safetensors.torch import load_file
from short_trainings import SAMPLES

from tdcompress.errors import TrainingError


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


def test_messages_name_the_keys_of_the_finetuning(runner, row, caplog):
    late = {"name": "piecewise", "milestones": [5], "factors": [0.1]}
    planned = row(**{"train.lr_schedule": late, "finetune.epochs": 2, "finetune.lr_schedule": late})
    with caplog.at_level(logging.WARNING):
        runner.ensure(planned.train)
        assert "train.lr_schedule.milestones: the first one, 5 epochs, comes after the last step" in caplog.text
        caplog.clear()
        runner.ensure(planned.steps["finetune pruned"])
    assert "finetune.lr_schedule.milestones: the first one, 5 epochs, comes after the last step" in caplog.text
    assert "train.lr_schedule" not in caplog.text
    diverging = row(**{"finetune.epochs": 1, "finetune.lr": 1e30})
    with pytest.raises(TrainingError, match=r"Lower finetune\.lr, or set train\.clip_norm"):
        runner.ensure(diverging.steps["finetune pruned"])
