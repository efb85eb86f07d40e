"""An artifacts folder with a finished and an unfinished training, made without any training."""

import hashlib
import json
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tdcompress.artifacts import SCRATCH
from tdcompress.lineage.versions import VERSIONS
from tdcompress.pipeline import Runner, Stage, Task
from tdcompress.records.stages import TrainRecord
from tdcompress.stores.folder import FolderStore
from tdcompress.train.saved import CHECKPOINTS, manifest_path, tensors_path

RECORD = TrainRecord(
    method="none",
    options={},
    granularity="weight",
    epochs=1,
    accuracy=0.5,
    seconds=1.0,
    throughput=100.0,
    unit="images",
    device="cpu",
    path="fast",
    path_reason="",
    precision="float32",
    threads=1,
    notes=(),
)


class Stopped(Exception):
    """How the unfinished training ends."""


def write_checkpoint(partial: Path, step: int, content: bytes) -> None:
    folder = partial / SCRATCH / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    tensors_path(folder, step).write_bytes(content)
    manifest = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest_path(folder, step).write_text(json.dumps(manifest))


def task(seed: int, content: bytes, checkpoints: tuple[int, ...] = (), version: int = VERSIONS["train"]) -> Task:
    """A training: finished, or stopped after checkpoints at these steps."""

    def work(settings: dict[str, Any], workspace: Any) -> TrainRecord:
        for step in checkpoints:
            write_checkpoint(workspace.folder, step, content)
        if checkpoints:
            (workspace.folder / SCRATCH / "metrics.jsonl").write_text("{}\n")
            raise Stopped
        (workspace.folder / "model.safetensors").write_bytes(content)
        (workspace.folder / "metrics.jsonl").write_text('{"epoch": 1}\n')
        return RECORD

    settings = {"seed": seed, "model": {"name": "mlp"}, "method": {"name": "none"}, "lr": 0.1}
    return Task(stage=Stage(name="train", version=version, settings=dict, run=work), settings=settings, title=f"train {seed}")


def fill(root: Path, recorder: Any, *tasks: Task) -> list[str]:
    runner = Runner(store=FolderStore(root), watcher=recorder, facts={"versions": {"x": "1"}})
    for one in tasks:
        with suppress(Stopped):
            runner.ensure(one)
    return [one.key for one in tasks]


def contents(folder: Path) -> dict[str, bytes]:
    """All files of the stages, by name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted((folder / "stages").rglob("*")) if p.is_file()}


CONTENT = bytes(range(256)) * 800  # 200 kB


@pytest.fixture
def small() -> ModuleType:
    """This module: ``small.fill(root, recorder, small.task(1, b"..."))``."""
    return sys.modules[__name__]


@pytest.fixture
def made(tmp_path, make_recorder):
    """(root, key of the finished training, key of the unfinished one, which has two checkpoints)."""
    root = tmp_path / "here"
    keys = fill(root, make_recorder(), task(1, CONTENT), task(2, CONTENT[::-1], (4, 8)))
    return root, *keys
