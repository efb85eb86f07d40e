"""Recipes with their artefacts in object storage: whole runs of several machines, and one that is killed."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_recipes import TARGETED, small_recipe
from waiting import until

from tdcompress.stores.claims import Pace

ROOT = Path(__file__).resolve().parents[2]
FAST = Pace(beat=0.5, stale=12.0, keep=0.2)
RECIPE = small_recipe(
    "small",
    f"""{TARGETED}
[train]
epochs = 1
batch_size = 64
""",
)

# Trains in a process of its own that can be killed.
TRAIN = """
import sys
sys.path.insert(0, {tests!r})
import test_stores_runs as here
here.train(sys.argv[1], sys.argv[2], pause=0.1)
"""


@dataclass
class Slow:
    """A watcher that takes its time, so that a training can be killed in the middle."""

    pause: float

    def started(self, task):
        return self

    def update(self, done, total, text):
        time.sleep(self.pause)

    def ignore(self, *arguments):
        pass

    finished = reused = left = ignore


def train(place, text, pause=0.0):
    """Make the trainings of a recipe, with a checkpoint after every step; returns the steps that they went on from."""
    from tdcompress.recipes.source import parse_recipe
    from tdcompress.runs import campaign
    from tdcompress.runs.execution import Execution
    from tdcompress.stages import train as stage
    from tdcompress.train import loop

    resumed = []

    def trained(*arguments, **options):
        result = loop.train(*arguments, checkpoint_seconds=0.0, **options)
        resumed.append(result.resumed_from_step)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "train", trained)
        patch.setattr("tdcompress.stores.objects.Pace", lambda: FAST)
        execution = Execution(root=place, device="cpu", watcher=Slow(pause), waiting=lambda what, seconds: None)
        campaign.run_campaign([parse_recipe(text, "small.toml")], execution)
    return resumed


def test_a_run_from_end_to_end_then_elsewhere_nothing_is_run(url, server, run_text, command, tmp_path, monkeypatch):
    (tmp_path / "small.toml").write_text(RECIPE)

    def typed(machine, *arguments):
        environment = {
            **server.environment,
            "TDCOMPRESS_CACHE": str(tmp_path / machine),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
        }
        done = command(*arguments, "--artifacts", url, env=environment, cwd=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        return done.stdout + done.stderr

    monkeypatch.setenv("TDCOMPRESS_CACHE", str(tmp_path / "a"))
    done, watcher = run_text(RECIPE, url)
    assert done.made == len(watcher.made) > 0
    assert "everything was there already; nothing was run" in typed("b", "run", "small.toml", "--device", "cpu")
    shown = typed("c", "status")
    assert f"runs in {url}" in shown
    assert "complete" in shown
    assert "ok  dense.onnx: valid, loads, 16 samples" in typed("d", "verify", "small")
    assert json.loads(typed("c", "report", "small", "--json"))["run"] == "small"
    assert not (tmp_path / "s3:").exists()
    assert not (tmp_path / "artifacts").exists()


def test_a_training_that_is_killed_goes_on_elsewhere_with_the_same_bits(url, machine, server, tmp_path, monkeypatch):
    text = RECIPE.replace(TARGETED, '\n[sparsity]\nmethod = "none"\n')  # one training
    environment = {
        **os.environ,
        **server.environment,
        "TDCOMPRESS_CACHE": str(tmp_path / "first"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "support"))),
    }
    program = TRAIN.format(tests=str(Path(__file__).parent))
    watching = machine("watching").bucket

    def step_saved():
        (name,) = (name for name in watching.names("claims") if name.startswith("claims/train-"))
        saved = json.loads(watching.read(name).data)["saved"]
        assert any(name.startswith("checkpoints/") for name in saved)

    with subprocess.Popen([sys.executable, "-c", program, url, text], env=environment) as process:
        until(step_saved, (AssertionError, ValueError), seconds=200.0)
        process.kill()
    assert process.returncode == -9
    monkeypatch.setenv("TDCOMPRESS_CACHE", str(tmp_path / "second"))
    (resumed,) = train(url, text)
    assert resumed > 0
    assert train(str(tmp_path / "whole"), text) == [0]
    digests = {
        json.loads(path.read_bytes())["files"]["model.safetensors"]
        for path in (
            *tmp_path.glob("second/**/stages/train/*/manifest.json"),
            *tmp_path.glob("whole/stages/train/*/manifest.json"),
        )
    }
    assert len(digests) == 1


def test_a_server_without_conditional_puts_is_refused_by_run_in_one_line(url, reachable, command, tmp_path):
    reachable.ignores_conditions = True
    (tmp_path / "small.toml").write_text(RECIPE)
    environment = {**reachable.environment, "TDCOMPRESS_CACHE": str(tmp_path / "cache")}
    done = command("run", "small.toml", "--only", "train", "--artifacts", url, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if "tdcompress:" in line)
    assert "ignores conditional puts" in line


def test_verbs_that_need_a_folder_refuse_object_storage(command, tmp_path):
    done = command("artifacts", "list", "--artifacts", "s3://bucket/x", cwd=tmp_path)
    assert done.returncode == 2
    assert "this verb needs a folder" in done.stderr
