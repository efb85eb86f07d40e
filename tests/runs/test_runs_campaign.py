"""Trainings alone: in order, at the same time, cut off, failed; what they come to is what a run would make of them."""

import json
import re
import signal
import threading
from pathlib import Path

import pytest
from small_recipes import TARGETED, small_recipe

from tdcompress.errors import DataError, InterruptedRun, TdcompressError, TrainingError, UserError
from tdcompress.recipes.source import parse_recipe
from tdcompress.runs import campaign
from tdcompress.runs.campaign import run_campaign
from tdcompress.runs.execution import Execution
from tdcompress.runs.run import run_recipe
from tdcompress.runs.unfinished import unfinished_runs
from tdcompress.stages import train
from tdcompress.train import training
from tdcompress.train.together import share
from tdcompress.transfer.export import export_items
from tdcompress.transfer.intake import import_files
from tdcompress.transfer.items import newest_step, places

CASES = """
[train]
epochs = 1
batch_size = 256
[[sweep.case]]
seed = {first}
[[sweep.case]]
seed = 7
"""

TRAINING = r"train \S+ \S+ \([0-9a-f]{16}\)"


def text(name: str, first: int) -> str:
    return small_recipe(name, TARGETED + CASES.format(first=first))


def recipe(name: str = "a", first: int = 1, **changes):
    return parse_recipe(text(name, first), f"{name}.toml", {k.replace("__", "."): v for k, v in changes.items()})


def weights(root: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in root.glob("stages/train/*/model.safetensors")}


@pytest.fixture
def start(tmp_path, make_recorder):
    """Start a campaign below a folder; returns what it came to and the watcher."""

    def run(folder: str, *recipes, together=1, **options):
        watcher = make_recorder()
        execution = Execution(root=tmp_path / folder, device="cpu", watcher=watcher, **options)
        return run_campaign(recipes, execution, together=together), watcher

    return run


def test_trainings_alone_and_the_run_that_goes_on_from_them(start, tmp_path, make_recorder):
    done, watcher = start("x", recipe("a"), recipe("b", first=2))
    assert (done.trainings, done.made) == (3, 3)  # seed 7 is both recipes'
    assert watcher.made == ["train"] * 3
    assert [path.name for path in (tmp_path / "x" / "stages").iterdir()] == ["train"]
    assert unfinished_runs(tmp_path / "x") == []
    again, watcher = start("x", recipe("a"), recipe("b", first=2))
    assert (again.trainings, again.made, watcher.kept) == (3, 0, ["train"] * 3)
    before = weights(tmp_path / "x")
    watcher = make_recorder()
    run_recipe(recipe("a"), Execution(root=tmp_path / "x", device="cpu", watcher=watcher))
    assert "train" not in watcher.made
    assert "export" in watcher.made
    assert weights(tmp_path / "x") == before


def test_trainings_at_the_same_time_come_to_the_same_bits(start, tmp_path, monkeypatch):
    start("one", recipe("a"))
    both = threading.Barrier(2, timeout=60)
    original = training.Training.loop

    def shared(self, *arguments):  # as a step does that draws from generators of its own
        share()
        both.wait()
        return original(self, *arguments)

    monkeypatch.setattr(training.Training, "loop", shared)
    done, _ = start("two", recipe("a"), together=2)
    assert done.made == 2
    assert weights(tmp_path / "two") == weights(tmp_path / "one")
    assert len(weights(tmp_path / "one")) == 2


def test_trainings_on_the_fast_path_run_beside_each_other_with_the_same_bits(start, tmp_path, monkeypatch):
    choose, original, both = training.choose_path, training.Training.loop, threading.Barrier(2, timeout=60)
    monkeypatch.setattr(training, "choose_path", lambda asked, *rest, **options: choose("fast", *rest, **options))
    start("one", recipe("a", train__epochs=2))

    def together(self, *arguments):
        both.wait()
        return original(self, *arguments)

    monkeypatch.setattr(training.Training, "loop", together)
    start("two", recipe("a", train__epochs=2), together=2)
    assert weights(tmp_path / "two") == weights(tmp_path / "one")
    records = [json.loads(path.read_text())["record"] for path in (tmp_path / "two").glob("stages/train/*/manifest.json")]
    assert [record["path"] for record in records] == ["fast", "fast"]


def test_trainings_of_the_reference_step_take_turns(start, tmp_path, monkeypatch):
    inside, most = [], []
    original = training.Training.loop

    def counted(self, *arguments):
        inside.append(self)
        most.append(len(inside))
        try:
            return original(self, *arguments)
        finally:
            inside.remove(self)

    monkeypatch.setattr(training.Training, "loop", counted)
    start("two", recipe("a"), together=2)
    assert most == [1, 1]


