import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tdcompress.data.sentences import IGNORED, SentencePairs, Sentences
from tdcompress.data.token_batches import bucket_limits, padded, token_batches
from tdcompress.errors import DataError
from tdcompress.text.vocabulary import BEGIN, END, PAD

LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=200)


def arrays(lengths):
    source, target = np.array(lengths, np.int64).T
    return source, target


@given(LENGTHS, st.integers(60, 300), st.integers(0, 5), st.integers(0, 5))
def test_each_pair_comes_once_and_padding_stays_in_the_budget(lengths, budget, seed, epoch):
    source, target = arrays(lengths)
    batches = token_batches(source, target, budget, seed, epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch)
        assert len(batch) * source[batch].max() <= budget
        assert len(batch) * target[batch].max() <= budget


@given(LENGTHS, st.integers(60, 300), st.integers(0, 5))
def test_epochs_differ_in_order_alone(lengths, budget, seed):
    source, target = arrays(lengths)
    epochs = [token_batches(source, target, budget, seed, epoch) for epoch in (0, 1, 0)]
    assert len(epochs[0]) == len(epochs[1])
    assert all(np.array_equal(first, again) for first, again in zip(epochs[0], epochs[2], strict=True))


def test_order_and_company_change_with_seed_and_epoch():
    generator = np.random.default_rng(0)
    source, target = generator.integers(1, 40, (2, 500))
    first, other_epoch, other_seed = (
        [tuple(batch) for batch in token_batches(source, target, 200, *key)] for key in ((0, 0), (0, 1), (1, 0))
    )
    assert len({frozenset(map(frozenset, batches)) for batches in (first, other_epoch, other_seed)}) == 3


def test_padding_is_a_small_share():
    generator = np.random.default_rng(0)
    source = generator.integers(3, 60, 5000)
    target = np.clip(source + generator.integers(-2, 3, 5000), 1, None)
    batches = token_batches(source, target, 2000, seed=0, epoch=0)
    held = sum(len(batch) * source[batch].max() for batch in batches)
    assert source.sum() / held > 0.85


def test_a_pair_above_the_budget_is_refused():
    with pytest.raises(ValueError, match="a pair of 30 tokens is longer than the budget, 20"):
        token_batches(np.array([3, 4]), np.array([3, 30]), 20, seed=0, epoch=0)


def test_no_pairs_make_no_batches():
    assert token_batches(np.array([], np.int64), np.array([], np.int64), 20, seed=0, epoch=0) == []


def test_buckets_grow_and_reach_the_longest():
    limits = bucket_limits(100)
    assert limits[0] == 8
    assert (np.diff(limits) >= 1).all()
    assert limits[-2] < 100 <= limits[-1]


def test_a_batch_shifts_the_target_and_ignores_padding():
    pairs = SentencePairs(source=Sentences.of([[5, 6], [7]]), target=Sentences.of([[8], [9, 10, 11]]))
    batch = pairs.batch(np.array([1, 0]))
    assert batch.source.tolist() == [[7, END, PAD], [5, 6, END]]
    assert batch.target_in.tolist() == [[BEGIN, 9, 10, 11], [BEGIN, 8, PAD, PAD]]
    assert batch.target_out.tolist() == [[9, 10, 11, END], [8, END, IGNORED, IGNORED]]
    assert batch.source.dtype == batch.target_in.dtype == batch.target_out.dtype == torch.int64


def test_sentences_come_back_from_one_array():
    given_lists = [[1, 2, 65535], [], [4]]
    sentences = Sentences.of(iter(given_lists))
    assert [list(sentences[index]) for index in range(3)] == given_lists
    assert sentences.lengths.tolist() == [3, 0, 1]
    assert len(Sentences.of([])) == 0
    with pytest.raises(IndexError):
        sentences[3]


def test_another_number_of_translations_is_refused():
    with pytest.raises(DataError, match="2 sentences need as many translations, not 1"):
        SentencePairs(source=Sentences.of([[1], [2]]), target=Sentences.of([[1]]))


def test_nothing_is_padded_to_nothing():
    assert padded([]).shape == (0, 0)
