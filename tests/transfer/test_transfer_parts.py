"""A file cut into parts and joined: exact, and nothing that is damaged, missing or of others is taken."""

import json
import random
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdcompress.errors import ArtifactError, UserError
from tdcompress.transfer.parts import OVERHEAD, group_parts, join_parts, write_parts


@pytest.fixture
def cut(tmp_path):
    """Cut some bytes; gives the parts."""

    def run(content: bytes, room: int, name: str = "x"):
        (tmp_path / "source").write_bytes(content)
        return write_parts(tmp_path / "source", tmp_path / name, OVERHEAD + room)

    return run


def joined(paths, tmp_path):
    (group,) = group_parts(paths)
    join_parts(group, tmp_path / "joined")
    return (tmp_path / "joined").read_bytes()


@given(content=st.binary(max_size=2000), room=st.integers(1, 700).filter(lambda n: n > 2))
def test_parts_joined_in_any_order_are_the_whole(content, room, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    (folder / "source").write_bytes(content)
    paths = write_parts(folder / "source", folder / "x", OVERHEAD + room)
    assert len(paths) == max(1, -(-len(content) // room))
    assert all(path.stat().st_size <= OVERHEAD + room for path in paths)
    assert [path.name for path in paths] == [f"x.{number:03d}.tdca" for number in range(len(paths))]
    random.Random(0).shuffle(paths)
    assert joined(paths, folder) == content


def test_a_missing_part_is_named(cut):
    paths = cut(b"a" * 100, 40)
    with pytest.raises(ArtifactError, match=r"part 0 of 3 .* and part 1 is not among"):
        group_parts([paths[0], paths[2]])


def test_parts_of_two_exports_are_kept_apart(cut, tmp_path):
    first, second = cut(b"a" * 100, 40), cut(b"b" * 60, 40, "y")
    groups = group_parts([*second, *first])
    assert sorted(map(len, groups)) == [2, 3]
    assert joined(first, tmp_path) == b"a" * 100


def test_a_copy_of_a_part_does_no_harm(cut, tmp_path):
    paths = cut(b"a" * 100, 40)
    copy = tmp_path / "copy.tdca"
    copy.write_bytes(paths[1].read_bytes())
    assert joined([*paths, copy], tmp_path) == b"a" * 100


def test_every_flipped_byte_is_found_or_does_no_harm(cut, tmp_path):
    """Some bytes of a zip archive say nothing (dates, attributes); all others are checked."""
    (path,) = cut(bytes(range(60)), 100)
    whole = path.read_bytes()
    taken = []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        with suppress(ArtifactError):
            taken.append(joined([path], tmp_path))
    assert set(taken) == {bytes(range(60))}
    assert len(taken) < len(whole) // 4


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04", bytes(500)])
def test_files_that_are_no_parts(tmp_path, content):
    path = tmp_path / "x.000.tdca"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged, or not from"):
        group_parts([path])
    with pytest.raises(UserError, match="no such file"):
        group_parts([tmp_path / "none.tdca"])


def test_a_truncated_part(cut, tmp_path):
    paths = cut(b"a" * 5000, 4000)
    paths[0].write_bytes(paths[0].read_bytes()[:3000])
    with pytest.raises(ArtifactError, match="is damaged"):
        joined(paths, tmp_path)


def _label(path, **changes):
    with zipfile.ZipFile(path) as archive:
        label, content = json.loads(archive.read("part.json")), archive.read("content")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("part.json", json.dumps({**label, **changes}))
        archive.writestr("content", content)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "tdca: format 2, this version reads 1; export and import with the same version"),
        ({"part": -1}, "says that it is part -1"),
        ({"part": 3}, "says that it is part 3 of 2"),
        ({"parts": "2"}, "int needed"),
        ({"bytes": 3}, "is damaged"),
        ({"sha256": "0" * 64}, "is damaged"),
        ({"whole": "0" * 64}, "is not among"),
        ({"more": 1}, "unknown key"),
    ],
)
def test_a_part_with_another_label(cut, tmp_path, changes, said):
    paths = cut(b"a" * 60, 40)
    _label(paths[0], **changes)
    with pytest.raises(ArtifactError, match=said):
        joined(paths, tmp_path)


def test_a_whole_of_another_name(cut, tmp_path):
    (path,) = cut(b"a" * 60, 100)
    _label(path, whole="0" * 64)
    with pytest.raises(ArtifactError, match="are not of one export"):
        joined([path], tmp_path)


def test_a_compressed_member_is_refused(cut, tmp_path):
    (path,) = cut(b"a" * 60, 100)
    with zipfile.ZipFile(path) as archive:
        label = archive.read("part.json")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("part.json", label)
        archive.writestr("content", bytes(10**6))
    with pytest.raises(ArtifactError, match="compressed or too large"):
        joined([path], tmp_path)


def test_parts_that_are_there_are_not_mixed_with_new_ones(cut):
    cut(b"a" * 100, 40)
    with pytest.raises(UserError, match=r"x\.000\.tdca is there already"):
        cut(b"b" * 100, 60)
    with pytest.raises(UserError, match="raise --part-size"):
        cut(b"b" * 5000, 3, "y")
