"""The side of a worker, without Ray: what crosses, what it makes, and what it refuses before it makes anything."""

import json
import signal
import threading
from dataclasses import dataclass

import pytest

from tdcompress.cluster import sight, worker
from tdcompress.cluster.calls import Problem, Reply, StageCall, describe_task, rebuild
from tdcompress.cluster.sight import seen, sighted
from tdcompress.codec import decode, encode
from tdcompress.errors import ArtifactError, DataError, InterruptedRun, TdcompressError, UserError
from tdcompress.files import write_text
from tdcompress.pipeline import Runner, Stage, Task
from tdcompress.runs.unfinished import claim_run
from tdcompress.stores.folder import FolderStore


@dataclass(frozen=True, kw_only=True)
class Settings:
    rate: float
    names: tuple[str, ...] = ()


def write(settings, work):
    work.progress.update(1, 2, "half")
    work.stop_if_asked()
    write_text(work.folder / "out", f"{settings.rate} {sorted(work.inputs)}")
    return {"rate": settings.rate}


def task(name, rate=0.1, work=write, version=1, **inputs):
    stage = Stage(name=name, version=version, settings=Settings, run=work)
    return Task(stage=stage, settings=Settings(rate=rate, names=("a", "b")), inputs=inputs, title=f"{name} it")


def stages(*tasks):
    return {each.stage.name: each.stage for each in tasks}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "artifacts"


@pytest.fixture
def call(root, monkeypatch):
    """Make a task as a worker does that knows its stages; returns the reply, and what it said."""

    def make(asked, *known, at=None, stop=None, device="cpu"):
        monkeypatch.setattr(worker, "STAGES", stages(asked, *known))
        said = []

        def say(news):
            said.extend(news)
            return stop

        with claim_run(FolderStore(root), "run"):
            wanted = StageCall(place=str(at or root), run="run", tasks=describe_task(asked), device=device, places={}, threads=1)
            crossed = decode(StageCall, json.loads(json.dumps(encode(wanted))))
            reply = worker.make(crossed, "n1", say)
        return decode(Reply, json.loads(json.dumps(encode(reply)))), said

    return make


def test_a_task_crosses_with_its_key():
    training = task("train")
    exported = task("export", 0.3, left=task("prune", 1 / 3, train=training), right=task("store", train=training))
    crossed = json.loads(json.dumps(encode(describe_task(exported))))
    assert [each["stage"] for each in crossed] == ["train", "prune", "store", "export"]  # inputs first, each once
    described = decode(tuple[type(describe_task(training)[0]), ...], crossed)
    again = rebuild(described, stages(exported, training, *exported.inputs.values()))
    assert again.key == exported.key
    assert again.settings == exported.settings


def test_a_worker_with_another_version_of_a_stage_refuses_it(call, monkeypatch):
    reply, _ = call(task("train"))
    assert reply.problem is None
    other = task("train", version=2)
    with pytest.raises(TdcompressError, match=r"is [0-9a-f]{16} for the driver and [0-9a-f]{16} for the tdcompress"):
        rebuild(describe_task(other), stages(task("train")))
    with pytest.raises(TdcompressError, match="not known to the tdcompress that is installed here"):
        rebuild(describe_task(other), {})


def test_a_stage_is_made_as_in_one_process_and_what_is_there_is_used(call, root):
    training = task("train")
    exported = task("export", network=training)
    reply, said = call(training)
    assert said == [("started",)]
    assert reply.seconds is not None
    reply, _ = call(exported, training)
    found = FolderStore(root).find_or_set_aside("export", exported.key)
    assert (reply.record, reply.files) == (found.record, found.files) == ({"rate": 0.1}, reply.files)
    assert found.file("out").read_text() == "0.1 ['network']"
    reply, said = call(exported, training)
    assert (reply.problem, reply.seconds, said) == (None, None, [])


def test_a_pulse_tells_the_last_of_progress_and_asks_no_more_than_once_a_beat(monkeypatch):
    now, said = [0.0], []

    def say(news):
        said.append(list(news))
        return signal.SIGTERM if len(said) == 3 else None

    monkeypatch.setattr(worker.time, "monotonic", lambda: now[0])
    pulse = worker.Pulse(say)
    pulse.tell(("started",))
    for step in range(5):
        pulse.tell(("progress", step, 5, ""))
        assert pulse.asked() is None
    assert said == [[], [("started",)]]
    now[0] = 1.0
    assert pulse.asked() == signal.SIGTERM
    assert said[2:] == [[("progress", 4, 5, "")]]
    now[0] = 9.0
    assert pulse.asked() == signal.SIGTERM
    assert len(said) == 3


def test_an_input_is_never_made_where_it_is_merely_not_seen(call, root, monkeypatch):
    monkeypatch.setattr(sight.seen, "__defaults__", (0.0,))
    training = task("train")
    reply, said = call(task("export", network=training), training)
    assert isinstance(reply.problem.error(), ArtifactError)
    assert reply.problem.message.startswith("node n1: train it (")
    assert "missing or damaged on this machine" in reply.problem.message
    assert said == []
    assert not (root / "stages").exists()


def test_an_artefact_that_shows_late_is_waited_for(root):
    made = task("train")
    later = threading.Timer(0.3, Runner(store=FolderStore(root), watcher=Quiet(), facts={}).ensure, [made])
    later.start()
    assert seen(FolderStore(root), made, patience=20.0).key == made.key
    later.join()


class Quiet:
    def started(self, task):
        return self

    def update(self, *progress):
        pass

    finished = reused = left = update


def test_a_worker_that_does_not_see_the_folder_makes_nothing(call, tmp_path):
    reply, said = call(task("train"), at=tmp_path / "elsewhere")
    assert isinstance(reply.problem.error(), UserError)
    assert reply.problem.message.startswith("node n1: the store /")
    assert said == []
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_in_which_the_run_is_free_is_another_one_or_without_locks(root):
    """The driver has claimed the run: where a worker could have it too, their claims do not meet."""
    root.mkdir()
    with pytest.raises(
        UserError, match=r"the store .* of this run is not seen here, or its locks are not: the folder has to be on"
    ):
        sighted(str(root), "run")
    with claim_run(FolderStore(root), "run"):
        assert sighted(str(root), "run").root == root
    with claim_run(FolderStore(root), "other"), pytest.raises(UserError, match="or its locks are not"):
        sighted(str(root), "run")


def test_a_stage_that_is_asked_to_stop_does(call, root):
    reply, _ = call(task("train"), stop=signal.SIGINT)
    assert isinstance(reply.problem.error(), InterruptedRun)
    assert reply.problem.error().exit_code == 130
    assert not list(root.glob("stages/*/*"))


def test_what_a_stage_raises_keeps_its_type_and_names_the_node(call):
    """Data that only this node lacks is there where the command was typed."""

    def fail(settings, work):
        raise DataError("x.bin: is truncated")

    reply, _ = call(task("train", work=fail))
    assert reply == Reply(problem=Problem(kind="DataError", message="node n1: x.bin: is truncated"))
    assert type(reply.problem.error()) is DataError

    def full(settings, work):
        raise OSError(28, "No space left on device", "x.bin")

    reply, _ = call(task("prune", work=full))
    assert reply.problem.message == "node n1: x.bin: No space left on device; make room"
