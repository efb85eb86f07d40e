"""The list of artefacts: whatever a manifest holds, its artefact has a line."""

import json

import pytest

from tdcompress.transfer.listing import artifacts_table

KEY = "0" * 16
SAID = {
    "settings": {"model": {"name": "lenet5"}, "method": {"name": "targeted"}, "seed": 3},
    "record": {"accuracy": 0.5},
}


def listed(root, content):
    folder = root / "stages" / "train" / KEY
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(content)
    (row,) = artifacts_table(root).rows
    return row


def test_a_line_says_what_an_artefact_is(tmp_path):
    content = json.dumps(SAID)
    assert listed(tmp_path, content) == ("train", KEY, "finished", "lenet5 targeted seed 3 50.00%", f"{len(content)} B")


@pytest.mark.parametrize("key", ["settings", "record", "model", "method", "name", "accuracy"])
@pytest.mark.parametrize("other", [None, 3, "x", [], {}, [1], {"x": 1}])
def test_a_manifest_that_is_damaged_or_of_another_version_has_one_too(tmp_path, key, other):
    changed = {
        **SAID,
        "settings": {**SAID["settings"], "model": {"name": other if key == "name" else "lenet5"}},
        "record": {"accuracy": other if key == "accuracy" else 0.5},
    }
    changed |= {key: other} if key in changed else {}
    if key in ("model", "method"):
        changed["settings"][key] = other
    assert listed(tmp_path, json.dumps(changed))[:3] == ("train", KEY, "finished")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 200_000])
def test_a_manifest_that_cannot_be_read_has_one_too(tmp_path, content):
    assert listed(tmp_path, content)[:4] == ("train", KEY, "finished", "")
