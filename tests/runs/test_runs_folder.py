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
    with renewed(folder) as new:
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


def test_a_failure_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "run"
    write(folder, "one")

    def fail():
        with renewed(folder) as new:
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
