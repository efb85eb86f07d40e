import json
import math
import os
import shutil
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdcompress.artifacts import (
    DIGEST,
    FORMAT,
    MANIFEST,
    SCRATCH,
    HashMemory,
    canonical,
    check_files,
    content_key,
    find_by_key,
    load_artifact,
    read_artifact,
    sealed,
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


def test_the_keys_of_a_stage_are_those_of_what_is_published(store, published):
    with store.partial(published.stage, "0" * 16):
        assert store.keys(published.stage) == [published.key]
    store.set_aside(published.stage, published.key)
    assert store.keys(published.stage) == store.keys("nothing") == []


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
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "manifest.json: is missing"),
    "half a manifest": (lambda folder: (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:-9]), "damaged, or of"),
    "a manifest of nothing": (lambda folder: (folder / MANIFEST).write_text("[]"), "a table is needed, not \\[\\]"),
    "files that are no table": (lambda folder: change(folder, files=3), "not a readable manifest"),
    "a digest that is no text": (lambda folder: change(folder, files={"a.bin": 3}), "not a readable manifest"),
    "another format": (lambda folder: change(folder, format=99), "format 99"),
    "the format without a sha256 of its own": (lambda folder: change(folder, format=1), "format 1, this version reads 2"),
    "a version that is no number": (lambda folder: change(folder, version="1"), "version: int needed"),
    "a version that is a truth value": (lambda folder: change(folder, version=True), "version: int needed"),
    "no sha256 of its own": (lambda folder: tamper(folder, lambda said: said.pop(DIGEST)), "its sha256 is not that of what"),
    "another record": (lambda folder: tamper(folder, lambda said: said["record"].update(n=4)), "its sha256 is not that of what"),
    "another record of the same look": (lambda folder: tamper(folder, lambda said: said["record"].update(n=3.0)), "its sha256"),
    "no record": (lambda folder: change(folder, record=...), "record: missing"),
    "a record that is no number": (
        lambda folder: tamper(folder, lambda said: said["record"].update(n=math.nan)),
        "NaN is not a finite number",
    ),
    "a number that no float can be": (lambda folder: begin(folder, '"x": 1e999'), "1e999 is not a finite number"),
    "another host": (lambda folder: tamper(folder, lambda said: said.update(host="other")), "its sha256 is not that of what"),
    "very deep": (lambda folder: (folder / MANIFEST).write_text("[" * 100_000 + "]" * 100_000), "nested too deeply"),
    "deep": (
        lambda folder: (folder / MANIFEST).write_text(f'{{"format": 2, "x": {"[" * 900}{"]" * 900}}}'),
        "nested too deeply",
    ),
    "no text": (lambda folder: (folder / MANIFEST).write_bytes(b"\xff{}"), "not UTF-8 text"),
    "no format": (lambda folder: (folder / MANIFEST).write_text("{}"), "names no format"),
    "a file outside": (lambda folder: change(folder, files={"../../../x": "0" * 64}), "'../../../x' is outside its folder"),
    "an absolute file": (lambda folder: change(folder, files={"/etc/passwd": "0" * 64}), "outside its folder"),
    "a file that is the folder": (lambda folder: change(folder, files={".": "0" * 64}), "outside its folder"),
    "a digest that is a pattern": (lambda folder: change(folder, files={"a.bin": "*"}), "'\\*' is no sha256"),
    "a name with a NUL": (lambda folder: change(folder, files={"a\0b": "0" * 64}), r"no file can be called 'a\\x00b'"),
    "half a surrogate pair": (lambda folder: change(folder, files={"a\ud800b": "0" * 64}), r"no file can be called 'a\\ud800b'"),
    "a long name": (lambda folder: change(folder, files={"a" * 256: "0" * 64}), "no file can be called"),
    "a long path": (lambda folder: change(folder, files={"a/" * 600: "0" * 64}), "no file can be called"),
    "a link to itself": (lambda folder: link_to_itself(folder / "a.bin"), "is a link that leads nowhere|is missing"),
    "another stage's manifest": (lambda folder: change(folder, stage="prune"), "is of prune"),
    "settings that are not the key's": (lambda folder: change(folder, settings={"x": 0.25}), "its key is not of its settings"),
    "a manifest without settings": (lambda folder: change(folder, inputs=None), "not a readable manifest"),
    "another key's manifest": (lambda folder: change(folder, key="f" * 16), "is of train ffff"),
}


