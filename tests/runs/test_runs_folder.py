"""The run's folder: a new one takes the old one's place as a whole, at whatever moment the process dies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tdcompress.errors import UserError
from tdcompress.runs.folder import refuse_another_recipe, renewed
from tdcompress.runs.manifest import RunManifest, held_recipes, save_manifest
from tdcompress.runs.status import status_tables

WRITE = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_runs_folder as t
from tdcompress.runs import folder

calls = 0
def die(*arguments, real):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    return real(*arguments)

rename = Path.rename
Path.rename = lambda self, target: die(self, target, real=rename)
rmtree = folder.shutil.rmtree
folder.shutil.rmtree = lambda path, ignore_errors=False: die(path, real=lambda path: rmtree(path, ignore_errors=ignore_errors))
t.write(Path(sys.argv[1]), sys.argv[3])
"""


def write(folder, key):
    with renewed(folder, key, replace=True) as new:
        (new / "a.txt").write_text(key)
        (new / f"{key}.txt").write_text(key)
        save_manifest(new, RunManifest(run="run", recipe_key=key, files={"a.txt": "", f"{key}.txt": ""}))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_replaces_the_old_and_keeps_what_was_not_the_runs(tmp_path):
    folder = tmp_path / "run"
    write(folder, "one")
    (folder / "notes.txt").write_text("mine")
    (folder / "sub").mkdir()
    write(folder, "two")
    assert names(folder) == ["a.txt", "manifest.json", "notes.txt", "sub", "two.txt"]
    assert (folder / "a.txt").read_text() == "two"
    assert names(tmp_path) == ["run"]


def test_a_link_to_a_folder_is_replaced_and_what_it_leads_to_stays(tmp_path):
    big = tmp_path / "big"
    write(big, "one")
    (big / "notes.txt").write_text("mine")
    runs = tmp_path / "runs"
    runs.mkdir()
    folder = runs / "run"
    folder.symlink_to(big)
    for key in ("two", "three"):
        write(folder, key)
        assert names(folder) == ["a.txt", "manifest.json", "notes.txt", f"{key}.txt"]
        assert ((folder / "a.txt").read_text(), (folder / "notes.txt").read_text()) == (key, "mine")
        assert names(runs) == ["run"]
        assert names(big) == ["a.txt", "manifest.json", "notes.txt", "one.txt"]


def test_a_failure_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "run"
    write(folder, "one")

    def fail():
        with renewed(folder, "two", replace=True) as new:
            (new / "a.txt").write_text("two")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert names(folder) == ["a.txt", "manifest.json", "one.txt"]
    write(folder, "two")
    assert names(tmp_path) == ["run"]


@pytest.mark.parametrize("moment", range(1, 7))
def test_killed_at_any_moment_nothing_is_lost_and_the_next_run_finishes(tmp_path, moment):
    folder = tmp_path / "run"
    write(folder, "one")
    (folder / "notes.txt").write_text("mine")
    program = WRITE.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", program, str(folder), str(moment), "two"], check=False, env=dict(os.environ))
    assert done.returncode in (-9, 0)
    if folder.exists():
        assert (folder / "a.txt").read_text() in ("one", "two")
        assert json.loads((folder / "manifest.json").read_text())["recipe_key"] == (folder / "a.txt").read_text()
    write(folder, "three")
    assert names(folder) == ["a.txt", "manifest.json", "notes.txt", "three.txt"]
    assert names(tmp_path) == ["run"]


def older(folder, key):
    """A run's folder as it was before manifests had a sha256 of their own."""
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text(key)
    (folder / "notes.txt").write_text("mine")
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "run": "run", "recipe_key": key, "files": {"a.txt": ""}}))
    (folder / "report.json").write_text(json.dumps({"recipe_key": key}))


def lay_out_anew(folder, key, *, replace=False):
    refuse_another_recipe(folder, key, replace)
    with renewed(folder, key, replace) as new:
        save_manifest(new, RunManifest(run="run", recipe_key=key, files={}))


def test_a_folder_of_an_older_format_is_kept_beside_the_new_one(tmp_path, caplog):
    folder = tmp_path / "run"
    for aside in ("run.format1", "run.format1-2"):
        older(folder, "one")
        lay_out_anew(folder, "two")
        assert names(folder) == ["manifest.json"]
        assert names(tmp_path / aside) == ["a.txt", "manifest.json", "notes.txt", "report.json"]
        assert f"the old one is kept as {tmp_path / aside}" in caplog.text
    assert names(tmp_path) == ["run", "run.format1", "run.format1-2"]
    (folder_row,) = status_tables(tmp_path)[0].rows
    assert folder_row[0] == "run"


@pytest.mark.parametrize(("key", "replace"), [("one", False), ("two", True)])
def test_a_folder_of_an_older_format_goes_where_its_recipe_or_its_owner_says_so(tmp_path, key, replace):
    folder = tmp_path / "run"
    older(folder, "one")
    lay_out_anew(folder, key, replace=replace)
    assert (folder / "notes.txt").read_text() == "mine"
    assert names(tmp_path) == ["run"]


@pytest.mark.parametrize("change", [{"format": 3}, {"format": 0}, {"format": True}, {"format": "1"}, {"recipe_key": 3}])
def test_a_folder_of_a_newer_format_or_of_none_is_not_replaced(tmp_path, change):
    folder = tmp_path / "run"
    older(folder, "one")
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"or by another version of tdcompress\) named 'run'; .*--replace"):
        lay_out_anew(folder, "two")
    assert names(tmp_path) == ["run"]


def test_whose_folder_it_is(tmp_path):
    folder = tmp_path / "run"
    refuse_another_recipe(folder, "one", replace=False)
    folder.mkdir()
    refuse_another_recipe(folder, "one", replace=False)
    write(folder, "one")
    refuse_another_recipe(folder, "one", replace=False)
    refuse_another_recipe(folder, "two", replace=True)
    with pytest.raises(UserError, match="holds the run of another recipe"):
        refuse_another_recipe(folder, "two", replace=False)
    (folder / "manifest.json").write_text("{")
    (folder / "report.json").write_text('{"recipe_key": "one"}')
    refuse_another_recipe(folder, "one", replace=False)
    (folder / "report.json").write_text('{"recipe_key": 3}')
    assert not held_recipes(folder)
    (folder / "report.json").unlink()
    for replace in (False, True):
        with pytest.raises(UserError, match="holds no run"):
            refuse_another_recipe(folder, "one", replace=replace)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="holds no run"):
        refuse_another_recipe(tmp_path / "file", "one", replace=True)
