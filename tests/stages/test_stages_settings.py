"""A stage sees what its key hashes, and nothing else."""

import dataclasses
import importlib
import itertools
import pkgutil
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from every_stage import UNITS, WEIGHTS
from words import TINY, write_corpus

from tdcompress import stages
from tdcompress.codec import decode, encode
from tdcompress.lineage.versions import VERSIONS
from tdcompress.pipeline import Machine, Runner, Stage, Task, Workspace
from tdcompress.records.stages import TrainRecord
from tdcompress.stages import STAGES, bench
from tdcompress.stores.folder import FolderStore
from tdcompress.train.manner import Manner
from tdcompress.train.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[2]


def test_every_file_of_the_folder_is_a_stage_that_owns_its_settings_and_work_and_its_version_is_listed() -> None:
    files = {module.name for module in pkgutil.iter_modules(stages.__path__)}
    assert files == set(STAGES) == set(VERSIONS)
    assert files == {"vocabulary", "train", "prune", "finetune", "shrink", "store", "export", "bench", "analyse"}
    for name, stage in STAGES.items():
        module = importlib.import_module(f"tdcompress.stages.{name}")
        assert (stage.name, stage.version, stage.settings, stage.run) == (name, VERSIONS[name], module.Settings, module.run)
        assert stage.settings.__module__ == module.__name__
        assert stage.record is not Any


def test_every_stage_is_in_the_contract_of_independence_and_on_the_design_page() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (independent,) = (contract["modules"] for contract in contracts if contract["name"].startswith("a stage knows no other"))
    assert {name.removeprefix("tdcompress.stages.") for name in independent} == set(STAGES)
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"\n\| stage \| files \| record \|\n\|[-|]+\n((?:\|.*\n)+)", page)
    assert {line.split()[1] for line in listed.splitlines()} == set(STAGES)


@pytest.fixture(scope="module")
def settings_of_every_stage(tasks: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    translator = TINY.format(root=write_corpus(tmp_path_factory.mktemp("corpus"), train=4, others=2))
    found = {task.stage.name: task.settings for text in (translator, WEIGHTS, UNITS) for task in tasks(text).values()}
    assert found.keys() == STAGES.keys()
    return found


@pytest.mark.parametrize(("stage", "other"), list(itertools.permutations(STAGES, 2)))
def test_settings_of_another_stage_are_refused(stage: str, other: str, settings_of_every_stage: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"stage {stage}: settings of type Settings are another stage's"):
        Task(stage=STAGES[stage], settings=settings_of_every_stage[other], title="wrong")


def names_of(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    ("begins", "used"),
    [
        ("`work` is", names_of(Workspace)),
        ("`work.machine` is all", names_of(Machine)),
        # of a manner, what changes a result; that the record keeps it is in the fields of both
        ("Settings may leave", names_of(Manner) & names_of(TrainRecord) & names_of(TrainSettings)),
    ],
)
def test_what_a_stage_may_use_besides_its_settings_and_inputs_is_listed_in_one_place(begins: str, used: set[str]) -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    (listed,) = re.findall(rf"^- ({re.escape(begins)}.*(?:\n  .*)*)", page, flags=re.MULTILINE)
    assert set(re.findall(r"`([a-z_]+)`", listed)) - {"work"} == used


def test_a_stage_gets_the_very_object_that_was_hashed(tmp_path: Path, make_recorder: Any) -> None:
    got: list[Any] = []
    stage = Stage(name="look", version=1, settings=dict, run=lambda settings, work: got.append((settings, work.machine)) or {})
    task, machine = Task(stage=stage, settings={"a": 1}, title="look"), Machine(device="cuda")
    artifact = Runner(store=FolderStore(tmp_path), watcher=make_recorder(), facts={}, machine=machine).ensure(task)
    ((settings, used),) = got
    assert settings is task.settings
    assert used is machine
    assert artifact.settings == settings


@pytest.mark.parametrize("order", list(itertools.permutations(("dense", "b", "a"))))
def test_a_stage_gets_its_inputs_in_the_order_that_its_key_knows(
    tmp_path: Path, make_recorder: Any, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    """The key sorts them, so tasks that name them in another order share one result: of a benchmark, the order of its files."""

    def write(settings: dict[str, str], work: Workspace) -> dict[str, str]:
        (work.folder / "model.onnx").touch()
        (work.folder / "samples.npz").touch()
        return {}

    export = Stage(name="export", version=1, settings=dict, run=write)
    inputs = {name: Task(stage=export, settings={"a": name}, title=name) for name in order}
    look = Stage(name="look", version=1, settings=dict, run=lambda settings, work: {"order": list(work.inputs)})
    runner = Runner(store=FolderStore(tmp_path), watcher=make_recorder(), facts={})
    task = Task(stage=look, settings={}, inputs=inputs, title="look")
    assert task.key == Task(stage=look, settings={}, inputs=dict(sorted(inputs.items())), title="look").key
    assert runner.ensure(task).record == {"order": ["a", "b", "dense"]}

    timed: list[Any] = []
    monkeypatch.setattr(bench, "read_deployed", lambda path: None)
    monkeypatch.setattr(bench, "sampled_inputs", lambda network, samples, batch: None)
    monkeypatch.setattr(bench, "benchmark", lambda files, **options: timed.append(files))
    made = {name: runner.ensure(each) for name, each in inputs.items()}
    work = Workspace(folder=tmp_path, inputs=made, machine=Machine(), progress=make_recorder())
    with pytest.raises(AttributeError):  # nothing was measured that could be written
        bench.run(bench.Settings(host="here", versions=(), seed=0), work)
    assert timed == [[made[name].file("model.onnx") for name in "ab"]]


@pytest.mark.parametrize("text", [WEIGHTS, UNITS])
def test_settings_come_back_from_a_manifest_as_they_were(tasks: Any, text: str) -> None:
    for task in tasks(text).values():
        assert decode(task.stage.settings, encode(task.settings)) == task.settings
