"""CIFAR's files packed and unpacked: the same bytes, whatever the pieces, and nothing that is not the published file."""

import hashlib
import json
import pickle
import zipfile

import numpy as np
import pytest

from tdcompress.commands import data as verbs
from tdcompress.data import packed
from tdcompress.data.cifar import Cifar10Settings, Cifar100Settings
from tdcompress.data.packed import PACKED, known_files, pack_data, unpack_data
from tdcompress.errors import DataError


def archive(images: int, seed: int, **lists: list) -> bytes:
    rows = np.random.default_rng(seed).integers(0, 256, (images, 3072), dtype=np.uint8)
    head, tail = dict(list(lists.items())[:1]), dict(list(lists.items())[1:])
    return pickle.dumps({**head, **({"data": rows} if images else {}), **tail}, protocol=4)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with a tiny CIFAR-10 and CIFAR-100; pieces of three images in strips of two."""
    monkeypatch.setattr(packed, "_PIECE_IMAGES", 3)
    monkeypatch.setattr(packed, "_STRIP_IMAGES", 2)
    for settings in (Cifar10Settings, Cifar100Settings):
        folder = tmp_path / "data" / settings.folder
        folder.mkdir(parents=True)
        md5 = {}
        for seed, name in enumerate(known_files(settings)):
            images = {"train": 7, "test": 3, settings.meta_file[0]: 0}.get(name, 2)
            content = archive(images, seed, labels=[0] * images, filenames=[f"{name}_{i}".encode() for i in range(images)])
            (folder / name).write_bytes(content)
            md5[name] = hashlib.md5(content).hexdigest()
        monkeypatch.setattr(settings, "train_files", {name: md5[name] for name in settings.train_files})
        monkeypatch.setattr(settings, "test_files", {name: md5[name] for name in settings.test_files})
        monkeypatch.setattr(settings, "meta_file", (settings.meta_file[0], md5[settings.meta_file[0]]))
    return tmp_path / "data"


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_both_sets_come_back_byte_for_byte(root, tmp_path):
    pieces = [path for name in PACKED for path in pack_data(name, root, tmp_path / "packed")]
    assert sorted(path.name for path in pieces if "cifar100" in path.name) == [
        "cifar100.meta.0.zip", "cifar100.test.0.zip", "cifar100.train.0.zip", "cifar100.train.1.zip", "cifar100.train.2.zip",
    ]  # fmt: skip
    (tmp_path / "packed" / "._cifar100.meta.0.zip").write_bytes(b"\0\5\x16\7")  # macOS keeps its own notes of a file so
    done = unpack_data(tmp_path / "packed", tmp_path / "there")
    assert (len(done.written), done.there, done.missing) == (10, (), ())
    assert contents(tmp_path / "there") == contents(root)
    again = unpack_data(tmp_path / "packed", tmp_path / "there")
    assert (again.written, len(again.there)) == ((), 10)


def test_pieces_may_come_in_several_folders(root, tmp_path):
    pieces = pack_data("cifar10", root, tmp_path / "packed")
    for number, path in enumerate(pieces):
        half = tmp_path / f"half{number % 2}"
        half.mkdir(exist_ok=True)
        path.rename(half / path.name)
    first = unpack_data(tmp_path / "half0", tmp_path / "there")
    assert (len(first.written), len(first.missing)) == (4, 3)
    second = unpack_data(tmp_path / "half1", tmp_path / "there")
    assert (len(second.written), len(second.there), second.missing) == (3, 4, ())
    assert contents(tmp_path / "there") == {k: v for k, v in contents(root).items() if k.startswith("cifar-10-")}


def test_a_missing_piece_is_named_and_its_file_not_written(root, tmp_path):
    (tmp_path / "there" / "cifar-100-python").mkdir(parents=True)
    pack_data("cifar100", root, tmp_path / "packed")
    (tmp_path / "packed" / "cifar100.train.1.zip").unlink()
    done = unpack_data(tmp_path / "packed", tmp_path / "there")
    assert [path.name for path in done.missing] == ["train"]
    assert sorted(path.name for path in (tmp_path / "there" / "cifar-100-python").iterdir()) == ["meta", "test"]


def test_a_file_that_is_damaged_or_missing_is_not_packed(root, tmp_path):
    path = root / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DataError, match="data_batch_3 is damaged"):
        pack_data("cifar10", root, tmp_path / "packed")
    path.unlink()
    with pytest.raises(DataError, match="data_batch_3"):
        pack_data("cifar10", root, tmp_path / "packed")


@pytest.fixture
def changed(root, tmp_path):
    """Pack CIFAR-10, change the members of one piece; unpacking has to refuse it and write nothing of that file."""
    pack_data("cifar10", root, tmp_path / "packed")
    piece = tmp_path / "packed" / "cifar10.test_batch.0.zip"

    def run(change, said):
        with zipfile.ZipFile(piece) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        change(members)
        with zipfile.ZipFile(piece, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        with pytest.raises(DataError, match=said):
            unpack_data(tmp_path / "packed", tmp_path / "there")
        assert not (tmp_path / "there" / "cifar-10-batches-py" / "test_batch").exists()

    return run


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"format": 1.0}, "format 1.0, this version reads 1"),
        ({"data": "mnist"}, "no file of a known data set"),
        ({"file": "../x"}, "no file of a known data set"),
        ({"images": -1}, "says that it is piece"),
        ({"before": -1}, "says that it is piece"),
        ({"pieces": 0}, "says that it is piece"),
        ({"images": 1}, r"is damaged \(a picture of"),
        ({"before": 3}, "do not make up the published file"),
        ({"images": "2"}, "int needed"),
    ],
)
def test_a_piece_with_another_description(changed, values, said):
    def change(members):
        members["pack.json"] = json.dumps({**json.loads(members["pack.json"]), **values}).encode()

    changed(change, said)


@pytest.mark.parametrize("name", ["pack.json", "rest.xz", "images.000.webp"])
def test_a_piece_without_a_member(changed, name):
    changed(lambda members: members.pop(name), name)


@pytest.mark.parametrize("name", ["pack.json", "rest.xz", "images.000.webp"])
def test_a_piece_with_a_damaged_member(changed, name):
    changed(lambda members: members.update({name: members[name][:20]}), "is damaged|do not make up")


@pytest.mark.parametrize("name", ["pack.json", "rest.xz", "images.000.webp"])
def test_a_piece_whose_compression_is_damaged(root, tmp_path, name):
    """As any zip program may compress it again."""
    pack_data("cifar10", root, tmp_path / "packed")
    piece = tmp_path / "packed" / "cifar10.test_batch.0.zip"
    with zipfile.ZipFile(piece) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(piece, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    whole = bytearray(piece.read_bytes())
    with zipfile.ZipFile(piece) as archive:
        whole[archive.getinfo(name).header_offset + 30 + len(name)] = 0xFF  # a block of a type that is none
    assert unpack_data(tmp_path / "packed", tmp_path / "good").written
    piece.write_bytes(whole)
    with pytest.raises(DataError, match=rf"{piece.name}: is damaged"):
        unpack_data(tmp_path / "packed", tmp_path / "there")


def test_a_picture_of_another_size(changed, root, tmp_path):
    with zipfile.ZipFile(tmp_path / "packed" / "cifar10.data_batch_1.0.zip") as archive:
        other = archive.read("images.000.webp")
    changed(lambda members: members.update({"images.000.webp": other}), "do not make up")


def test_a_folder_without_pieces(tmp_path):
    with pytest.raises(DataError, match="no pieces"):
        unpack_data(tmp_path, tmp_path / "there")
    (tmp_path / "x.zip").write_bytes(b"no")
    with pytest.raises(DataError, match=r"x\.zip: is damaged, or not from"):
        unpack_data(tmp_path, tmp_path / "there")


def test_strips_are_no_higher_than_webp_allows():
    assert packed._STRIP_IMAGES * 32 <= 16383


def test_the_verbs_know_the_sets(root, tmp_path, capsys):
    import argparse

    parser = argparse.ArgumentParser()
    verbs.add_parser(parser.add_subparsers())
    for name in PACKED:
        args = parser.parse_args(["data", "pack", name, "--root", str(root), "--out", str(tmp_path / "packed")])
        args.verb(args)
    with pytest.raises(SystemExit):
        parser.parse_args(["data", "pack", "digits", "--out", "x"])
    (tmp_path / "packed" / "cifar10.data_batch_2.0.zip").unlink()
    args = parser.parse_args(["data", "unpack", str(tmp_path / "packed"), "--root", str(tmp_path / "there")])
    capsys.readouterr()
    args.verb(args)
    out = capsys.readouterr().out
    assert out.count("wrote ") == 9
    assert "missing" in out
    assert "data_batch_2: not all of its pieces" in out
