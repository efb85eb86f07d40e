"""A finished run, taken up again: when it counts as finished, and what is not believed of it."""

import shutil
from pathlib import Path

import pytest

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
