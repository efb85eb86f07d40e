"""Many sentences as piece numbers in one array, and the batches that a translator trains on."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tdcompress.data.token_batches import SentenceLengths, padded
from tdcompress.errors import DataError
from tdcompress.text.vocabulary import BEGIN, END

IGNORED = -100  # what torch's cross_entropy leaves out


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """Sentences of piece numbers, one after the other: two bytes a piece, so that millions fit in memory.

    Attributes:
        pieces: uint16 (P,), of all sentences, without begin and end.
        starts: int64 (N + 1,): sentence i is pieces[starts[i] : starts[i + 1]].
    """

    pieces: NDArray[np.uint16]
    starts: SentenceLengths

    @staticmethod
    def of(sentences: Iterable[Sequence[int] | NDArray[np.integer]]) -> "Sentences":
        """From sentences of piece numbers below 65536, (length,) each, which may come as a stream."""
        growing = GrowingSentences()
        for sentence in sentences:
            growing.append(sentence)
        return growing.finished()

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> NDArray[np.uint16]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.pieces[self.starts[index] : self.starts[index + 1]]

    @property
    def lengths(self) -> SentenceLengths:
        """Pieces of each sentence, without begin and end."""
        return np.diff(self.starts)


class GrowingSentences:
    """Sentences that come one by one, of which no object stays: a corpus of millions takes what `Sentences` takes."""

    def __init__(self) -> None:
        self._pieces, self._starts = array("H"), array("q", [0])

    def append(self, sentence: Sequence[int] | NDArray[np.integer]) -> None:
        """Take one sentence more: its piece numbers below 65536, (length,)."""
        self._pieces.extend(map(int, sentence))
        self._starts.append(len(self._pieces))

    def finished(self) -> Sentences:
        """All of them; nothing is appended after this."""
        return Sentences(pieces=np.frombuffer(self._pieces, np.uint16), starts=np.frombuffer(self._starts, np.int64))


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """Sentence pairs as a translator reads them in training, padded at the end.

    Attributes:
        source: int64 (B, S), the source with its end; pad is 0.
        target_in: int64 (B, T), what the decoder is given: begin, then the target.
        target_out: int64 (B, T), what it has to say: the target, then end; ``IGNORED`` where there is nothing to say.
    """

    source: Tensor
    target_in: Tensor
    target_out: Tensor


@dataclass(frozen=True, kw_only=True)
class SentencePairs:
    """Sentences and their translations.

    Attributes:
        source: the sentences.
        target: their translations, as many.

    Raises:
        DataError: another number of translations.
    """

    source: Sentences
    target: Sentences

    def __post_init__(self) -> None:
        if len(self.source) != len(self.target):
            raise DataError(f"{len(self.source)} sentences need as many translations, not {len(self.target)}")

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: NDArray[np.int64]) -> PairBatch:
        """The pairs of these numbers, (B,), padded."""
        source = [np.append(self.source[index].astype(np.int64), END) for index in indices]
        target = [self.target[index].astype(np.int64) for index in indices]
        return PairBatch(
            source=padded(source),
            target_in=padded([np.insert(sentence, 0, BEGIN) for sentence in target]),
            target_out=padded([np.append(sentence, END) for sentence in target], IGNORED),
        )
