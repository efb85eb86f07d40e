import pytest

pytest.importorskip("sentencepiece")

from tdcompress.errors import DataError
from tdcompress.text.vocabulary import BEGIN, END, PAD, UNKNOWN, Vocabulary, VocabularySettings, train_vocabulary

LINES = [
    f"{who} {does} {where}."
    for who in ("a dog", "the cat", "a man")
    for does in ("runs", "sits")
    for where in ("here", "in the park")
]
SMALL = VocabularySettings(size=40)


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(train_vocabulary(LINES, SMALL))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_equal_text_gives_equal_bytes(kind):
    settings = VocabularySettings(size=22, kind=kind)
    assert train_vocabulary(LINES, settings) == train_vocabulary(iter(LINES), settings)
    assert train_vocabulary(LINES, settings) != train_vocabulary(LINES[1:], settings)


def test_sentences_come_back_as_plain_text(vocabulary):
    pieces = vocabulary.encode(LINES)
    assert vocabulary.decode(pieces) == LINES
    assert all(piece not in (PAD, UNKNOWN, BEGIN, END) for sentence in pieces for piece in sentence)
    assert len(vocabulary) == SMALL.size


def test_special_pieces_leave_no_text_and_unknown_characters_are_marked(vocabulary):
    (pieces,) = vocabulary.encode(["a dog"])
    assert vocabulary.decode([[BEGIN, *pieces, END, PAD]]) == ["a dog"]
    (strange,) = vocabulary.encode(["a ☃"])
    assert UNKNOWN in strange
    assert "⁇" in vocabulary.decode([strange])[0]
    assert vocabulary.decode([]) == []
    assert vocabulary.decode([[]]) == [""]


def test_more_pieces_than_the_text_has_is_said_with_the_limit():
    with pytest.raises(DataError, match=r"no vocabulary of 8000 pieces .* lower its size.*<= \d+"):
        train_vocabulary(LINES, VocabularySettings())
    with pytest.raises(DataError, match="give more text"):
        train_vocabulary([], SMALL)


@pytest.mark.parametrize("damaged", [b"", b"x", slice(0, 300)])
def test_damaged_bytes_are_refused(vocabulary, damaged):
    model = vocabulary.model[damaged] if isinstance(damaged, slice) else damaged
    with pytest.raises(DataError, match=r"vocabulary\.model.*(damaged|pieces)"):
        Vocabulary(model, "vocabulary.model")


@pytest.mark.parametrize(
    ("wrong", "key"),
    [({"size": 7}, "size"), ({"size": 70000}, "size"), ({"kind": "word"}, "kind"), ({"coverage": 0.1}, "coverage")],
)
def test_settings_out_of_range_name_their_key(wrong, key):
    with pytest.raises(ValueError, match=f"^{key}:"):
        VocabularySettings(**wrong)
