"""What a bundle must not be able to do: leave its folder, bring what it does not list, or be something else."""

import json
import stat
import zipfile

import pytest

from tdcompress.errors import ArtifactError
from tdcompress.stores.folder import FolderStore
from tdcompress.transfer.bundle import bundle_bytes, read_bundle, write_bundle
from tdcompress.transfer.items import places, read_item


@pytest.fixture
def bundle(made, tmp_path):
    """(path of a bundle of both trainings, its items)."""
    root = made[0]
    items = [read_item(FolderStore(root), place) for place in places(root)]
    write_bundle(items, root, tmp_path / "b.zip")
    return tmp_path / "b.zip", items


@pytest.fixture
def refused(bundle, tmp_path):
    """Write the bundle again, changed; it has to be refused, and nothing may be outside the folder."""
    path, _ = bundle

    def run(change, said):
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            change(members, archive)
            for name, content in members.items():
                archive.writestr(name, content)
        before = sorted(p for p in tmp_path.rglob("*") if "new" not in p.parts)
        with pytest.raises(ArtifactError, match=said) as error:
            read_bundle(path, tmp_path / "new", tmp_path / "x.000.tdca")
        assert "x.000.tdca" in str(error.value)
        assert sorted(p for p in tmp_path.rglob("*") if "new" not in p.parts) == before

    return run


def listed(members, change):
    values = json.loads(members["bundle.json"])
    change(values)
    members["bundle.json"] = json.dumps(values).encode()


def test_a_bundle_comes_out_as_it_went_in(bundle, made, tmp_path):
    path, items = bundle
    assert read_bundle(path, tmp_path / "new", path) == items
    for item in items:
        for name in item.files:
            assert (tmp_path / "new" / item.folder / name).read_bytes() == (made[0] / item.folder / name).read_bytes()
    assert path.stat().st_size <= sum(map(bundle_bytes, items)) + 1024


def test_of_two_checkpoints_the_newest_travels(bundle):
    _, (finished, unfinished) = bundle
    assert sorted(finished.files) == ["manifest.json", "metrics.jsonl", "model.safetensors"]
    assert sorted(unfinished.files) == [
        "scratch/checkpoints/step-000000008.json",
        "scratch/checkpoints/step-000000008.safetensors",
        "scratch/metrics.jsonl",
        "scratch/task.json",
    ]


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../../x", "..", "a//x", "C:/x", "a\\x", ".hidden", "a/./x", "x\n", "", "a/b/c/d/e/f/g"]
)
def test_names_that_leave_the_folder(refused, name):
    def change(members, archive):
        def rename(values):
            item = values["items"][0]
            item["files"][name] = item["files"].pop("metrics.jsonl")
            folder = f"stages/{item['stage']}/{item['key']}"
            members[f"{folder}/{name}"] = members.pop(f"{folder}/metrics.jsonl")

        listed(members, rename)

    refused(change, "not the name of a file inside|no plain file")


@pytest.mark.parametrize(
    ("field", "value"), [("stage", "../x"), ("stage", ""), ("key", "../../etc"), ("key", "ABCDEF0123456789"), ("key", "1" * 17)]
)
def test_stages_and_keys_that_are_none(refused, field, value):
    refused(lambda members, _: listed(members, lambda v: v["items"][0].update({field: value})), "names no artefact")


def test_links_are_refused(refused):
    def change(members, archive):
        name = next(n for n in members if n.endswith("metrics.jsonl"))
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, members.pop(name))

    refused(change, "no plain file")


def test_compressed_members_are_refused(refused):
    def change(members, archive):
        name = next(n for n in members if n.endswith("model.safetensors"))
        archive.writestr(name, members.pop(name), zipfile.ZIP_DEFLATED)

    refused(change, "compressed")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice(refused):
    refused(lambda members, archive: archive.writestr("bundle.json", members["bundle.json"]), "there twice")


def test_members_that_are_not_listed_or_missing(refused):
    refused(lambda members, _: members.update({"stages/train/x": b""}), "are not those of its list: stages/train/x")


def test_a_missing_member(refused):
    refused(lambda members, _: members.pop(next(n for n in members if n.endswith("model.safetensors"))), "not those of its list")


def test_a_missing_list(refused):
    refused(lambda members, _: members.pop("bundle.json"), r"bundle\.json")


def test_another_format(refused):
    refused(
        lambda members, _: listed(members, lambda v: v.update(format=2)),
        r"tdca: format 2, this version reads 1; export and import with the same version",
    )


def test_another_content(refused):
    def change(members, _):
        members[next(n for n in members if n.endswith("model.safetensors"))] = b"other"

    refused(change, "is not what is listed")


def test_an_artefact_that_is_listed_twice(refused):
    refused(lambda members, _: listed(members, lambda v: v["items"].append(v["items"][0])), "is there twice")


def test_no_zip_at_all(tmp_path):
    (tmp_path / "b.zip").write_bytes(b"no")
    with pytest.raises(ArtifactError, match="not from"):
        read_bundle(tmp_path / "b.zip", tmp_path / "new", tmp_path / "b.zip")
