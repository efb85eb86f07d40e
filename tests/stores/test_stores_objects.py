"""Artefacts in object storage, as several machines see them that share nothing else."""

import json
import logging
from functools import partial
from threading import Barrier, Event, Thread

import pytest
from waiting import until

from tdcompress.artifacts import MANIFEST, SCRATCH, content_key
from tdcompress.errors import BusyError, InterruptedRun, LostError, StoreError
from tdcompress.files import sha256_file, write_text
from tdcompress.pipeline import Runner, Stage, Task
from tdcompress.stores.claims import Claim, Pace

MADE_FROM = {"version": 1, "settings": {"x": 0.5}, "inputs": {}}
KEY = content_key({"stage": "train", **MADE_FROM})
PREFIX = f"stages/train/{KEY}"


def publish(store, text="weights"):
    with store.partial("train", KEY) as folder:
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "sub" / "w").write_text(text)
        (folder / "n").write_text("1")
        return store.publish("train", KEY, folder, {"said": text}, MADE_FROM)


@pytest.fixture
def runner(make_recorder):
    def make(store, **options):
        return Runner(store=store, watcher=make_recorder(), facts={}, **options)

    return make


def task(name, work, **inputs):
    made = Stage(name=name, version=1, settings=dict, run=lambda settings, workspace: work(workspace))
    return Task(stage=made, settings={}, inputs=inputs, title=name)


def test_what_one_machine_publishes_another_finds_and_downloads_once(machine, monkeypatch):
    here, there = machine("a"), machine("b")
    assert there.find_or_set_aside("train", KEY) is None
    assert not there.exists("train", KEY)
    assert there.keys("train") == []
    made = publish(here)
    assert there.exists("train", KEY)
    assert there.keys("train") == [KEY]
    found = there.find_or_set_aside("train", KEY)
    assert found.file("sub/w").read_text() == "weights"
    assert (found.record, found.files) == ({"said": "weights"}, made.files)
    assert found.folder == there.root / "stages" / "train" / KEY
    assert (found.folder / MANIFEST).read_bytes() == (made.folder / MANIFEST).read_bytes()
    assert here.bucket.names(f"scratch/train/{KEY}") == []
    monkeypatch.setattr(there.bucket, "fetch", None)
    assert there.find_or_set_aside("train", KEY) == found


def test_one_machine_makes_it_and_another_is_told_who(machine):
    here, there = machine("a"), machine("b")
    with here.partial("train", KEY):
        assert here.holds("train", KEY)
        with pytest.raises(BusyError, match=rf"^train {KEY} is in use by process"), there.partial("train", KEY):
            raise AssertionError("both own it")
    with there.partial("train", KEY):
        pass


