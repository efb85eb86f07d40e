"""Batches of sentence pairs of like length, with a budget of tokens: which pairs each one holds, and how they are padded."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdcompress.seeds import derived_seed
from tdcompress.text.vocabulary import PAD

SentenceLengths = NDArray[np.int64]
"""Numbers of tokens, (N,)."""

SHORTEST, GROWTH = 8, 1.1  # of buckets; the growth is Tensor2Tensor's


def token_batches(
    source: SentenceLengths, target: SentenceLengths, budget: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """The batches of one epoch: each pair once, and on either side no more tokens than the budget, padding included.

    Pairs are sorted into buckets by the longer side, and shuffled in each bucket. A bucket has as few batches as its longest
    length allows, all as full as each other; then batches are shuffled. So the number of batches is the same in each epoch, and
    which pairs a step takes is a pure function of seed, epoch and step.

    Args:
        source: tokens of each source sentence, (N,), 1 or more, with what begins or ends it.
        target: tokens of each target sentence, likewise.
        budget: tokens of a padded batch at most, on each side.
        seed: of the training.
        epoch: from 0.

    Returns:
        Indices of pairs, by batch.

    Raises:
        ValueError: a pair that is longer than the budget.
    """
    longest = np.maximum(source, target)
    if not len(longest):
        return []
    if longest.max() > budget:
        raise ValueError(f"a pair of {longest.max()} tokens is longer than the budget, {budget}")
    generator = np.random.default_rng(derived_seed(seed, "batches", epoch))
    limits = bucket_limits(int(longest.max()))
    bucket = np.searchsorted(limits, longest)
    batches: list[NDArray[np.int64]] = []
    for number in np.unique(bucket):
        members = generator.permutation(np.flatnonzero(bucket == number))
        most = budget // longest[members].max()
        batches += np.array_split(members, math.ceil(len(members) / most))
    return [batches[place] for place in generator.permutation(len(batches))]


def bucket_limits(longest: int) -> SentenceLengths:
    """The greatest length of each bucket, increasing: 8, 9, 10, 11, 13, ..., until it is ``longest`` or more."""
    limits = [SHORTEST]
    while limits[-1] < longest:
        limits.append(max(limits[-1] + 1, int(limits[-1] * GROWTH)))
    return np.array(limits, np.int64)


def padded(sentences: list[NDArray[np.integer]], filler: int = PAD) -> Tensor:
    """Sentences of different length as int64 (B, longest), filled at the end."""
    rows = np.full((len(sentences), max(map(len, sentences), default=0)), filler, np.int64)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence)] = sentence
    return torch.from_numpy(rows)
