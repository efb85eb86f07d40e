import pytest

pytest.importorskip("sentencepiece")

from tdcompress.data.text_parts import read_part
from tdcompress.errors import DataError
from tdcompress.text.vocabulary import Vocabulary, VocabularySettings, train_vocabulary

LINES = ["a dog runs here.", "the cat sits in the park.", "a man sits here."]


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(train_vocabulary(LINES, VocabularySettings(size=36)))


def files(folder, source, target):
    paths = folder / "train.en", folder / "train.de"
    for path, lines in zip(paths, (source, target), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines))
    return paths


def test_pairs_come_back_as_text(tmp_path, vocabulary):
    part = read_part(*files(tmp_path, LINES, LINES[::-1]), vocabulary, longest=50, unusable="error")
    assert part.skipped == 0
    assert vocabulary.decode([part.pairs.source[index] for index in range(3)]) == LINES
    assert vocabulary.decode([part.pairs.target[index] for index in range(3)]) == LINES[::-1]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("line", "reason"), [(" ", "is empty"), ("a dog " * 30, r"has \d+ pieces, more than data\.longest = 40")]
)
def test_an_unusable_line_is_named_or_left_out(tmp_path, vocabulary, side, line, reason):
    text = [list(LINES), list(LINES)]
    text[side][1] = line
    paths = files(tmp_path, *text)
    with pytest.raises(DataError, match=rf"{paths[side].name}, line 2 {reason}.*unusable"):
        read_part(*paths, vocabulary, longest=40, unusable="error")
    part = read_part(*paths, vocabulary, longest=40, unusable="skip")
    assert (len(part), part.skipped, part.left_out) == (2, 1, "1 of 3 lines left out as unusable")
    assert part.place(1) == f"{paths[0]} and {paths[1]}, line 3"
    assert vocabulary.decode([part.pairs.source[1]]) == [LINES[2]]


def test_no_pair_at_all_is_refused(tmp_path, vocabulary):
    with pytest.raises(DataError, match=r"train\.en and .*train\.de hold no sentence pair$"):
        read_part(*files(tmp_path, [], []), vocabulary, longest=40, unusable="skip")
    with pytest.raises(DataError, match=r"\(1 left out\)"):
        read_part(*files(tmp_path, [""], ["a"]), vocabulary, longest=40, unusable="skip")