def test_of_two_that_publish_one_key_one_wins_and_both_have_its_artefact(machine, monkeypatch):
    stores, together, results = [machine("a"), machine("b")], Barrier(2), {}

    def at_once(store, name):
        put, owned = store._put_manifest, store._owned
        monkeypatch.setattr(store, "_owned", lambda claim, what: owned(f"{claim}-{name}", what))  # as if a claim did not hold
        monkeypatch.setattr(store, "_put_manifest", lambda *given: together.wait() >= 0 and put(*given))

    def work(store, name):
        results[name] = publish(store, f"weights of {name}")

    threads = []
    for store, name in zip(stores, "ab", strict=True):
        at_once(store, name)
        threads.append(Thread(target=work, args=(store, name)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = machine("c").find_or_set_aside("train", KEY)
    assert winner.record["said"] in ("weights of a", "weights of b")
    assert {artifact.record["said"] for artifact in results.values()} == {winner.record["said"]}
    assert {artifact.file("sub/w").read_text() for artifact in results.values()} == {winner.record["said"]}
    assert len(stores[0].bucket.names(PREFIX)) == 3  # the loser's files are gone


@pytest.mark.parametrize("damage", ["other content", "gone", "a manifest that is none", "names that leave the folder"])
def test_a_damaged_artefact_is_refused_and_made_again(machine, damage, caplog, tmp_path):
    here, there = machine("a"), machine("b")
    name = f"{PREFIX}/{publish(here).files['sub/w']}"
    if damage == "other content":
        here.bucket.put(name, b"weights, but others")
    elif damage == "gone":
        here.bucket.remove([name])
    elif damage == "a manifest that is none":
        here.bucket.put(f"{PREFIX}/{MANIFEST}", b"[1]")
    else:
        manifest = json.loads(here.bucket.read(f"{PREFIX}/{MANIFEST}").data)
        manifest["files"]["../../../outside"] = manifest["files"].pop("sub/w")
        here.bucket.put(f"{PREFIX}/{MANIFEST}", json.dumps(manifest).encode())
    with caplog.at_level(logging.WARNING):
        assert there.find_or_set_aside("train", KEY) is None
    assert f"train {KEY} is damaged in the store" in caplog.text
    assert not list(tmp_path.rglob("outside"))
    assert not there.exists("train", KEY)
    assert there.keys("train") == []
    assert here.find_or_set_aside("train", KEY) is None
    publish(there)
    assert machine("c").find_or_set_aside("train", KEY).file("sub/w").read_text() == "weights"


def test_a_damaged_file_of_the_cache_is_fetched_again(machine):
    store = machine("a")
    publish(store).file("n").write_text("wrong")
    assert store.find_or_set_aside("train", KEY).file("n").read_text() == "1"
    assert (store.root / "stages" / "train" / f"{KEY}.damaged" / "n").read_text() == "wrong"


def test_what_a_stage_was_made_from_comes_along(machine, runner):
    def write(workspace):
        (workspace.folder / "out").write_text("x")
        return {}

    first = task("train", write)
    last = task("export", write, network=task("prune", write, train=first))
    runner(machine("a")).ensure(last)
    there = runner(machine("b"))
    assert there.ensure(last).input("network").input("train").file("out").read_text() == "x"
    assert there.made == 0


def checkpoint(workspace, step):
    write_text(workspace.folder / SCRATCH / "checkpoints" / f"step-{step}", f"state {step}")


def test_a_stopped_stage_goes_on_elsewhere_and_here_from_what_is_newer(machine, runner):
    seen = []

    def work(workspace):
        folder = workspace.folder / SCRATCH / "checkpoints"
        step = max((int(path.name.split("-")[1]) for path in folder.glob("*")), default=0)
        seen.append(step)
        checkpoint(workspace, step + 1)
        if step < 3:
            raise InterruptedRun("stopped", 15)
        return {}

    for name in ("a", "a", "b"):
        with pytest.raises(InterruptedRun):
            runner(machine(name)).ensure(task("train", work))
    runner(machine("a")).ensure(task("train", work))
    assert seen == [0, 1, 2, 3]
    store = machine("a")
    assert store.bucket.names(f"scratch/train/{task('train', work).key}") == []
    assert not (store.root / "stages" / "train" / f"{task('train', work).key}.partial").exists()


def test_checkpoints_are_uploaded_as_they_are_written_and_old_ones_removed(machine, runner):
    store, watching = machine("a"), machine("b")

    def work(workspace):
        prefix = f"scratch/train/{workspace.folder.name.removesuffix('.partial')}"
        for step in (1, 2):
            checkpoint(workspace, step)
            (workspace.folder / SCRATCH / "checkpoints" / f"step-{step - 1}").unlink(missing_ok=True)
            until(partial(saved, step))
        until(lambda: two(prefix))  # the checkpoint, and what the key is a hash of
        return {}

    def saved(step):
        found = watching.bucket.read(f"claims/train-{training.key}.json")
        assert f"checkpoints/step-{step}" in json.loads(found.data)["saved"]

    def two(prefix):
        assert len(watching.bucket.names(prefix)) == 2

    training = task("train", work)
    runner(store).ensure(training)
    assert watching.exists("train", training.key)


def test_saved_checkpoints_that_are_damaged_are_not_used(machine, caplog):
    here, there = machine("a"), machine("b")
    with here.partial("train", KEY) as folder:
        write_text(folder / SCRATCH / "state", "state")
    (name,) = here.bucket.names(f"scratch/train/{KEY}")
    here.bucket.put(name, b"stole")
    with caplog.at_level(logging.WARNING), there.partial("train", KEY) as folder:
        assert not (folder / SCRATCH / "state").exists()
    assert "made from the start" in caplog.text


class Silent:
    """A machine that is cut off: its claims give no sign of life, and those of others do."""

    def __init__(self, monkeypatch, store):
        self.off = Event()
        beat = Claim.beat

        def given(claim):
            if not (self.off.is_set() and claim._bucket is store.bucket):
                beat(claim)

        monkeypatch.setattr(Claim, "beat", given)


@pytest.mark.parametrize("waits", [False, True])
def test_a_machine_that_was_cut_off_stops_its_stage_and_takes_what_the_other_made(machine, runner, monkeypatch, waits):
    made, pace = [], Pace(beat=0.2, stale=10.0, keep=60.0)
    store = machine("a", pace)
    silent = Silent(monkeypatch, store)

    def work(workspace):
        made.append("there" if made else "here")
        if made == ["here"]:
            silent.off.set()
            until(lambda: runner(machine("b", pace)).ensure(training), BusyError)
            silent.off.clear()
            until(lambda: asked(workspace))
            raise InterruptedRun("as a training does", workspace.should_stop())
        return {"by": made[-1]}

    def asked(workspace):
        assert workspace.should_stop() is not None

    training = task("train", work)
    if waits:
        assert runner(store, waiting=lambda what, seconds: None).ensure(training).record == {"by": "there"}
    else:
        with pytest.raises(LostError, match="train: another process took it over"):
            runner(store).ensure(training)
    assert made == ["here", "there"]


def test_a_lost_stage_publishes_nothing(machine, monkeypatch):
    store = machine("a", Pace(beat=0.2, stale=1.5, keep=60.0))
    silent = Silent(monkeypatch, store)

    def work():
        with store.partial("train", KEY) as folder:
            silent.off.set()
            (folder / "n").write_text("1")
            until(lambda: not_held(store))
            store.publish("train", KEY, folder, {}, MADE_FROM)

    with pytest.raises(LostError):
        work()
    assert store.bucket.names(PREFIX) == []


def not_held(store):
    assert not store.holds("train", KEY)


def test_a_server_that_fails_while_it_is_published_keeps_the_checkpoints(machine, reachable, monkeypatch):
    here, there = machine("a"), machine("b")

    def refuse(path, name):
        raise StoreError("no room")

    def fail():
        with here.partial("train", KEY) as folder:
            write_text(folder / SCRATCH / "state", "state")
            until(lambda: uploaded(here))
            monkeypatch.setattr(here.bucket, "send", refuse)
            (folder / "n").write_text("1")
            here.publish("train", KEY, folder, {}, MADE_FROM)

    def uploaded(store):
        assert store.bucket.names(f"scratch/train/{KEY}")

    with pytest.raises(StoreError, match="no room"):
        fail()
    for store in (here, there):
        with store.partial("train", KEY) as folder:
            assert (folder / SCRATCH / "state").read_text() == "state"


def fill(store, text):
    """Lay out the run "mine"."""
    files = {}
    for name in ("report.json", f"{text}.onnx"):
        write_text(store.root / "mine" / name, text)
        files[name] = sha256_file(store.root / "mine" / name)
    write_text(store.root / "mine" / MANIFEST, json.dumps({"files": files}))


def test_a_run_that_is_kept_anew_while_it_is_brought_is_no_damage(machine, monkeypatch):
    """Its older files are gone: to call that damage would remove the new manifest, and with it the run."""
    here, there = machine("a"), machine("b")
    fill(here, "first")
    here.keep_run("mine")
    fetch = there.bucket.fetch

    def slow(name, path):
        if (here.root / "mine" / "first.onnx").exists():
            (here.root / "mine" / "first.onnx").unlink()
            fill(here, "second")
            here.keep_run("mine")
        return fetch(name, path)

    monkeypatch.setattr(there.bucket, "fetch", slow)
    there.bring_run("mine")
    assert sorted(path.name for path in (there.root / "mine").iterdir()) == [MANIFEST, "report.json", "second.onnx"]
    kept = (here.root / "mine" / MANIFEST).read_bytes()
    assert here.bucket.read(f"runs/mine/{MANIFEST}").data == kept


def test_a_run_that_another_machine_has_claimed_by_now_is_not_kept(machine, monkeypatch):
    pace = Pace(beat=0.2, stale=1.5, keep=60.0)
    here, there = machine("a", pace), machine("b", pace)
    silent = Silent(monkeypatch, here)
    fill(here, "first")
    fill(there, "second")

    def taken_over():
        with there.claim("run-mine", "the run mine"):
            there.keep_run("mine")

    def work():
        with here.claim("run-mine", "the run mine"):
            silent.off.set()
            until(taken_over, BusyError)
            here.keep_run("mine")

    with pytest.raises(LostError, match="the run mine was taken over by another process"):
        work()
    there.bring_run("mine")
    assert (there.root / "mine" / "report.json").read_text() == "second"
    assert len(there.bucket.names("runs/mine")) == 2


def test_a_run_is_kept_whole_and_brought_where_it_is_another(machine):
    here, there = machine("a"), machine("b")
    fill(here, "first")
    here.keep_run("mine")
    assert there.runs() == ["mine"]
    there.bring_run("mine")
    assert (there.root / "mine" / "report.json").read_text() == "first"
    write_text(there.root / "mine" / "notes", "by hand")
    write_text(there.root / ".mine.old" / "other notes", "of a process that was killed as it brought the run")
    fill(here, "second")
    here.keep_run("mine")
    assert len(here.bucket.names("runs/mine")) == 2
    there.bring_run("mine")
    assert (there.root / "mine" / "report.json").read_text() == "second"
    assert sorted(path.name for path in (there.root / "mine").iterdir()) == [
        *(MANIFEST, "notes", "other notes", "report.json", "second.onnx")
    ]
    assert not (there.root / ".mine.old").exists()
    (there.root / "mine" / "report.json").write_text("broken")
    there.bring_run("mine")
    assert (there.root / "mine" / "report.json").read_text() == "second"
    there.bring_run("never made")
    assert not (there.root / "never made").exists()


def test_a_run_that_is_damaged_in_the_store_is_not_brought_and_can_be_kept_again(machine, caplog):
    here, there = machine("a"), machine("b")
    write_text(here.root / "mine" / MANIFEST, json.dumps({"files": {"report.json": "0" * 64}}))
    here.bucket.put(f"runs/mine/{MANIFEST}", (here.root / "mine" / MANIFEST).read_bytes())
    with caplog.at_level(logging.WARNING):
        there.bring_run("mine")
    assert "run its recipe again" in caplog.text
    assert not (there.root / "mine").exists()
    there.bring_run("mine")
    assert not (there.root / "mine").exists()
    assert caplog.text.count("run its recipe again") == 1
    fill(here, "again")
    here.keep_run("mine")
    there.bring_run("mine")
    assert (there.root / "mine" / "report.json").read_text() == "again"
