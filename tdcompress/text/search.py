"""Searching for a translation, one piece at a time, whatever computes the network: greedy and beam search."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tdcompress.text.vocabulary import BEGIN, END

Ints = NDArray[np.int64]
Numbers = NDArray[np.floating]
State = TypeVar("State")
Held = TypeVar("Held")  # a numpy array or a torch tensor


@dataclass(frozen=True, kw_only=True)
class Remembered(Generic[Held]):
    """What a Transformer's decoder step is given of R rows, besides the last token of each.

    Attributes:
        source: int64 (R, S), padded.
        memory: of each decoder layer the source's key and value (R, heads, S, head_size).
        past: of each decoder layer the key and value of what was said, (R, heads, T, head_size).
    """

    source: Held
    memory: tuple[Held, ...]
    past: tuple[Held, ...]

    def rows(self, index: Any) -> "Remembered[Held]":
        """Some of the rows, or some several times: ``index`` is what arrays of this kind are indexed by, whole numbers (R',)."""
        taken: Any = self
        return Remembered(
            source=taken.source[index],
            memory=tuple(each[index] for each in taken.memory),
            past=tuple(each[index] for each in taken.past),
        )


class Decoder(Protocol[State]):
    """What continues sentences; torch or onnxruntime behind it. A state is never changed, only followed by another one."""

    def start(self, source_NS: Ints) -> State:
        """Read the sources (N, S), padded; nothing is said yet."""

    def step(self, tokens_R: Ints, state: State, count: int) -> tuple[Numbers, Ints, State]:
        """Continue each row by its token.

        Args:
            tokens_R: the last token of each row, (R,).
            state: what is remembered of the rows.
            count: how many continuations are asked for.

        Returns:
            The ``count`` largest log-probabilities (R, count) of each row, falling; their tokens (R, count); the new state. There
            may be fewer than asked for, where the vocabulary is smaller.
        """

    def select(self, state: State, rows: Ints) -> State:
        """The state whose row i is what row ``rows[i]`` was, of rows (R',); rows may be left out and repeated."""


def greedy(decoder: Decoder[State], state: State, limits: Ints, *, ends: bool = True) -> list[list[int]]:
    """The likeliest token, again and again, until the end is said.

    Args:
        decoder: what continues sentences.
        state: of N sentences of which nothing was said yet.
        limits: (N,), how many tokens each may have, without the end.
        ends: whether the end ends a sentence. False: it is a token like others, so that each sentence gets as many as its limit;
            for benchmarks, in which a network that says less would look faster.

    Returns:
        The tokens of each, without begin; without the end where it ends a sentence.
    """
    said: list[list[int]] = [[] for _ in limits]
    alive = np.flatnonzero(limits > 0)
    state = decoder.select(state, alive)
    tokens = np.full(len(alive), BEGIN, np.int64)
    while len(alive):
        _, best, state = decoder.step(tokens, state, 1)
        tokens = best[:, 0]
        for sentence, token in zip(alive, tokens, strict=True):
            if token != END or not ends:
                said[sentence].append(int(token))
        on = limits[alive] > [len(said[sentence]) for sentence in alive]
        if ends:
            on &= tokens != END
        if not on.all():
            state = decoder.select(state, np.flatnonzero(on))
            alive, tokens = alive[on], tokens[on]
    return said


def count_right(decoder: Decoder[State], state: State, references: Sequence[Sequence[int]]) -> int:
    """How many tokens of given translations, their ends included, are the likeliest after those before them.

    Args:
        decoder: what continues sentences.
        state: of N sentences of which nothing was said yet.
        references: N translations, without begin and end.
    """
    wanted = [[*reference, END] for reference in references]
    alive, right = np.arange(len(wanted)), 0
    for place in range(max(map(len, wanted), default=0)):
        on = np.array([place < len(wanted[sentence]) for sentence in alive], bool)
        if not on.all():
            state, alive = decoder.select(state, np.flatnonzero(on)), alive[on]
        given = np.array([wanted[sentence][place - 1] if place else BEGIN for sentence in alive], np.int64)
        _, best, state = decoder.step(given, state, 1)
        right += sum(int(token) == wanted[sentence][place] for sentence, token in zip(alive, best[:, 0], strict=True))
    return right


def length_penalty(length: int, alpha: float) -> float:
    """What a log-probability is divided by: ((5 + length) / 6)^alpha (Wu et al. 2016, equation 14).

    Args:
        length: tokens, the end included.
        alpha: 0 = none; the Transformer's paper takes 0.6.
    """
    return float(((5 + length) / 6) ** alpha)


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """The beginning of a translation, or a whole one.

    Attributes:
        tokens: without begin and end.
        log_probability: of all tokens, of the end too where it was said.
    """

    tokens: tuple[int, ...] = ()
    log_probability: float = 0.0


@dataclass(kw_only=True)
class _Beam:
    """The search for one sentence's translation."""

    size: int
    limit: int
    alpha: float
    alive: list[Hypothesis] = field(default_factory=lambda: [Hypothesis()])
    ended: list[tuple[float, Hypothesis]] = field(default_factory=list)
    likeliest: Hypothesis = Hypothesis()  # of those that lived before the last step

    @property
    def done(self) -> bool:
        """Nothing is left, enough have ended, or no living one can still win."""
        if not self.alive or len(self.ended) >= self.size:
            return True
        if not self.ended:
            return False
        # a log-probability only falls, and the longest length divides it by the most
        hoped = self.alive[0].log_probability / length_penalty(self.limit + 1, self.alpha)
        return max(score for score, _ in self.ended) >= hoped

    def extend(self, log_probabilities: Numbers, tokens: Ints) -> list[int]:
        """Take the best continuations of the living hypotheses; those that end count only among the ``size`` best.

        At the limit they can but end.

        Returns:
            For each hypothesis that lives on, the place of the one that it continues.
        """
        total = np.array([each.log_probability for each in self.alive])[:, None] + log_probabilities.astype(np.float64)
        order = np.argsort(-total, axis=None, kind="stable")[: 2 * self.size]
        before, self.alive, self.likeliest = self.alive, [], self.alive[0]
        parents: list[int] = []
        for rank, place in enumerate(order):
            parent, choice = divmod(int(place), total.shape[1])
            token, said = int(tokens[parent, choice]), before[parent].tokens
            value = float(total[parent, choice])
            if value == -np.inf:
                break
            if token == END:
                if rank < self.size:
                    penalty = length_penalty(len(said) + 1, self.alpha)
                    self.ended.append((value / penalty, Hypothesis(tokens=said, log_probability=value)))
            elif len(said) < self.limit and len(parents) < self.size:
                self.alive.append(Hypothesis(tokens=(*said, token), log_probability=value))
                parents.append(parent)
        return parents

    def best(self) -> list[int]:
        """The best that ended; where none did, the likeliest that the limit cut."""
        if self.ended:
            return list(max(self.ended, key=lambda scored: scored[0])[1].tokens)
        return list(self.likeliest.tokens)


def beam_search(decoder: Decoder[State], state: State, limits: Ints, *, size: int = 4, alpha: float = 0.6) -> list[list[int]]:
    """The likeliest translations that a beam finds, their log-probability divided by a penalty of the length.

    As in "Attention is all you need" (section 6.1): beam 4, alpha 0.6. Of each sentence the ``size`` best beginnings live on; one
    that ends does so only if it is among the ``size`` best continuations. The search for a sentence is over when ``size`` have
    ended, or none that lives can still win. A beam of 1 is greedy search.

    Args:
        decoder: what continues sentences.
        state: of N sentences of which nothing was said yet.
        limits: (N,), how many tokens each may have, without the end.
        size: of the beam, in translations.
        alpha: of `length_penalty`.

    Returns:
        The tokens of each, without begin and end.

    Raises:
        ValueError: a beam below 1, or alpha below 0.
    """
    if size < 1:
        raise ValueError(f"beam: {size} is out of range, 1 or more")
    if alpha < 0:
        raise ValueError(f"alpha: {alpha} is out of range, 0 or more")
    beams = [_Beam(size=size, limit=int(limit), alpha=alpha) for limit in limits]
    searched = [beam for beam in beams if beam.limit > 0]
    state = decoder.select(state, np.flatnonzero(limits > 0))
    while searched:
        tokens = np.array([each.tokens[-1] if each.tokens else BEGIN for beam in searched for each in beam.alive], np.int64)
        log_probabilities, best, state = decoder.step(tokens, state, 2 * size)
        rows: list[int] = []
        going: list[_Beam] = []
        first = 0
        for beam in searched:
            last = first + len(beam.alive)
            parents = beam.extend(log_probabilities[first:last], best[first:last])
            if not beam.done:
                going.append(beam)
                rows += [first + parent for parent in parents]
            first = last
        searched = going
        if searched:
            state = decoder.select(state, np.array(rows, np.int64))
    return [beam.best() for beam in beams]


def largest(logits_RV: Numbers, count: int) -> tuple[Numbers, Ints]:
    """The ``count`` largest log-probabilities of each row, falling, and their tokens; of equal ones the lower token is first."""
    exact = logits_RV.astype(np.float64)
    shifted = exact - exact.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    if count == 1:
        tokens = log_probabilities.argmax(axis=1)[:, None]
    else:
        tokens = np.stack([_first_of(row, min(count, len(row))) for row in log_probabilities])
    return np.take_along_axis(log_probabilities, tokens, axis=1), tokens.astype(np.int64)


def _first_of(values_V: Numbers, count: int) -> Ints:
    """Where the ``count`` largest of some values are, (count,), falling; all that equal the last one compete for its place."""
    least = np.partition(values_V, len(values_V) - count)[-count]  # a full sort of a vocabulary takes longer than the network
    near = np.flatnonzero(~(values_V < least))  # what is not a number stays, for the caller to find
    return near[np.argsort(-values_V[near], kind="stable")[:count]]
