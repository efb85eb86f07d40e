from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tdcompress.errors import BusyError, InterruptedRun
from tdcompress.locks import hold
from tdcompress.pipeline import Runner, Stage, Task
from tdcompress.stores.folder import FolderStore


class Net:
    """A little pipeline: a -> b, a -> c, (b, c) -> d; each stage writes a file and counts its runs."""

    def __init__(self):
        self.runs = []

    def task(self, stage, settings=None, version=1, work=None, **inputs):
        def write(workspace):
            self.runs.append(stage)
            text = stage + "".join(artifact.file("out").read_text() for artifact in workspace.inputs.values())
            (workspace.folder / "out").write_text(text)
            workspace.progress.update(1, 1, "done")
            return {"length": len(text)}

        made = Stage(name=stage, version=version, settings=dict, run=lambda given, workspace: (work or write)(workspace))
        return Task(stage=made, settings=settings or {}, inputs=inputs, title=stage)

    def diamond(self, **settings):
        a = self.task("a", settings.get("a"))
        b, c = self.task("b", settings.get("b"), network=a), self.task("c", settings.get("c"), network=a)
        return self.task("d", settings.get("d"), left=b, right=c)


@pytest.fixture
def make_runner(tmp_path, make_recorder):
    def make(**options):
        return Runner(
            store=FolderStore(tmp_path / "artifacts"), watcher=make_recorder(), facts={"versions": {"x": "1"}}, **options
        )

    return make


@pytest.fixture
def net():
    return Net()


def test_golden_task_key(net):
    task = net.task("train", {"lr": 0.1, "epochs": (49.0, 49.0)})
    assert task.key == "5980a163f15829ad"
    assert net.task("prune", {"fraction": 0.5}, train=task).key == "aff52b13d4c61199"


def test_inputs_come_first_and_each_stage_is_made_once(net, make_runner):
    runner = make_runner()
    artifact = runner.ensure(net.diamond())
    assert artifact.file("out").read_text() == "dbaca"
    assert net.runs == ["a", "b", "c", "d"]
    assert runner.made == 4
    assert runner.watcher.made == ["a", "b", "c", "d"]


def test_a_second_run_makes_nothing(net, make_runner):
    make_runner().ensure(net.diamond())
    runner = make_runner()
    assert runner.ensure(net.diamond()).record == {"length": 5}
    assert runner.made == 0
    assert net.runs == ["a", "b", "c", "d"]
    assert runner.watcher.kept == ["d"]


@pytest.mark.parametrize(("changed", "made"), [("a", "abcd"), ("b", "bd"), ("c", "cd"), ("d", "d")])
def test_a_changed_setting_redoes_only_what_depends_on_it(net, make_runner, changed, made):
    make_runner().ensure(net.diamond())
    net.runs.clear()
    make_runner().ensure(net.diamond(**{changed: {"x": 1}}))
    assert "".join(net.runs) == made


def test_a_raised_version_is_another_key(net):
    assert net.task("a").key != net.task("a", version=2).key
    assert net.task("a").key != net.task("b").key
    a, b = net.task("a"), net.task("b")
    assert net.task("c", left=a, right=b).key != net.task("c", left=b, right=a).key


def test_a_damaged_stage_is_made_again_by_the_next_run(net, make_runner):
    artifact = make_runner().ensure(net.diamond())
    artifact.file("out").write_text("wrong")
    runner = make_runner()
    again = runner.ensure(net.diamond())
    assert net.runs == ["a", "b", "c", "d", "d"]
    assert again.file("out").read_text() == "dbaca"
    assert (again.folder.with_name(f"{again.key}.damaged") / "out").read_text() == "wrong"


@dataclass(frozen=True, kw_only=True)
class Counted:
    length: int


def test_a_record_of_another_shape_is_set_aside_and_the_stage_made_again(net, make_runner, caplog):
    """The key is the same: a version of the package that wrote other records, and forgot to say so."""

    def task(given, record):
        made = Stage(name="a", version=1, settings=dict, run=lambda settings, work: given, record=record)
        return Task(stage=made, settings={}, title="a")

    old = make_runner().ensure(task({"size": 3}, dict[str, int]))
    runner = make_runner()
    with caplog.at_level("WARNING"):
        found = runner.ensure(task({"length": 3}, Counted))
    assert (found.key, found.recorded(Counted), runner.made) == (old.key, Counted(length=3), 1)
    (warned,) = caplog.messages
    assert "record.size: unknown key; known are length" in warned
    assert warned.endswith(f"it is made again; it is kept as {old.key}.damaged")
    caplog.clear()
    again = make_runner()
    assert again.ensure(task({"length": 3}, Counted)).record == {"length": 3}
    assert (again.made, caplog.messages) == (0, [])


