import unicodedata

import pytest

pytest.importorskip("sacrebleu")

from tdcompress.text.bleu import bleu, has_four_words

REFERENCES = ["The dog runs in the park.", "A man is sitting on a bench."]


def test_the_references_themselves_have_a_hundred():
    measured = bleu(REFERENCES, REFERENCES)
    assert measured.score == pytest.approx(100)
    assert bleu(["a b c d"], ["a b c d"]).score == 100.0  # and not 100.00000000000004
    assert "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:" in measured.signature


def test_case_counts_and_a_worked_example_comes_out():
    assert bleu([each.lower() for each in REFERENCES], REFERENCES).score < 90
    # 13a: "the the the the" / "the cat sat here": 1 of 4 words, then smoothed 1/(2*3), 1/(4*2), 1/(8*1), no brevity penalty
    expected = 100 * (1 / 4 * 1 / 6 * 1 / 8 * 1 / 8) ** 0.25
    assert bleu(["the the the the"], ["the cat sat here"]).score == pytest.approx(expected)


def test_another_number_of_references_is_refused():
    with pytest.raises(ValueError, match="2 translations need as many references, not 1"):
        bleu(REFERENCES, REFERENCES[:1])
    with pytest.raises(ValueError, match="at least one"):
        bleu([], [])


def test_a_translation_of_nothing_is_worth_nothing():
    assert bleu(["", " "], REFERENCES).score == 0.0


@pytest.mark.parametrize(
    ("references", "enough"),
    [([], False), (["", "a dog"], False), (["a dog."], False), (["a dog", "a dog runs."], True), (["我喜欢我的狗。"], False)],
)
def test_without_four_words_the_references_themselves_have_nothing(references, enough):
    assert has_four_words(references) is enough
    if references:
        assert (bleu(references, references).score > 0) is enough


def test_a_letter_with_its_accent_is_one_however_it_is_written():
    composed = ["le caf\u00e9 est ferm\u00e9 ici", "une t\u00eate d'\u00e9l\u00e8ve"]
    apart = [unicodedata.normalize("NFD", text) for text in composed]
    assert composed != apart
    assert bleu(composed, apart) == bleu(apart, composed) == bleu(composed, composed)


def test_nothing_is_said_of_tokenised_text_by_a_name_that_nobody_here_can_give(capsys, caplog):
    assert bleu(["a dog ."] * 200, ["a dog ."] * 200).score == 0.0
    assert caplog.text == capsys.readouterr().err == ""