def link_to_itself(path):
    path.unlink()
    path.symlink_to(path.name)


def tamper(folder, do):
    """Change a manifest, but not its own sha256."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    do(manifest)
    path.write_text(json.dumps(manifest))


def begin(folder, text):
    """Put a field before the others of a manifest."""
    path = folder / MANIFEST
    path.write_text("{" + text + ", " + path.read_text().lstrip().removeprefix("{"))


def change(folder, **values):
    """Write a manifest anew, its own sha256 included, as a hostile author would; ``...`` leaves a field out."""
    path = folder / MANIFEST
    manifest = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps(sealed({name: value for name, value in manifest.items() if value is not ...})))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_set_aside(store, published, damage):
    do, said = DAMAGES[damage]
    do(published.folder)
    with pytest.raises(ArtifactError, match=said):
        load_artifact(published.folder)
    assert FolderStore(store.root).find_or_set_aside("train", KEY) is None
    assert [path.name for path in published.folder.parent.iterdir()] == [f"{KEY}.damaged"]


@pytest.mark.parametrize(
    "key",
    ["*", "?" * 16, "../x", "../../secret", "/etc", "", "A" * 16, "0" * 15, "0" * 17, "0" * 16 + "\n", "[0-9]" * 16, ["0" * 16]],
)
def test_an_input_is_never_looked_for_by_anything_but_a_key(store, key):
    """The manifest is consistent: whoever wrote it chose the input, hashed it, and named the folder by it."""
    identity = {"stage": "prune", "version": 1, "settings": {}, "inputs": {"train": key}}
    folder = store.folder("prune", content_key(identity))
    for other in (folder, store.folder("train", "0" * 16), store.root / "secret", store.root / "stages" / "x"):
        other.mkdir(parents=True, exist_ok=True)
        manifest = {"format": FORMAT, "key": other.name, **identity, "stage": other.parent.name, "record": {}, "files": {}}
        (other / MANIFEST).write_text(json.dumps(sealed(manifest)))
    with pytest.raises(ArtifactError, match=r"inputs\.train: (.* is no key|str needed)"):
        read_artifact(folder)
    assert store.find_or_set_aside("prune", folder.name) is None
    assert folder.with_name(f"{folder.name}.damaged").is_dir()


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(record=JSON)
def test_what_a_manifest_says_is_sealed_alike_before_and_after_it_was_written(record):
    manifest = sealed({"format": FORMAT, "record": record})
    assert sealed(json.loads(json.dumps(manifest, indent=1, sort_keys=True)))[DIGEST] == manifest[DIGEST]


def test_a_second_damage_replaces_the_first_that_was_set_aside(store, published):
    (published.folder / "a.bin").write_bytes(b"1")
    assert store.find_or_set_aside("train", KEY) is None
    with store.partial("train", KEY) as folder:
        (folder / "a.bin").write_bytes(b"good")
        again = store.publish("train", KEY, folder, Record(n=4), MADE_FROM)
    (again.folder / "a.bin").write_bytes(b"2222")
    assert store.find_or_set_aside("train", KEY) is None
    assert (again.folder.with_name(f"{KEY}.damaged") / "a.bin").read_bytes() == b"2222"


@pytest.mark.parametrize("in_the_way", ["a file", "a link to nowhere", "a link to a file"])
@pytest.mark.parametrize("place", [KEY, f"{KEY}.partial"])
def test_what_is_no_folder_is_set_aside_with_a_warning_before_anything_is_made(store, tmp_path, caplog, in_the_way, place):
    path = store.folder("train", place)
    path.parent.mkdir(parents=True)
    (tmp_path / "other").write_text("kept")
    if in_the_way == "a file":
        path.write_text("kept")
    else:
        path.symlink_to(tmp_path / ("nowhere" if in_the_way == "a link to nowhere" else "other"))
    assert store.find_or_set_aside("train", KEY) is None
    with store.partial("train", KEY) as folder:
        assert [record.getMessage() for record in caplog.records] == [f"{path}: is no folder; it is kept as {place}.damaged"]
        (folder / "a.bin").write_bytes(b"1")
        store.publish("train", KEY, folder, Record(n=3), MADE_FROM)
    assert store.find_or_set_aside("train", KEY) is not None
    aside = path.with_name(f"{place}.damaged")
    assert aside.is_symlink() or aside.read_text() == "kept"
    assert (tmp_path / "other").read_text() == "kept"


@pytest.mark.parametrize("in_the_way", ["a file", "a link to nowhere", "a link to a folder"])
def test_what_is_in_the_way_of_a_damaged_artefact_is_replaced(store, published, tmp_path, in_the_way):
    damaged = published.folder.with_name(f"{KEY}.damaged")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "kept").touch()
    if in_the_way == "a file":
        damaged.write_text("x")
    else:
        damaged.symlink_to(tmp_path / ("nowhere" if in_the_way == "a link to nowhere" else "other"))
    (published.folder / "a.bin").write_bytes(b"1")
    assert store.find_or_set_aside("train", KEY) is None
    assert not damaged.is_symlink()
    assert (damaged / "a.bin").read_bytes() == b"1"
    assert (tmp_path / "other" / "kept").is_file()


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "a" * 300])
def test_check_files_refuses_a_name_that_no_file_can_have(tmp_path, name):
    with pytest.raises(ArtifactError, match=r"manifest\.json: no file can be called '"):
        check_files(tmp_path, {name: "0" * 64})


def test_a_file_is_hashed_where_it_is_first_asked_for(published, monkeypatch):
    hashed = []
    monkeypatch.setattr("tdcompress.artifacts.check_files", lambda folder, files, sha256: hashed.append(sorted(files)))
    for read in (read_artifact, load_artifact):
        artifact = read(published.folder)
        assert artifact.file("a.bin") == artifact.file("a.bin") == published.folder / "a.bin"
    assert [names for names in hashed if names] == [["a.bin"], ["a.bin", "sub/b.txt"]]


@pytest.mark.parametrize("do", [flip, lambda path: path.unlink()])
def test_a_file_that_is_not_as_the_manifest_says_is_refused_where_it_is_asked_for(published, do):
    artifact = read_artifact(published.folder)
    do(published.folder / "a.bin")
    for _ in range(2):
        with pytest.raises(ArtifactError, match=r"a\.bin: is (damaged|missing)"):
            artifact.file("a.bin")
    assert artifact.file("sub/b.txt").read_text() == "b"


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


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"a": 3}', "null", "\x00", '[["a", 1]]', "[" * 200_000, '{"a": [Infinity, 1, "x"]}']
)
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


def made_from(store, artifact):
    """An artefact of another stage, made from this one."""
    description = {"version": 1, "settings": {}, "inputs": {"train": artifact.key}}
    key = content_key({"stage": "prune", **description})
    with store.partial("prune", key) as folder:
        return store.publish("prune", key, folder, Record(n=1), description)


@pytest.mark.parametrize("copy", ["a_copy", "old-train", "train.bak", "train_bak", "Train", "a copy of train", "zzz"])
def test_a_copy_of_a_stages_folder_is_passed_over(store, published, copy):
    pruned = made_from(store, published)
    shutil.copytree(published.folder.parent, published.folder.parent.with_name(copy))
    assert pruned.input("train") == published
    assert find_by_key(store.root / "stages", KEY) == published


def test_an_input_that_is_missing_damaged_or_not_named_is_told(store, published):
    pruned = made_from(store, published)
    with pytest.raises(ArtifactError, match=r"manifest\.json: names no finetune as its input; run the recipe again"):
        pruned.input("finetune")
    (published.folder / MANIFEST).write_text("{")
    with pytest.raises(ArtifactError, match=rf"train/{KEY}/manifest\.json: damaged"):
        pruned.input("train")
    shutil.move(published.folder.parent, published.folder.parent.with_name("train.bak"))
    with pytest.raises(ArtifactError, match=f"its train, {KEY}, is missing; run the recipe again"):
        pruned.input("train")


def test_a_record_is_decoded_or_its_artefact_and_field_are_named(published):
    @dataclass(frozen=True, kw_only=True)
    class Longer(Record):
        accuracy: float

    assert published.recorded(Record) == Record(n=3)
    with pytest.raises(ArtifactError, match=rf"train/{KEY}/manifest\.json: is of another version \(record\.accuracy: missing\)"):
        published.recorded(Longer)
    with pytest.raises(ArtifactError, match=r"record\.n: str needed, not 3"):
        published.recorded(dict[str, str])
    assert published.recorded_number("n") == 3.0
    with pytest.raises(ArtifactError, match=r"record\.accuracy: float needed, not None"):
        published.recorded_number("accuracy")
