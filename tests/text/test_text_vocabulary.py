import io
import re

import pytest

pytest.importorskip("sentencepiece")

from tdcompress.errors import DataError, InterruptedRun
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


def test_words_with_their_counts_give_the_pieces_of_the_lines_themselves():
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    lines = [*LINES, "tab\there  twice ", "no\u00a0break\u3000wide", "ﬁne e\u0301 ½ Ä", "", "a\u200bdog ☃" * 3]
    settings, made = VocabularySettings(size=45, coverage=1.0), io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=made, vocab_size=45, model_type="bpe", character_coverage=1.0,
        pad_id=PAD, unk_id=UNKNOWN, bos_id=BEGIN, eos_id=END, minloglevel=2,
    )  # fmt: skip
    of_lines, of_words = SentencePieceProcessor(), SentencePieceProcessor()
    of_lines.LoadFromSerializedProto(made.getvalue())
    of_words.LoadFromSerializedProto(train_vocabulary(lines, settings))
    pieces = [[(each.id_to_piece(i), each.get_score(i)) for i in range(45)] for each in (of_lines, of_words)]
    assert pieces[0] == pieces[1]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("error", [DataError("train.en, line 3: byte 1 is no UTF-8"), InterruptedRun("stopped", 15)])
def test_what_ends_the_text_is_raised_as_it_is(kind, error):
    def lines():
        yield from LINES[:2]
        raise error

    with pytest.raises(type(error)) as raised:
        train_vocabulary(lines(), VocabularySettings(size=22, kind=kind))
    assert raised.value is error


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
    with pytest.raises(DataError) as raised:
        train_vocabulary(LINES, VocabularySettings())
    (most,) = re.fullmatch(
        r"no vocabulary of 8000 pieces can be made of this text; "
        r"lower data\.vocabulary\.size to at most (\d+), or give more text",
        str(raised.value),
    ).groups()
    assert len(Vocabulary(train_vocabulary(LINES, VocabularySettings(size=int(most))))) == int(most)
    with pytest.raises(DataError, match=r"of this text; change data\.vocabulary\.size, or give more text$"):
        train_vocabulary([], SMALL)
    with pytest.raises(DataError, match=r"of this text; give more text$"):
        train_vocabulary(["a"], VocabularySettings(size=8))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_fewer_pieces_than_the_text_has_characters_is_said_with_the_number_that_works(kind):
    with pytest.raises(DataError) as raised:
        train_vocabulary(LINES, VocabularySettings(size=10, kind=kind))
    (least,) = re.fullmatch(
        r"no vocabulary of 10 pieces can be made of this text; raise data\.vocabulary\.size to at least (\d+), "
        r"or lower data\.vocabulary\.coverage, so that rare characters get no piece",
        str(raised.value),
    ).groups()
    assert len(Vocabulary(train_vocabulary(LINES, VocabularySettings(size=int(least), kind=kind)))) == int(least)
    with pytest.raises(DataError, match=f"to at least {least}, or"):
        train_vocabulary(LINES, VocabularySettings(size=int(least) - 1, kind=kind))


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