@pytest.mark.parametrize("together", [1, 2])
def test_a_campaign_that_is_stopped_goes_on_with_the_same_bits(start, tmp_path, together):
    start("whole", recipe("a"))
    asked = []

    def soon():
        asked.append(1)
        return signal.SIGTERM if len(asked) > 6 else None

    with pytest.raises(InterruptedRun, match="0 of 2 trainings are done") as stopped:
        start("x", recipe("a"), should_stop=soon, together=together)
    assert stopped.value.exit_code == 143
    assert list((tmp_path / "x").glob("stages/train/*.partial/scratch/checkpoints/step-*.json"))
    assert [(run.intent.run, run.done) for run in unfinished_runs(tmp_path / "x")] == [("a", 0)]
    done, _ = start("x", recipe("a"))
    assert done.made == 2
    assert weights(tmp_path / "x") == weights(tmp_path / "whole")
    assert unfinished_runs(tmp_path / "x") == []


@pytest.mark.parametrize("together", [1, 2])
def test_one_failure_does_not_keep_the_others_from_being_made(start, tmp_path, monkeypatch, together, capsys):
    original = train._run

    def failing(settings, work):
        if settings.seed == 1:
            raise TrainingError("the loss is not finite")
        if settings.seed == 2:
            raise ZeroDivisionError("a fault")
        return original(settings, work)

    monkeypatch.setattr(train, "_run", failing)
    with pytest.raises(TdcompressError, match="2 of 3 failed") as failed:
        start("x", recipe("a"), recipe("b", first=2), together=together)
    assert re.fullmatch(rf"2 of 3 failed: {TRAINING}, {TRAINING}; the others are done", str(failed.value))
    told = sorted(failed.value.__notes__)
    assert len(told) == 2
    assert any(re.fullmatch(rf"{TRAINING}: the loss is not finite", line) for line in told)
    assert any(re.fullmatch(rf"{TRAINING}: ZeroDivisionError: a fault", line) for line in told)
    assert "ZeroDivisionError" in capsys.readouterr().err  # with its traceback
    assert len(weights(tmp_path / "x")) == 1


def test_what_failed_is_told_beside_what_is_unfinished(start, tmp_path, monkeypatch):
    """Time that is over does not hide a training that no further time would help."""
    original = train._run

    def failing(settings, work):
        if settings.seed == 1:
            raise TrainingError("the loss is not finite")
        asked.append(signal.SIGTERM)
        return original(settings, work)

    asked = []
    monkeypatch.setattr(train, "_run", failing)
    with pytest.raises(
        InterruptedRun, match=r"^0 of 2 trainings are done, 1 failed, and what was begun is saved: run"
    ) as stopped:
        start("x", recipe("a"), should_stop=lambda: asked[0] if asked else None)
    assert [line.partition("): ")[2] for line in stopped.value.__notes__] == ["the loss is not finite"]


def test_a_training_that_fails_alone_names_itself(start, tmp_path, monkeypatch):
    def failing(settings, work):
        raise TrainingError("the loss is not finite")

    monkeypatch.setattr(train, "_run", failing)
    with pytest.raises(TdcompressError) as failed:
        start("x", parse_recipe(small_recipe("a", "[sparsity]\nmethod = 'none'\n[train]\nepochs = 1\n"), "a.toml"))
    assert re.fullmatch(rf"{TRAINING}: the loss is not finite", str(failed.value))


def test_a_recipe_without_data_does_not_keep_the_others_from_being_made(start, tmp_path):
    absent = parse_recipe(text("b", first=3).replace('"digits"\n', f'"cifar10"\nroot = "{tmp_path}"\n'), "b.toml")
    with pytest.raises(UserError, match=r"^1 of 3 failed: b; the others are done") as failed:
        start("x", recipe("a"), absent)
    assert [note.startswith("b: CIFAR-10: ") for note in failed.value.__notes__] == [True]
    assert len(weights(tmp_path / "x")) == 2
    with pytest.raises(DataError):  # alone, it is said as it is
        start("x", absent)


