"""A whole run in two processes under torchrun: the first leads, the other helps to train, and a failure of one ends both."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_recipes import TARGETED, small_recipe

from tdcompress.cli import main
from tdcompress.errors import TrainingError, UserError
from tdcompress.lineage.versions import VERSIONS
from tdcompress.recipes.source import parse_recipe
from tdcompress.runs import crew
from tdcompress.runs.execution import Execution
from tdcompress.runs.run import run_recipe
from tdcompress.stages import train

RECIPE = small_recipe(
    "shared",
    f"""{TARGETED}granularity = "unit"
[train]
epochs = 1
batch_size = 256
sync_batchnorm = true
[finetune]
epochs = 1
lr = 0.01
after = "shrink"
""",
)
BROKEN = """
import os, sys
from tdcompress.cli import main
from tdcompress.train import step

def fail(self, *arguments):
    if os.environ["RANK"] == "1":
        raise MemoryError
    return plain(self, *arguments)

plain = step.Stepper._backward
step.Stepper._backward = fail
sys.exit(main(sys.argv[1:]))
"""


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    (folder / "shared.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "run", "shared.toml", "--device", "cpu"],
        capture_output=True, text=True, timeout=300, cwd=folder, env=environment, check=False,
    )  # fmt: skip


def test_a_recipe_runs_in_two_processes_and_one_takes_up_what_they_made(tmp_path, capsys, monkeypatch):
    done = torchrun(tmp_path, "-m", "tdcompress")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stages were run") == 1  # the first process alone speaks
    report = json.loads((tmp_path / "artifacts/shared/report.json").read_text())
    (row,) = report["rows"]
    assert row["device"].startswith("2 processes, ")
    assert row["accuracy_finetuned"] == pytest.approx(row["accuracy_onnx"], abs=2 / 359)
    metrics = next((tmp_path / "artifacts/stages/train").glob("*/metrics.jsonl")).read_text().splitlines()
    assert json.loads(metrics[-1])["test_accuracy"] == pytest.approx(row["accuracy_dense"], abs=1 / 359)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "shared.toml"]) == 0
    assert "nothing was run" in capsys.readouterr().out


def test_a_process_that_fails_ends_all_with_its_message(tmp_path):
    program = tmp_path / "broken.py"
    program.write_text(BROKEN)
    done = torchrun(tmp_path, str(program))
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("tdcompress: ")]
    assert len(told) == 1, done.stderr
    assert "out of memory" in told[0]
    assert not list((tmp_path / "artifacts/stages").glob("*/[0-9a-f]*[0-9a-f]"))


def test_a_stage_of_another_version_is_not_helped_with():
    call = crew.Call(stage="train", name="train it", version=VERSIONS["train"], settings={}, folder="", inputs={}, places={})
    assert crew._called_for(call) is train.STAGE
    with pytest.raises(TrainingError, match=r"process 0 has version \d+ of the stage train, the first one 0; install the same"):
        crew._called_for(replace(call, version=0))


def test_processes_that_nobody_leads_are_refused(tmp_path, monkeypatch, make_recorder):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="each of which would make the whole run"):
        run_recipe(parse_recipe(RECIPE, "shared.toml"), Execution(root=tmp_path, device="cpu", watcher=make_recorder()))
