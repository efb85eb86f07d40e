"""What ``status`` says of runs that are not finished: how far they are, who works on them, and how they go on."""

import json
import re

import pytest

from tdcompress.artifacts import sealed
from tdcompress.errors import InterruptedRun, UserError, VerificationError
from tdcompress.lineage.versions import VERSIONS
from tdcompress.locks import hold
from tdcompress.pipeline import Runner, Stage, Task
from tdcompress.records.stages import VocabularyRecord
from tdcompress.runs.manifest import write_manifest
from tdcompress.runs.status import ago, status_tables
from tdcompress.runs.unfinished import Unfinished, Unreadable, announced, run_lock, unfinished_runs
from tdcompress.stores.folder import FolderStore
from tdcompress.transfer.listing import artifacts_table


def write(settings, workspace):
    (workspace.folder / "out").write_text("x")
    return VocabularyRecord(pieces=1, bytes=1)


def fail(settings, workspace):
    (workspace.folder / "half").write_text("x")
    raise InterruptedRun("stopped", 15)


def chain(last=write):
    task = None
    for size, run in enumerate((write, write, last)):
        stage = Stage(name="vocabulary", version=VERSIONS["vocabulary"], settings=dict, run=run)
        task = Task(stage=stage, settings={"size": size}, inputs={"smaller": task} if task else {}, title=f"vocabulary {size}")
    return task


@pytest.fixture
def start(tmp_path, make_recorder):
    def run(task, name="mine", command="tdcompress run mine.toml --set a=1"):
        runner = Runner(store=FolderStore(tmp_path), watcher=make_recorder(), facts={})
        with announced(tmp_path, name, [task], command):
            runner.ensure(task)

    return run


def texts(tables):
    return {table.title: (table.rows, table.notes) for table in tables}


def test_a_stopped_run_says_how_far_it_is_and_how_it_goes_on(tmp_path, start):
    with pytest.raises(InterruptedRun):
        start(chain(fail))
    (found,) = unfinished_runs(tmp_path)
    assert (found.done, len(found.intent.tasks), found.owner) == (2, 3, None)
    tables = texts(status_tables(tmp_path))
    assert list(tables) == ["unfinished runs", "stages"]  # no line that says there are no runs
    ((row,), (note,)) = tables["unfinished runs"]
    assert (row[0], row[1], row[3], row[4]) == ("mine", "2 of 3", "stopped", "1")
    assert re.fullmatch(r"\d+ s ago", row[2])
    assert note.startswith("go on with: tdcompress run mine.toml --set a=1 (or forget it: rm ")
    assert texts(status_tables(tmp_path, "mine")).keys() == {"unfinished runs"}
    start(chain())
    assert unfinished_runs(tmp_path) == []
    assert "unfinished runs" not in texts(status_tables(tmp_path))
    with pytest.raises(UserError, match="no run of this name"):
        status_tables(tmp_path, "mine")


def test_what_a_run_makes_again_is_not_done(tmp_path, start):
    with pytest.raises(InterruptedRun):
        start(chain(fail))
    (tmp_path / "stages" / "vocabulary" / "notes").mkdir()
    (tmp_path / "stages" / "vocabulary.bak").mkdir()
    assert texts(status_tables(tmp_path))["stages"] == ((("vocabulary", "2", "1", "0"),), ())
    manifest = next((tmp_path / "stages" / "vocabulary").glob("*/manifest.json"))
    whole = manifest.read_text()
    for damaged in (whole.replace('"pieces": 1', '"pieces": 2'), json.dumps(sealed(json.loads(whole) | {"record": {}})), "["):
        manifest.write_text(damaged)
        tables = texts(status_tables(tmp_path))
        assert tables["stages"][0] == (("vocabulary", "1", "1", "1"),)
        assert tables["unfinished runs"][0][0][1] == "1 of 3"
        assert [row[2] for row in artifacts_table(tmp_path).rows].count("damaged or old") == 1
    manifest.parent.rename(manifest.parent.with_suffix(".damaged"))
    assert texts(status_tables(tmp_path))["stages"][0] == (("vocabulary", "1", "1", "1"),)


@pytest.mark.parametrize("only", [None, "mine"])
def test_a_run_whose_report_is_gone_is_damaged_and_not_unknown(tmp_path, only):
    run = tmp_path / "mine"
    run.mkdir()
    write_manifest(run, "mine", "0" * 16)
    (tmp_path / "docs").mkdir()
    tables = texts(status_tables(tmp_path, only))
    assert list(tables) == [f"runs in {tmp_path}"]
    (((name, state, *_),), notes) = tables[f"runs in {tmp_path}"]
    assert (name, state, notes) == ("mine", "damaged: report.json is missing; run the recipe again", ())
    with pytest.raises(UserError, match="no run of this name"):
        status_tables(tmp_path, "docs")


def test_a_run_that_goes_on_names_its_process(tmp_path):
    with hold(run_lock(tmp_path, "mine"), "it"), announced(tmp_path, "mine", [chain()], "c"):
        ((row,), notes) = texts(status_tables(tmp_path))["unfinished runs"]
        assert row[:3] == ("mine", "0 of 3", "nothing yet")
        assert row[3].startswith("running: process ")
        assert notes == ()


def test_an_error_leaves_the_run_unfinished(tmp_path):
    with pytest.raises(VerificationError), announced(tmp_path, "mine", [], "c"):
        raise VerificationError("differs")
    assert [run.run for run in unfinished_runs(tmp_path)] == ["mine"]


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"run": "mine"})])
def test_a_run_whose_file_cannot_be_read_is_shown_and_can_be_forgotten(tmp_path, content):
    path = run_lock(tmp_path, "mine").with_name("run-mine.json")
    path.parent.mkdir()
    path.write_text(content)
    for only in (None, "mine"):
        ((row,), (note,)) = texts(status_tables(tmp_path, only))["unfinished runs"]
        assert row == ("mine", "", "", "damaged or old", "1")
        assert note == f"{path} cannot be read: go on with the recipe's own command (or forget it: rm {path})"
    with hold(run_lock(tmp_path, "mine"), "it"):
        ((row,), notes) = texts(status_tables(tmp_path))["unfinished runs"]
        assert row[3].startswith("running: process ")
        assert notes == ()
    with announced(tmp_path, "mine", [], "c"):
        assert [run.run for run in unfinished_runs(tmp_path) if isinstance(run, Unfinished)] == ["mine"]
    assert unfinished_runs(tmp_path) == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0 s ago"), (59, "59 s ago"), (120, "2 min ago"), (7199, "120 min ago"), (7200, "2 h ago"), (172800, "2 days ago")],
)
def test_how_long_ago(seconds, said):
    assert ago(seconds) == said


@pytest.mark.parametrize("task", [["train", "../../x"], ["../x", "0" * 16], ["train", "*"], ["train", ""]])
def test_what_a_run_set_out_to_make_is_looked_for_by_stage_and_key_alone(tmp_path, task):
    (tmp_path / ".locks").mkdir()
    path = tmp_path / ".locks" / "run-mine.json"
    for tasks, kind in (([["train", "0" * 16]], Unfinished), ([task], Unreadable)):
        path.write_text(json.dumps({"run": "mine", "command": "x", "tasks": tasks}))
        assert [type(found) for found in unfinished_runs(tmp_path)] == [kind]
