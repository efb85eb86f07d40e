"""BLEU as papers state it: sacrebleu, on plain text, with the signature that says how it was counted."""

from collections.abc import Sequence
from dataclasses import dataclass


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

    Args:
        translations: plain text, a sentence each.
        references: plain text, as many.

    Raises:
        ValueError: no sentence, or another number of references.
    """
    from sacrebleu.metrics.bleu import BLEU  # takes a moment

    if not translations or len(translations) != len(references):
        raise ValueError(f"{len(translations)} translations need as many references, not {len(references)}, and at least one")
    metric = BLEU()
    score = metric.corpus_score(list(translations), [list(references)])
    return Bleu(score=float(score.score), signature=str(metric.get_signature()))
