import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdcompress.errors import DataError
from tdcompress.text.parallel import Pair, read_pairs


def files(folder, source, target):
    paths = folder / "train.en", folder / "train.de"
    for path, content in zip(paths, (source, target), strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return paths


def test_lines_of_both_files_come_in_pairs(tmp_path):
    pairs = list(read_pairs(*files(tmp_path, "A dog.\nA cat.\n", "Ein Hund.\nEine Katze.")))
    assert pairs == [
        Pair(line=1, source="A dog.", target="Ein Hund."),
        Pair(line=2, source="A cat.", target="Eine Katze."),
    ]


def test_a_byte_order_mark_alone_is_no_line(tmp_path):
    for name, content in (("train.en", b"\xef\xbb\xbf"), ("train.de", b"")):
        (tmp_path / name).write_bytes(content)
    assert list(read_pairs(tmp_path / "train.en", tmp_path / "train.de")) == []


def test_carriage_returns_and_a_byte_order_mark_are_no_text(tmp_path):
    pairs = list(read_pairs(*files(tmp_path, "\ufeffA dog.\r\n\r\n", "Ein Hund.\n \n")))
    assert [(pair.source, pair.target) for pair in pairs] == [("A dog.", "Ein Hund."), ("", "")]


def test_separators_of_unicode_end_no_line(tmp_path):
    pairs = list(read_pairs(*files(tmp_path, "one\u2028still one\x0b\x85.\n", "eins\n")))
    assert len(pairs) == 1
    assert "still" in pairs[0].source


def test_empty_files_have_no_pairs(tmp_path):
    assert list(read_pairs(*files(tmp_path, "", ""))) == []


@pytest.mark.parametrize(("source", "target", "long"), [("a\nb\nc\n", "a\nb\n", "train.en"), ("a\n", "a\nb\nc\n", "train.de")])
def test_files_of_different_length_name_the_first_line_without_partner(tmp_path, source, target, long):
    line = min(source.count("\n"), target.count("\n")) + 1
    with pytest.raises(DataError, match=rf"{long}, line {line}: .* has only {line - 1} lines"):
        list(read_pairs(*files(tmp_path, source, target)))


def test_bytes_that_are_no_text_name_file_line_and_byte(tmp_path):
    with pytest.raises(DataError, match=r"train\.de, line 2: byte 3 is no UTF-8 \(0xff\)"):
        list(read_pairs(*files(tmp_path, "a\nb\n", b"a\nb \xff\n")))


def test_packed_files_are_read_as_they_are(tmp_path):
    source, target = files(tmp_path, gzip.compress(b"A dog.\n" * 50_000), "Ein Hund.\n" * 50_000)
    packed = source.rename(tmp_path / "train.en.gz")
    pairs = read_pairs(packed, target)
    assert next(pairs) == Pair(line=1, source="A dog.", target="Ein Hund.")
    assert sum(1 for _ in pairs) == 49_999


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"A dog.\n", 0), (b"", None), (gzip.compress(b"\n".join(b"%d" % n for n in range(100_000)))[:-40_000], r"[1-9]\d+")],
)
def test_a_damaged_packed_file_is_named_with_its_line(tmp_path, content, line):
    packed = tmp_path / "train.en.gz"
    packed.write_bytes(content)
    if line is None:  # nothing at all is an empty file
        assert list(read_pairs(packed, packed)) == []
        return
    with pytest.raises(DataError, match=rf"train\.en\.gz, after line {line}: damaged, cut off, or no gzip \("):
        list(read_pairs(packed, packed))


def test_a_missing_file_is_named(tmp_path):
    source, target = files(tmp_path, "a", "b")
    target.unlink()
    with pytest.raises(DataError, match=r"train\.de is missing"):
        list(read_pairs(source, target))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_pairs(source, tmp_path))


@given(st.lists(st.tuples(st.text(), st.text()), max_size=8))
def test_any_text_without_line_feeds_comes_back(tmp_path_factory, lines):
    lines = [tuple(text.replace("\n", " ").lstrip("\ufeff") for text in pair) for pair in lines]
    source, target = files(tmp_path_factory.mktemp("text"), *("".join(f"{pair[side]}\n" for pair in lines) for side in (0, 1)))
    assert [(pair.source, pair.target) for pair in read_pairs(source, target)] == [
        (first.strip(), second.strip()) for first, second in lines
    ]
