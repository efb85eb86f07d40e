"""Translating with exported files: onnxruntime, numpy and sentencepiece, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tdcompress.errors import DataError, ModelError
from tdcompress.onnxfile.load import in_file, load_model
from tdcompress.onnxfile.runtime import open_session
from tdcompress.text.search import Ints, Numbers, Remembered, beam_search, greedy, largest
from tdcompress.text.vocabulary import END, PAD, Vocabulary

LONGER = 50  # a translation may have so many pieces more than its source ("Attention is all you need", section 6.1)
BATCH = 32


class OpenedFile(Protocol):
    """A loaded ONNX file, by the part of onnxruntime's interface that is needed here."""

    def get_inputs(self) -> Sequence[Any]:
        """Its inputs, with name and shape."""

    def get_outputs(self) -> Sequence[Any]:
        """Its outputs, with name and shape."""

    def run(self, names: None, inputs: Mapping[str, NDArray[Any]], /) -> Sequence[Any]:
        """All outputs, for inputs by name."""


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
        count = len(known)
        if self._inputs[:2] != ["token", "source"] or self._inputs[2 : 2 + count] != known or len(self._inputs) != 2 + 2 * count:
            raise ModelError(f"{encoder} and {step} are no encoder and decoder step of one translator")
        # (R, heads, T, head_size); the two numbers are the layer's own
        self._past = [
            np.zeros((0, value.shape[1], 0, value.shape[3]), np.float32) for value in self._step.get_inputs()[2 + count :]
        ]

    def start(self, source_NS: Ints) -> Remembered[NDArray[Any]]:
        """Read the sources; nothing is said yet."""
        memory = self._encoder.run(None, {"source": source_NS})
        past = [np.zeros((len(source_NS), *each.shape[1:]), each.dtype) for each in self._past]
        return Remembered(source=source_NS, memory=tuple(memory), past=tuple(past))

    def step(self, tokens_R: Ints, state: Remembered[NDArray[Any]], count: int) -> tuple[Numbers, Ints, Remembered[NDArray[Any]]]:
        """See `tdcompress.text.search.Decoder`."""
        logits_RV, past = self.logits(tokens_R, state)
        return *largest(logits_RV, count), past

    def logits(self, tokens_R: Ints, state: Remembered[NDArray[Any]]) -> tuple[Numbers, Remembered[NDArray[Any]]]:
        """Logits (R, vocabulary) of what follows, and the new state."""
        given = (tokens_R, state.source, *state.memory, *state.past)
        logits_RV, *past = self._step.run(None, dict(zip(self._inputs, given, strict=True)))
        return logits_RV, Remembered(source=state.source, memory=state.memory, past=tuple(past))

    def select(self, state: Remembered[NDArray[Any]], rows: Ints) -> Remembered[NDArray[Any]]:
        """See `tdcompress.text.search.Decoder`."""
        return state.rows(rows)


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
    """

    decoder: OnnxDecoder
    vocabulary: Vocabulary
    longest: int = 256

    def __call__(self, sentences: Sequence[str], *, beam: int = 4, alpha: float = 0.6) -> list[str]:
        """Translate sentences; an empty one stays empty, and characters that the vocabulary lacks are one unknown piece each.

        Args:
            sentences: of the source language.
            beam: hypotheses at once; 1 = greedy search.
            alpha: of the length's penalty.

        Raises:
            DataError: a sentence above ``longest``.
            ValueError: a beam below 1, or alpha below 0.
        """
        pieces = self.vocabulary.encode([" ".join(sentence.split()) for sentence in sentences])
        for number, sentence in enumerate(pieces, start=1):
            if len(sentence) > self.longest:
                raise DataError(f"sentence {number} has {len(sentence)} pieces, more than {self.longest}: split it")
        # neighbours of like length need little padding
        order = sorted((place for place, sentence in enumerate(pieces) if sentence), key=lambda place: len(pieces[place]))
        translated: list[list[int]] = [[] for _ in pieces]
        for first in range(0, len(order), BATCH):
            places = order[first : first + BATCH]
            for place, found in zip(places, self._search([pieces[place] for place in places], beam, alpha), strict=True):
                translated[place] = found
        return self.vocabulary.decode(translated)

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
