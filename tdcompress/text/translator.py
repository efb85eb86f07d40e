"""Translating with exported files: onnxruntime, numpy and sentencepiece, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdcompress.errors import DataError, ModelError, VerificationError
from tdcompress.onnxfile.load import in_file, load_model
from tdcompress.onnxfile.runtime import OpenedFile, open_session, run_session
from tdcompress.text.search import Ints, Numbers, Remembered, beam_search, greedy, largest
from tdcompress.text.vocabulary import END, PAD, Vocabulary

LONGER = 50  # a translation may have so many pieces more than its source ("Attention is all you need", section 6.1)
BATCH = 32


class OnnxDecoder:
    """An exported encoder and decoder step, as a search asks for them (`tdcompress.text.search.Decoder`).

    Args:
        encoder: the file that is run once a sentence; or it is loaded already.
        step: the file that is run once a token, likewise.
        threads: of each; 0 = onnxruntime's choice.

    Raises:
        ModelError: files that are no such pair.
        VerificationError: onnxruntime does not load one.
    """

    def __init__(self, encoder: Path | OpenedFile, step: Path | OpenedFile, threads: int = 1) -> None:
        self._encoder, self._step = (_opened(path, threads) for path in (encoder, step))
        self._inputs = [value.name for value in self._step.get_inputs()]
        known = [value.name for value in self._encoder.get_outputs()]
        past = self._step.get_inputs()[2 + len(known) :]
        whole = [value.name for value in self._encoder.get_inputs()] == ["source"] and len(past) == len(known)
        if not whole or self._inputs[: 2 + len(known)] != ["token", "source", *known] or not all(map(_is_past, past)):
            raise ModelError("no encoder and decoder step of one translator: the one does not give what the other takes")
        self._past = [np.zeros((0, value.shape[1], 0, value.shape[3]), np.float32) for value in past]

    @property
    def pieces(self) -> int | None:
        """How many pieces the network knows; None where the file leaves it open."""
        size = self._step.get_outputs()[0].shape[-1]
        return size if isinstance(size, int) else None

    def start(self, source_NS: Ints) -> Remembered[NDArray[Any]]:
        """Read the sources; nothing is said yet."""
        memory = run_session(self._encoder, {"source": source_NS})
        past = [np.zeros((len(source_NS), *each.shape[1:]), each.dtype) for each in self._past]
        return Remembered(source=source_NS, memory=tuple(memory), past=tuple(past))

    def step(self, tokens_R: Ints, state: Remembered[NDArray[Any]], count: int) -> tuple[Numbers, Ints, Remembered[NDArray[Any]]]:
        """See `tdcompress.text.search.Decoder`."""
        logits_RV, past = self.logits(tokens_R, state)
        log_probabilities, best = largest(logits_RV, count)
        if np.isnan(log_probabilities[:, 0]).any():
            raise VerificationError("the decoder step gives logits that are not finite: its file is damaged, or its network was")
        return log_probabilities, best, past

    def logits(self, tokens_R: Ints, state: Remembered[NDArray[Any]]) -> tuple[Numbers, Remembered[NDArray[Any]]]:
        """Logits (R, vocabulary) of what follows, and the new state."""
        given = (tokens_R, state.source, *state.memory, *state.past)
        logits_RV, *past = run_session(self._step, dict(zip(self._inputs, given, strict=True)))
        return logits_RV, Remembered(source=state.source, memory=state.memory, past=tuple(past))

    def select(self, state: Remembered[NDArray[Any]], rows: Ints) -> Remembered[NDArray[Any]]:
        """See `tdcompress.text.search.Decoder`."""
        return state.rows(rows)


def _is_past(value: Any) -> bool:
    """(R, heads, T, head_size); two of these numbers are the layer's own."""
    return len(value.shape) == 4 and isinstance(value.shape[1], int) and isinstance(value.shape[3], int)


def _opened(file: Path | OpenedFile, threads: int) -> OpenedFile:
    if not isinstance(file, Path):
        return file
    with in_file(file):
        session: OpenedFile = open_session(load_model(file), threads=threads)
    return session


@dataclass(frozen=True, kw_only=True)
class TextTranslator:
    """Plain text to plain text.

    Attributes:
        decoder: the exported files.
        vocabulary: of both languages.
        longest: pieces that a sentence may have.

    Raises:
        ModelError: a vocabulary of another size than the network's.
    """

    decoder: OnnxDecoder
    vocabulary: Vocabulary
    longest: int = 256

    def __post_init__(self) -> None:
        if self.decoder.pieces != len(self.vocabulary):
            raise ModelError(f"the network knows {self.decoder.pieces} pieces, and the vocabulary has {len(self.vocabulary)}")

    def refusal(self, sentence: str) -> str:
        """Why a sentence cannot be translated; nothing where it can."""
        try:
            sentence.encode()
        except UnicodeEncodeError as error:
            return f"character {error.start + 1} is no text (half of a surrogate pair, or a byte that is no UTF-8)"
        count = len(self._pieces([sentence])[0])
        return f"{count} pieces, more than {self.longest}: split it" if count > self.longest else ""

    def __call__(self, sentences: Sequence[str], *, beam: int = 4, alpha: float = 0.6) -> list[str]:
        """Translate sentences.

        White space around and between words counts once. An empty sentence stays empty. Characters that the vocabulary lacks
        become unknown pieces, of neighbours one; a network that says one is printed as "⁇".

        Args:
            sentences: of the source language.
            beam: hypotheses at once; 1 = greedy search.
            alpha: of the length's penalty.

        Raises:
            DataError: a sentence above ``longest``, or one that is no text.
            ValueError: a beam below 1, or alpha below 0.
            VerificationError: onnxruntime fails, or computes numbers that are not finite.
        """
        for number, sentence in enumerate(sentences, start=1):
            if why := self.refusal(sentence):
                raise DataError(f"sentence {number}: {why}")
        pieces = self._pieces(sentences)
        # neighbours of like length need little padding
        order = sorted((place for place, sentence in enumerate(pieces) if sentence), key=lambda place: len(pieces[place]))
        translated: list[list[int]] = [[] for _ in pieces]
        for first in range(0, len(order), BATCH):
            places = order[first : first + BATCH]
            for place, found in zip(places, self._search([pieces[place] for place in places], beam, alpha), strict=True):
                translated[place] = found
        return self.vocabulary.decode(translated)

    def _pieces(self, sentences: Sequence[str]) -> list[list[int]]:
        return self.vocabulary.encode([" ".join(sentence.split()) for sentence in sentences])

    def _search(self, sentences: Sequence[Sequence[int]], beam: int, alpha: float) -> list[list[int]]:
        limits = np.array([len(sentence) + LONGER for sentence in sentences], np.int64)
        state = self.decoder.start(padded_sources(sentences))
        if beam == 1:
            return greedy(self.decoder, state, limits)
        return beam_search(self.decoder, state, limits, size=beam, alpha=alpha)


def padded_sources(sentences: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Sources with their end, as int64 (N, longest + 1), padded."""
    rows = np.full((len(sentences), max(map(len, sentences)) + 1), PAD, np.int64)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence) + 1] = [*sentence, END]
    return rows
