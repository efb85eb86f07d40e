import json
import os
from dataclasses import dataclass

import pytest

from tdcompress.artifacts import (
    MANIFEST,
    SCRATCH,
    HashMemory,
    canonical,
    check_files,
    content_key,
    load_artifact,
)
from tdcompress.errors import ArtifactError, BusyError
from tdcompress.files import sha256_file
from tdcompress.stores.folder import FolderStore

MADE_FROM = {"version": 1, "settings": {"x": 0.5}, "inputs": {}}
KEY = content_key({"stage": "train", **MADE_FROM})


@dataclass(frozen=True, kw_only=True)
class Record:
    n: int


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "artifacts")


@pytest.fixture
def published(store):
    """An artefact with two files, one in a folder."""
    with store.partial("train", KEY) as folder:
        (folder / "a.bin").write_bytes(bytes(range(200)))
        (folder / "sub").mkdir()
        (folder / "sub" / "b.txt").write_text("b")
        (folder / SCRATCH).mkdir()
        (folder / SCRATCH / "checkpoint").write_text("big")
        (folder / ".a.bin.x.tmp").write_text("half")
        return store.publish("train", KEY, folder, Record(n=3), MADE_FROM)


def test_golden_keys():
    # a change here means that every artefact of every user is made again
    assert (
        canonical({"b": [1, 2.5, None, True], "a": "é", "r": Record(n=3)}) == '{"a":"\\u00e9","b":[1,2.5,null,true],"r":{"n":3}}'
    )
    assert content_key({"stage": "train", "version": 1, "settings": {"lr": 0.1}, "inputs": {}}) == "9ea98e945eef72ca"
    assert content_key({"b": 1, "a": 2}) == content_key({"a": 2, "b": 1})
    assert content_key({"a": 1}) != content_key({"a": 1.0})


def test_a_published_artefact_is_found_and_whole(store, published):
    assert sorted(published.files) == ["a.bin", "sub/b.txt"]
    found = FolderStore(store.root).find_or_set_aside("train", KEY)
    assert (found.stage, found.key, found.record, dict(found.files)) == ("train", KEY, {"n": 3}, dict(published.files))
    assert found.file("sub/b.txt").read_text() == "b"
    manifest = json.loads((found.folder / MANIFEST).read_text())
    assert manifest["settings"] == {"x": 0.5}
    assert manifest["version"] == 1
    assert sorted(path.name for path in found.folder.iterdir()) == ["a.bin", "manifest.json", "sub"]
    assert [path.name for path in found.folder.parent.iterdir()] == [KEY]
    with pytest.raises(ArtifactError, match=r"has no file c\.bin; it has a\.bin"):
        found.file("c.bin")


def test_nothing_is_found_where_nothing_is(store):
    assert store.find_or_set_aside("train", KEY) is None


def test_what_a_failed_stage_wrote_stays_unfinished(store):
    def fail():
        with store.partial("train", KEY) as folder:
            (folder / "checkpoint").write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert store.find_or_set_aside("train", KEY) is None
    with store.partial("train", KEY) as folder:
        assert (folder / "checkpoint").read_text() == "half"


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


DAMAGES = {
    "a flipped bit": (lambda folder: flip(folder / "a.bin"), "is damaged"),
    "a truncated file": (lambda folder: (folder / "a.bin").write_bytes(bytes(range(100))), "is damaged"),
    "a missing file": (lambda folder: (folder / "sub" / "b.txt").unlink(), "is missing"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "not a readable manifest"),
    "half a manifest": (lambda folder: (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:-9]), "not a readable"),
    "a manifest of nothing": (lambda folder: (folder / MANIFEST).write_text("[]"), "not a readable manifest"),
    "files that are no table": (lambda folder: change(folder, files=3), "not a readable manifest"),
    "a digest that is no text": (lambda folder: change(folder, files={"a.bin": 3}), "is damaged"),
    "another format": (lambda folder: change(folder, format=99), "format 99"),
    "a file outside": (lambda folder: change(folder, files={"../../../x": "0" * 64}), "outside its folder"),
    "an absolute file": (lambda folder: change(folder, files={"/etc/passwd": "0" * 64}), "outside its folder"),
    "another stage's manifest": (lambda folder: change(folder, stage="prune"), "is of prune"),
    "settings that are not the key's": (lambda folder: change(folder, settings={"x": 0.25}), "its key is not of its settings"),
    "a manifest without settings": (lambda folder: change(folder, inputs=None), "not a readable manifest"),
    "another key's manifest": (lambda folder: change(folder, key="f" * 16), "is of train ffff"),
}


def change(folder, **values):
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_set_aside(store, published, damage):
    do, said = DAMAGES[damage]
    do(published.folder)
    with pytest.raises(ArtifactError, match=said):
        load_artifact(published.folder)
    assert FolderStore(store.root).find_or_set_aside("train", KEY) is None
    assert [path.name for path in published.folder.parent.iterdir()] == [f"{KEY}.damaged"]


def test_a_second_damage_replaces_the_first_that_was_set_aside(store, published):
    (published.folder / "a.bin").write_bytes(b"1")
    assert store.find_or_set_aside("train", KEY) is None
    with store.partial("train", KEY) as folder:
        (folder / "a.bin").write_bytes(b"good")
        again = store.publish("train", KEY, folder, Record(n=4), MADE_FROM)
    (again.folder / "a.bin").write_bytes(b"2222")
    assert store.find_or_set_aside("train", KEY) is None
    assert (again.folder.with_name(f"{KEY}.damaged") / "a.bin").read_bytes() == b"2222"


def test_check_files_hashes_again(published):
    check_files(published.folder, published.files)
    flip(published.folder / "a.bin")
    with pytest.raises(ArtifactError, match="is damaged"):
        check_files(published.folder, published.files)


def test_the_hash_memory_reads_an_unchanged_file_once_and_notices_changes(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    memory = HashMemory(tmp_path / "memory.json")
    first = memory.sha256(path)
    memory.save()
    read = []
    monkeypatch.setattr("tdcompress.artifacts.sha256_file", lambda path: read.append(path) or sha256_file(path))
    memory = HashMemory(tmp_path / "memory.json")
    assert memory.sha256(path) == first
    assert read == []
    stamp = path.stat()
    path.write_bytes(b"2")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert memory.sha256(path) == sha256_file(path) != first
    path.write_bytes(b"22")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert memory.sha256(path) == sha256_file(path)
    assert len(read) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"a": 3}', "null", "\x00", '[["a", 1]]'])
def test_a_damaged_hash_memory_costs_time_only(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    (tmp_path / "memory.json").write_text(content.replace('"a"', json.dumps(str(path.resolve()))))
    memory = HashMemory(tmp_path / "memory.json")
    assert memory.sha256(path) == sha256_file(path)
    memory.save()
    assert HashMemory(tmp_path / "memory.json").sha256(path) == sha256_file(path)


def test_a_stage_that_another_process_makes_is_busy(store, tmp_path):
    busy = pytest.raises(BusyError, match=f"^train {KEY} is in use by")
    with store.partial("train", KEY), busy, FolderStore(store.root).partial("train", KEY):
        pass
