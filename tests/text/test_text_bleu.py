import pytest

pytest.importorskip("sacrebleu")

from tdcompress.text.bleu import bleu

REFERENCES = ["The dog runs in the park.", "A man is sitting on a bench."]


def test_the_references_themselves_have_a_hundred():
    measured = bleu(REFERENCES, REFERENCES)
    assert measured.score == pytest.approx(100)
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
