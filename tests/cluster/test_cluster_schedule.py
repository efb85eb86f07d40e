"""Tasks made at the same time: inputs first, each once; and with workers that are lost, fail, or are stopped."""

import signal
from functools import partial

import pytest

from tdcompress.artifacts import Artifact
from tdcompress.cluster.schedule import LOSSES, Done, Failed, Lost, make_all
from tdcompress.errors import InterruptedRun, TdcompressError, UserError
from tdcompress.pipeline import Runner, Stage, Task
from tdcompress.stores.folder import FolderStore


def task(name, **inputs):
    stage = Stage(name=name, version=1, settings=dict, run=lambda settings, work: {})
    return Task(stage=stage, settings={}, inputs=inputs, title=name)


def artifact(made, tmp_path):
    return Artifact(stage=made.stage.name, key=made.key, version=1, folder=tmp_path, settings={}, inputs={}, record={}, files={})


class Fake:
    """Ends the task that was given out first; what becomes of it is said before, else it is done."""

    def __init__(self, make_artifact, fates=None):
        self.given, self.stopped, self.most = [], [], 0
        self._fates = {name: list(fate) for name, fate in (fates or {}).items()}
        self._out, self._artifact = [], make_artifact

    def submit(self, task):
        self.given.append(task.title)
        self._out.append(task)
        self.most = max(self.most, len(self._out))

    def ended(self):
        first = self._out.pop(0)
        if self.stopped:
            return [(first, Failed(error=InterruptedRun("stopped", signal.SIGTERM)))]
        fate = self._fates.get(first.title)
        return [(first, fate.pop(0) if fate else Done(artifact=self._artifact(first), seconds=1.0))]

    def stop(self, signal_number):
        self.stopped.append(signal_number)


@pytest.fixture
def make_runner(tmp_path, make_recorder):
    return partial(Runner, store=FolderStore(tmp_path / "artifacts"), watcher=make_recorder(), facts={})


@pytest.fixture
def make_fake(tmp_path):
    return partial(Fake, partial(artifact, tmp_path=tmp_path))


def no_losses(task, why):
    pytest.fail(f"{task.title} was lost: {why}")


def diamonds():
    """Two rows that share a training, and one of another, all measured together."""
    a, x = task("a"), task("x")
    b, c = task("b", network=a), task("c", network=a)
    return [b, c, x, task("bench", left=b, right=c, other=x)]


def test_each_is_given_out_once_after_its_inputs_and_what_can_be_is_made_at_the_same_time(make_runner, make_fake):
    runner, fake, tasks = make_runner(), make_fake(), diamonds()
    make_all([*tasks, *tasks], runner, fake, no_losses)
    assert sorted(fake.given[:2]) == ["a", "x"]  # both at once
    assert sorted(fake.given[2:4]) == ["b", "c"]
    assert fake.given[4:] == ["bench"]
    assert fake.most == 3  # x is still out when b and c begin
    assert runner.made == 5
    assert [runner.find(each).key for each in tasks] == [each.key for each in tasks]
    assert sorted(runner.watcher.made) == ["a", "b", "bench", "c", "x"]


def test_the_same_key_of_two_rows_is_one_task(make_runner, make_fake):
    fake = make_fake()
    make_all([task("b", network=task("a")), task("c", network=task("a"))], make_runner(), fake, no_losses)
    assert fake.given[0] == "a"
    assert sorted(fake.given[1:]) == ["b", "c"]


def test_what_is_there_is_not_made_again_and_needs_no_inputs(make_runner, make_fake, tmp_path):
    runner, fake, tasks = make_runner(), make_fake(), diamonds()
    runner.take(tasks[0], artifact(tasks[0], tmp_path))
    runner.take(tasks[1], artifact(tasks[1], tmp_path))
    make_all(tasks, runner, fake, no_losses)
    assert fake.given == ["x", "bench"]  # not a, which only b and c need


def test_what_another_run_made_in_the_meantime_counts_as_kept(make_runner, make_fake, tmp_path):
    runner, one = make_runner(), task("a")
    fake = make_fake(fates={"a": [Done(artifact=artifact(one, tmp_path), seconds=None)]})
    make_all([one], runner, fake, no_losses)
    assert (runner.made, runner.watcher.kept) == (0, ["a"])


def test_a_lost_worker_s_task_is_given_out_again(make_runner, make_fake):
    fake, told = make_fake(fates={"a": [Lost(why="node x died")] * (LOSSES - 1)}), []
    make_all(diamonds(), make_runner(), fake, lambda task, why: told.append((task.title, why)))
    assert fake.given.count("a") == LOSSES
    assert [fake.given.count(name) for name in ("b", "c", "x", "bench")] == [1, 1, 1, 1]
    assert told == [("a", "node x died")] * (LOSSES - 1)


def test_a_task_that_loses_every_worker_fails(make_runner, make_fake):
    fake = make_fake(fates={"a": [Lost(why="out of memory")] * LOSSES})
    with pytest.raises(TdcompressError, match=f"^a: lost {LOSSES} workers, the last by: out of memory"):
        make_all(diamonds(), make_runner(), fake, lambda task, why: None)
    assert "b" not in fake.given


def test_the_first_that_fails_stops_the_others_and_is_what_is_raised(make_runner, make_fake):
    error = UserError("it is wrong")
    fake = make_fake(fates={"a": [Failed(error=error)]})
    with pytest.raises(UserError, match=r"^it is wrong$") as raised:
        make_all(diamonds(), make_runner(), fake, no_losses)
    assert raised.value is error
    assert sorted(fake.given) == ["a", "x"]  # neither again, nor what needs it
    assert fake.stopped == [signal.SIGTERM]


def test_a_signal_stops_what_is_out_and_gives_out_nothing_more(make_runner, make_fake):
    asked = iter([None, signal.SIGINT, signal.SIGINT, signal.SIGINT])
    fake = make_fake()
    with pytest.raises(InterruptedRun) as stopped:
        make_all(diamonds(), make_runner(should_stop=lambda: next(asked)), fake, no_losses)
    assert stopped.value.exit_code == 128 + signal.SIGINT
    assert fake.stopped == [signal.SIGINT]
    assert sorted(fake.given) == ["a", "x"]
