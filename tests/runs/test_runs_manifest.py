import json

import pytest

from tdcompress.artifacts import DIGEST, MANIFEST
from tdcompress.codec import encode
from tdcompress.errors import ArtifactError
from tdcompress.runs.manifest import STAGES, RunManifest, held_recipes, linked_stages, read_manifest, save_manifest


def test_links_that_no_folder_can_have_are_passed_over(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "stages" / "train").mkdir(parents=True)
    (tmp_path / "loop").symlink_to("loop")
    links = ["../stages/train", "../stages/none", "../loop", "a\0b", "a\ud800b", "a" * 5000]
    (run / STAGES).write_text(json.dumps({"row": {str(number): link for number, link in enumerate(links)}}))
    assert linked_stages(run) == [tmp_path / "stages" / "train"]


def test_links_that_cannot_be_read_are_none(tmp_path):
    for content in ("[" * 200_000, "{", "[]", '{"row": ["x"]}'):
        (tmp_path / STAGES).write_text(content)
        assert linked_stages(tmp_path) == []


RUN = RunManifest(run="run", recipe_key="0" * 16, files={})
HOSTILE = {
    "a number that no float can be": '"x": 1e999',
    "no number": '"x": NaN',
    "infinity": '"x": {"y": [-Infinity]}',
    **{f"{depth} lists": f'"x": {"[" * depth}{"]" * depth}' for depth in (70, 200, 300, 480, 900, 990, 20_000)},
}


def test_a_manifest_is_read_as_it_was_saved(tmp_path):
    save_manifest(tmp_path, RUN)
    assert read_manifest(tmp_path) == RUN


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_nobody_can_have_written_is_damage(tmp_path, hostile):
    save_manifest(tmp_path, RUN)
    path = tmp_path / MANIFEST
    path.write_text("{" + HOSTILE[hostile] + ", " + path.read_text().removeprefix("{"))
    with pytest.raises(ArtifactError, match=r"manifest\.json: damaged, .*(is not a finite number|nested too deeply)"):
        read_manifest(tmp_path)
    assert held_recipes(tmp_path) == frozenset()


def test_a_manifest_without_its_sha256_or_with_another_is_damaged(tmp_path):
    for digest in ({}, {DIGEST: "0" * 64}, {DIGEST: None}):
        (tmp_path / MANIFEST).write_text(json.dumps({**encode(RUN), **digest}))
        with pytest.raises(ArtifactError, match="its sha256 is not that of what it says"):
            read_manifest(tmp_path)
