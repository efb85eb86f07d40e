"""BLEU as papers state it: sacrebleu, on plain text, with the signature that says how it was counted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from unicodedata import normalize


@dataclass(frozen=True, kw_only=True)
class Bleu:
    """How near translations are to those of people (Papineni et al. 2002).

    Attributes:
        score: 0..100.
        signature: sacrebleu's own: references, case, tokeniser, smoothing, version (Post 2018).
    """

    score: float
    signature: str


def bleu(translations: Sequence[str], references: Sequence[str]) -> Bleu:
    """BLEU of a whole test set, detokenised and case-sensitive; one reference each.

    Both are brought to Unicode's normal form C. A vocabulary says é as one character; a reference that has it as two, as some
    systems write it, would be another word.

    Args:
        translations: plain text, a sentence each.
        references: plain text, as many.

    Raises:
        ValueError: no sentence, or another number of references.
    """
    from sacrebleu.metrics.bleu import BLEU  # takes a moment

    if not translations or len(translations) != len(references):
        raise ValueError(f"{len(translations)} translations need as many references, not {len(references)}, and at least one")
    metric = BLEU(force=True)  # what it says of tokenised text names this argument, and comes with each score
    composed = [[normalize("NFC", text) for text in texts] for texts in (translations, references)]
    score = metric.corpus_score(composed[0], composed[1:])
    return Bleu(score=min(float(score.score), 100.0), signature=str(metric.get_signature()))  # of rounding, a bit more


def has_four_words(references: Iterable[str]) -> bool:
    """Whether any reference has four words or signs: without one BLEU is 0 of the references themselves.

    Args:
        references: plain text; read no further than the first that has them.
    """
    from sacrebleu.metrics.bleu import BLEU  # takes a moment

    metric = BLEU()
    return any(len(metric.tokenizer(reference).split()) >= metric.max_ngram_order for reference in references)