def test_what_the_system_refuses_one_training_is_told_in_one_line(start, tmp_path, monkeypatch, capsys):
    """A disk that is full when the weights are to be written: safetensors has an error of its own for that."""
    resource = pytest.importorskip("resource")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    limits, original = iter([(1024, usual[1])]), train.save_tensors

    def once_refused(tensors, path):
        resource.setrlimit(resource.RLIMIT_FSIZE, next(limits, usual))
        try:
            original(tensors, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)

    monkeypatch.setattr(train, "save_tensors", once_refused)
    with pytest.raises(TdcompressError, match=r"^1 of 2 failed: .*; the others are done") as failed:
        start("x", recipe("a"))
    (told,) = failed.value.__notes__
    said = r"\S+\.partial/model\.safetensors: Error while serializing: I/O error: File too large \(os error 27\)"
    assert re.fullmatch(rf"{TRAINING}: {said}", told)
    assert "Traceback" not in capsys.readouterr().err
    assert len(weights(tmp_path / "x")) == 1


def test_what_the_system_refuses_one_recipe_does_not_keep_the_others_from_being_made(start, tmp_path, monkeypatch):
    original = campaign.plan_run

    def refused(planned, store):
        if planned.name == "b":
            raise PermissionError(13, "Permission denied", "data/train.gz")
        return original(planned, store)

    monkeypatch.setattr(campaign, "plan_run", refused)
    with pytest.raises(UserError, match=r"^1 of 3 failed: b; the others are done") as failed:
        start("x", recipe("a"), recipe("b", first=2))
    assert failed.value.__notes__ == ["b: data/train.gz: Permission denied"]
    assert len(weights(tmp_path / "x")) == 2


def test_recipes_of_one_name_and_several_processes_are_refused(start, monkeypatch):
    with pytest.raises(UserError, match="2 recipes are named 'a'"):
        start("x", recipe("a"), recipe("a", first=2))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun"):
        start("x", recipe("a"))


def test_an_unfinished_folder_says_what_its_key_is_a_hash_of(start, tmp_path):
    from tdcompress.artifacts import content_key

    asked = []
    with pytest.raises(InterruptedRun):
        start("x", recipe("a"), should_stop=lambda: asked.append(1) or (signal.SIGTERM if len(asked) > 4 else None))
    found = list((tmp_path / "x").glob("stages/train/*.partial/scratch/task.json"))
    assert found
    for path in found:
        assert content_key(json.loads(path.read_text())) == path.parent.parent.stem


def test_the_trainings_of_a_plan_are_each_named_once(tmp_path):
    from tdcompress.runs.plan import plan_run
    from tdcompress.stores.folder import FolderStore

    plan = plan_run(recipe("a"), FolderStore(tmp_path))
    assert [task.settings.seed for task in campaign.training_tasks(plan)] == [1, 7]


@pytest.mark.parametrize("together", [1, 2])
def test_teachers_are_made_first_and_once(start, tmp_path, together):
    done, watcher = start("x", recipe(distill__weight=0.5), recipe("b", distill__weight=0.5), together=together)
    assert (done.trainings, done.made) == (4, 4)  # two seeds, each with its teacher
    records = [json.loads(path.read_text()) for path in (tmp_path / "x").glob("stages/train/*/manifest.json")]
    taught = {record["key"]: record["inputs"]["teacher"] for record in records if record["inputs"]}
    assert len(taught) == len(set(taught.values())) == 2
    assert watcher.made == ["train"] * 4


def test_without_its_teacher_a_training_is_not_begun(start, tmp_path, monkeypatch):
    original = train._run

    def failing(settings, work):
        if settings.method.settings.name == "none" and settings.seed == 1:
            raise TrainingError("the loss is not finite")
        return original(settings, work)

    monkeypatch.setattr(train, "_run", failing)
    with pytest.raises(TdcompressError, match=r"^2 of 4 failed: ") as failed:
        start("x", recipe(distill__weight=0.5), together=2)
    assert [line.partition("): ")[2] for line in failed.value.__notes__] == [
        "the loss is not finite",
        "it needs train digits_cnn none, which failed",
    ]
    assert len(weights(tmp_path / "x")) == 2  # the other seed's


def test_an_unfinished_training_travels_and_ends_with_the_same_bits(start, tmp_path):
    start("whole", recipe("a"))
    asked = []
    with pytest.raises(InterruptedRun):
        start("gpu", recipe("a"), should_stop=lambda: asked.append(1) or (signal.SIGTERM if len(asked) > 6 else None))
    sent = export_items(tmp_path / "gpu", places(tmp_path / "gpu"), tmp_path / "out", 10**6)
    assert [(item.stage, item.finished) for item in sent.items] == [("train", False)]
    import_files(tmp_path / "home", sent.files)
    step = newest_step(tmp_path / "home" / sent.items[0].folder)
    assert step is not None
    assert step > 0
    start("home", recipe("a"))
    assert weights(tmp_path / "home") == weights(tmp_path / "whole")
