"""A finished run, taken up again: when it counts as finished, and what is not believed of it."""

import json
import shutil
from pathlib import Path

import pytest

from tdcompress.cli import main
from tdcompress.errors import ArtifactError
from tdcompress.runs.finished import join_files
from tdcompress.runs.manifest import read_links, read_manifest, save_links, write_manifest


@pytest.fixture
def root(tiny_root, tmp_path):
    return Path(shutil.copytree(tiny_root, tmp_path / "artifacts"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_that_was_made_from_other_stages_is_laid_out_again(root, tiny_text, run_text):
    """As after a stage's VERSION rose: the recipe is the same, every new stage is there, and the folder is the old ones'."""
    run = root / "tiny"
    before, links = contents(run), read_links(run)
    save_links(run, links | {"dense": {**links["dense"], "export": "../stages/export/" + "0" * 16}})
    (run / "dense.onnx").write_bytes(b"of an older version")
    write_manifest(run, "tiny", read_manifest(run).recipe_key)
    done, watcher = run_text(tiny_text, root)
    assert (done.made, watcher.made) == (0, [])
    assert read_links(run) == links
    assert contents(run).keys() == before.keys()
    for name in ("dense.onnx", "model.onnx", "samples.npz", "stages.json"):
        assert contents(run)[name] == before[name]


def edit_report(run):
    path = run / "report.json"
    report = json.loads(path.read_text())
    report["rows"][0]["onnx_bytes"] = 1
    path.write_text(json.dumps(report))


def shorten_model(run):
    (run / "model.onnx").write_bytes((run / "model.onnx").read_bytes()[:-1])


@pytest.mark.parametrize(("damage", "name"), [(edit_report, "report.json"), (shorten_model, "model.onnx")])
def test_joining_does_not_make_damage_true(root, tmp_path, damage, name):
    (measured,) = (root / "stages" / "bench").glob("*/bench-*.json")
    run = root / "tiny"
    damage(run)
    before = contents(run)
    with pytest.raises(ArtifactError, match=rf"{name}: is damaged .*run the recipe again"):
        join_files(run, [measured])
    assert contents(run) == before


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_edited_report_is_not_shown(root, capsys, options):
    arguments = ["report", "tiny", "--artifacts", str(root), *options]
    assert main(arguments) == 0
    assert capsys.readouterr().out
    edit_report(root / "tiny")
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert "report.json: is damaged" in line
