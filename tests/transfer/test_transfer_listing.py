"""The list of artefacts: whatever a manifest holds, its artefact has a line."""

import json
from dataclasses import fields

import pytest

from tdcompress.artifacts import content_key, seal
from tdcompress.codec import encode
from tdcompress.lineage.versions import BARE, VERSIONS
from tdcompress.stages import STAGES
from tdcompress.transfer.listing import artifacts_table

SETTINGS = {"model": {"name": "lenet5"}, "method": {"name": "targeted"}, "seed": 3}


@pytest.fixture
def record(small):
    return encode(small.RECORD)


def made(root, record, settings=SETTINGS, version=VERSIONS["train"]):
    """The manifest of an artefact without files."""
    identity = {"stage": "train", "version": version, "settings": settings, "inputs": {}}
    key = content_key(identity)
    folder = root / "stages" / "train" / key
    folder.mkdir(parents=True)
    seal(folder, "train", key, record, identity)
    return folder / "manifest.json"


def line(root):
    (row,) = artifacts_table(root).rows
    return row


def test_a_line_says_what_an_artefact_is(tmp_path, record):
    manifest = made(tmp_path, record)
    key = manifest.parent.name
    assert line(tmp_path) == ("train", key, "finished", "lenet5 targeted seed 3 50.00%", f"{manifest.stat().st_size} B")


def test_every_stage_of_the_tiny_run_is_finished(tiny_root):
    """The types of records and the stages without settings, as they stand without torch, are those of what stages make."""
    rows = artifacts_table(tiny_root).rows
    assert {row[0] for row in rows} >= {"train", "prune", "store", "shrink", "export", "bench"}
    assert {row[2] for row in rows} == {"finished"}


def test_the_stages_without_settings_are_named():
    assert {name for name, stage in STAGES.items() if not fields(stage.settings)} == BARE


@pytest.mark.parametrize("version", [VERSIONS["train"] - 1, VERSIONS["train"] + 1])
def test_an_artefact_of_another_version_is_not_finished(tmp_path, record, version):
    made(tmp_path, record, version=version)
    assert line(tmp_path)[2:4] == ("damaged or old", "")


@pytest.mark.parametrize("key", ["settings", "record", "model", "method", "name", "accuracy"])
@pytest.mark.parametrize("other", [None, 3, "x", [], {}, [1], {"x": 1}])
def test_a_manifest_that_holds_something_else_has_one_too(tmp_path, record, key, other):
    settings = {**SETTINGS, "model": {"name": other if key == "name" else "lenet5"}}
    settings |= {key: other} if key in settings else {}
    record |= {"accuracy": other} if key == "accuracy" else {}
    made(tmp_path, other if key == "record" else record, other if key == "settings" else settings)
    usable = key in ("model", "method", "name") or (key, other) in (("accuracy", 3), ("settings", {"x": 1}))
    assert line(tmp_path)[2] == ("finished" if usable else "damaged or old")


@pytest.mark.parametrize(
    "change", [{"record": {"accuracy": 0.99}}, {"format": 1}, {"format": 3}, {"version": 2}, {"key": "0" * 16}]
)
def test_what_a_manifest_does_not_vouch_for_is_not_shown(tmp_path, record, change):
    manifest = made(tmp_path, record)
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    assert line(tmp_path)[2:4] == ("damaged or old", "")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 200_000])
def test_a_manifest_that_cannot_be_read_has_a_line_too(tmp_path, record, content):
    made(tmp_path, record).write_text(content)
    assert line(tmp_path)[2:4] == ("damaged or old", "")