def test_a_stage_that_fails_publishes_nothing_and_keeps_what_it_wrote(net, make_runner):
    def fail(workspace):
        (workspace.folder / "half").write_text("x")
        raise RuntimeError("fault")

    runner = make_runner()
    bad = net.task("bad", work=fail, network=net.task("a"))
    with pytest.raises(RuntimeError, match="fault"):
        runner.ensure(bad)
    assert runner.made == 1
    assert runner.store.find_or_set_aside("bad", bad.key) is None

    def go_on(workspace):
        assert (workspace.folder / "half").read_text() == "x"
        return {}

    make_runner().ensure(net.task("bad", work=go_on, network=net.task("a")))
    assert net.runs == ["a"]


def test_a_signal_stops_before_the_next_stage(net, make_runner):
    runner = make_runner(should_stop=lambda: 15 if net.runs else None)
    with pytest.raises(InterruptedRun, match="run the same command again") as caught:
        runner.ensure(net.diamond())
    assert caught.value.exit_code == 143
    assert net.runs == ["a"]
    make_runner().ensure(net.diamond())
    assert net.runs == ["a", "b", "c", "d"]


def test_what_another_process_made_meanwhile_is_taken(net, make_runner, monkeypatch):
    task = net.task("a")
    runner = make_runner()
    found, seen = runner.store.find_or_set_aside, []

    def find(stage, key, record):
        if not seen:  # the first look finds nothing; then, before the lock is had, the other process is done
            seen.append(stage)
            make_runner().ensure(net.task("a"))
            return None
        return found(stage, key, record)

    monkeypatch.setattr(runner.store, "find_or_set_aside", find)
    assert runner.ensure(task).file("out").read_text() == "a"
    assert net.runs == ["a"]
    assert runner.made == 0


def test_the_manifest_tells_what_a_result_came_from(net, make_runner):
    import json

    artifact = make_runner().ensure(net.task("b", {"x": 2}, network=net.task("a")))
    manifest = json.loads((artifact.folder / "manifest.json").read_text())
    assert manifest["settings"] == {"x": 2}
    assert manifest["inputs"] == {"network": net.task("a").key}
    assert manifest["versions"] == {"x": "1"}
    assert manifest["record"] == {"length": 2}


def test_a_stage_that_another_runner_makes_is_an_error_or_waited_for(net, make_runner, monkeypatch):
    monkeypatch.setattr("tdcompress.pipeline._LOOK_AGAIN_SECONDS", 0.0)
    task, other, told = net.task("a"), make_runner(), []
    made = other.ensure(net.task("b"))
    with other.store.partial("a", task.key) as folder:
        with pytest.raises(BusyError, match=f"^a {task.key} is in use by .*; wait for it"):
            make_runner().ensure(task)

        def waiting(what, seconds):
            told.append((what, seconds))
            if len(told) == 3:  # the other one is done
                (folder / "out").write_text("other's")
                other.store.publish("a", task.key, folder, {"length": 7}, task.identity)
                held.close()

        waiter = make_runner(waiting=waiting)
        with ExitStack() as held:
            held.enter_context(hold(other.store.root / ".locks" / "second", "it"))
            monkeypatch.setattr(waiter.store, "partial", lambda *_: second(other.store.root))
            assert waiter.ensure(task).file("out").read_text() == "other's"
    assert made.record == {"length": 1}
    assert [what.startswith("it is in use by process") for what, _ in told] == [True] * 3
    assert waiter.watcher.kept == ["a"]
    assert waiter.made == 0


@contextmanager
def second(root):
    with hold(root / ".locks" / "second", "it"):
        yield root


def test_waiting_ends_when_a_signal_asks_for_it(net, make_runner):
    runner = make_runner(waiting=lambda *_: None, should_stop=iter([None, 15]).__next__)
    task = net.task("a")
    with make_runner().store.partial("a", task.key), pytest.raises(InterruptedRun):
        runner.ensure(task)
    assert net.runs == []
