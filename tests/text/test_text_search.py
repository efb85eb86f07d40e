"""Against all translations there are: three words, up to four of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdcompress.text.search import beam_search, count_right, greedy, largest, length_penalty
from tdcompress.text.vocabulary import BEGIN, END

WORDS = (4, 5, 6)
VOCABULARY = 7


class Random:
    """Log-probabilities that depend on the sentence and on all that was said; a state is, for each row, both."""

    def __init__(self, seed, spread=3.0):
        self.seed, self.spread = seed, spread
        self.steps = 0

    def start(self, sentences):
        return [(sentence, ()) for sentence in range(sentences)]

    def row(self, sentence, said):
        generator = np.random.default_rng([self.seed, sentence, *said])
        logits = np.full(VOCABULARY, -np.inf)
        logits[[END, *WORDS]] = generator.standard_normal(len(WORDS) + 1) * self.spread
        return logits

    def step(self, tokens, state, count):
        self.steps += 1
        state = [(sentence, (*said, int(token))) for (sentence, said), token in zip(state, tokens, strict=True)]
        values, best = largest(np.stack([self.row(*row) for row in state]), count)
        return values, best, state

    def select(self, state, rows):
        return [state[row] for row in rows]

    def log_probability(self, sentence, tokens):
        said, total = (BEGIN,), 0.0
        for token in tokens:
            values, names = largest(self.row(sentence, said)[None], VOCABULARY)
            total += values[0][list(names[0]).index(token)]
            said = (*said, token)
        return total


def exhaustive(decoder, sentence, limit, alpha):
    """The best of all translations that end within the limit."""
    every = (words for length in range(limit + 1) for words in itertools.product(WORDS, repeat=length))
    return list(
        max(
            every,
            key=lambda words: decoder.log_probability(sentence, (*words, END)) / length_penalty(len(words) + 1, alpha),
        )
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.6, 2.0]))
def test_a_beam_that_holds_everything_finds_the_best(seed, alpha):
    decoder = Random(seed)
    limits = np.array([3, 1, 2])
    found = beam_search(decoder, decoder.start(3), limits, size=200, alpha=alpha)
    assert found == [exhaustive(decoder, sentence, limit, alpha) for sentence, limit in enumerate(limits)]


@given(st.integers(0, 10**6), st.lists(st.integers(0, 8), min_size=1, max_size=5), st.floats(0, 2))
def test_a_beam_of_one_is_greedy(seed, limits, alpha):
    decoder = Random(seed)
    limits = np.array(limits)
    state = decoder.start(len(limits))
    assert beam_search(decoder, state, limits, size=1, alpha=alpha) == greedy(decoder, state, limits)


@given(st.integers(0, 10**6), st.lists(st.lists(st.sampled_from(WORDS), max_size=4), max_size=4))
def test_right_are_the_tokens_that_are_likeliest_after_those_before_them(seed, references):
    decoder = Random(seed)
    expected = sum(
        int(decoder.row(sentence, (BEGIN, *reference[:place])).argmax()) == token
        for sentence, reference in enumerate(references)
        for place, token in enumerate([*reference, END])
    )
    assert count_right(decoder, decoder.start(len(references)), references) == expected


@given(st.integers(0, 10**6))
def test_greedy_takes_the_likeliest_word_each_time(seed):
    decoder = Random(seed)
    (found,) = greedy(decoder, decoder.start(1), np.array([5]))
    said = (BEGIN,)
    for token in [*found, END][:5]:
        assert decoder.row(0, said).argmax() == token
        said = (*said, token)


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_sentences_do_not_know_each_other(seed, size):
    decoder = Random(seed)
    limits = np.array([5, 2, 7, 4])
    together = beam_search(decoder, decoder.start(4), limits, size=size)
    alone = [
        beam_search(decoder, decoder.start(4)[number : number + 1], limits[number : number + 1], size=size)[0]
        for number in range(4)
    ]
    assert together == alone
    assert greedy(decoder, decoder.start(4), limits) == [
        greedy(decoder, decoder.start(4)[number : number + 1], limits[number : number + 1])[0] for number in range(4)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_where_nothing_ends_each_gets_as_many_as_its_limit(seed):
    decoder, limits = Random(seed), np.array([3, 0, 6, 1])
    found = greedy(decoder, decoder.start(4), limits, ends=False)
    assert [len(said) for said in found] == limits.tolist()
    assert decoder.steps == limits.max()
    for said, usual in zip(found, greedy(decoder, decoder.start(4), limits), strict=True):
        assert said[: len(usual)] == usual  # up to the end it is the same search
        assert len(said) == len(usual) or said[len(usual)] == END


def test_what_never_ends_is_cut_at_the_limit():
    class Endless(Random):
        def row(self, sentence, said):
            return np.log(np.array([0, 0, 0, 1e-9, 0.5, 0.3, 0.2]) + 1e-30)

    decoder = Endless(0)
    assert greedy(decoder, decoder.start(2), np.array([3, 0])) == [[4, 4, 4], []]
    assert beam_search(decoder, decoder.start(2), np.array([3, 0]), size=1) == [[4, 4, 4], []]


def test_a_search_is_over_when_nothing_can_win_any_more():
    class Sure(Random):
        def row(self, sentence, said):
            logits = np.full(VOCABULARY, -10.0)
            logits[END if len(said) == 3 else 5] = 10.0
            return logits

    decoder = Sure(0)
    assert beam_search(decoder, decoder.start(1), np.array([100]), size=4) == [[5, 5]]
    assert decoder.steps < 10


def test_a_longer_translation_wins_by_the_penalty():
    class Two(Random):
        def row(self, sentence, said):
            logits = np.full(VOCABULARY, -30.0)
            if len(said) == 1:
                logits[[END, 4]] = np.log([0.52, 0.48])
            else:
                logits[END] = 0.0
            return logits

    decoder = Two(0)
    assert beam_search(decoder, decoder.start(1), np.array([5]), size=2, alpha=0.0) == [[]]
    assert beam_search(decoder, decoder.start(1), np.array([5]), size=2, alpha=2.0) == [[4]]


@given(st.integers(0, 1000), st.integers(1, 12))
def test_the_largest_are_sorted_and_are_log_probabilities(seed, count):
    logits = np.random.default_rng(seed).standard_normal((3, 9)).astype(np.float32)
    values, tokens = largest(logits, count)
    full = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True))
    wanted = np.argsort(-full, axis=1, kind="stable")[:, :count]
    assert np.array_equal(tokens, wanted)
    assert np.allclose(values, np.take_along_axis(full, wanted, 1), rtol=1e-12)


def test_of_equal_logits_the_lower_token_is_first():
    _, tokens = largest(np.zeros((1, 6), np.float32), 3)
    assert tokens.tolist() == [[0, 1, 2]]
    _, tokens = largest(np.zeros((1, 4000), np.float32), 8)
    assert tokens.tolist() == [list(range(8))]
    some = np.random.default_rng(0).integers(0, 2, (20, 500))  # far more of them equal than are asked for
    values, tokens = largest(some.astype(np.float32), 8)
    assert np.array_equal(tokens, np.argsort(-some, axis=1, kind="stable")[:, :8])
    assert (values == values[:, :1]).all()


def test_rows_that_are_no_numbers_stay_none():
    values, _ = largest(np.full((2, 50), np.nan, np.float32), 3)
    assert np.isnan(values).all()


@pytest.mark.parametrize(("wrong", "key"), [({"size": 0}, "beam"), ({"alpha": -1.0}, "alpha")])
def test_a_beam_out_of_range_is_refused(wrong, key):
    decoder = Random(0)
    with pytest.raises(ValueError, match=f"^{key}:"):
        beam_search(decoder, decoder.start(1), np.array([1]), **wrong)
