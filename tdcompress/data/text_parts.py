"""The parts of a parallel corpus as pieces: which pairs are taken, and what is said of the others."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tdcompress.data.sentences import GrowingSentences, SentencePairs
from tdcompress.errors import DataError
from tdcompress.text.parallel import Pair, read_pairs
from tdcompress.text.vocabulary import Vocabulary

Unusable = Literal["error", "skip"]
CHUNK = 4096


@dataclass(frozen=True, kw_only=True)
class TextPart:
    """One part of a corpus.

    Attributes:
        files: where it was read from: the sentences, and their translations.
        pairs: its sentence pairs, as pieces.
        lines: int64 (N,), the number of each pair's line in its files, from 1.
        skipped: how many lines were left out.
    """

    files: tuple[Path, Path]
    pairs: SentencePairs
    lines: NDArray[np.int64]
    skipped: int

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def left_out(self) -> str:
        """How many lines were, in words."""
        return f"{self.skipped:,} of {self.skipped + len(self):,} lines left out as unusable"

    def place(self, pair: int) -> str:
        """Where a pair stands, for messages: both files and the line.

        Args:
            pair: its index among the pairs.
        """
        source, target = self.files
        return f"{source} and {target}, line {self.lines[pair]}"


def read_part(source: Path, target: Path, vocabulary: Vocabulary, *, longest: int, unusable: Unusable) -> TextPart:
    """Two files as pieces; the text itself is read as a stream.

    Args:
        source: the file of the sentences.
        target: the file of their translations.
        vocabulary: of both languages.
        longest: pieces that a sentence may have, on either side.
        unusable: what becomes of a pair with an empty side or one above ``longest``: an "error", or it is left out.

    Raises:
        DataError: what `read_pairs` refuses, an unusable pair, or no pair at all; with the file and line.
    """
    skipped, lines = 0, array("q")
    sources, targets = GrowingSentences(), GrowingSentences()
    for pair, sides in _encoded(read_pairs(source, target), vocabulary):
        reason = _unusable(pair, sides, (source, target), longest)
        if not reason:
            lines.append(pair.line)
            sources.append(sides[0])
            targets.append(sides[1])
        elif unusable == "error":
            raise DataError(reason)
        else:
            skipped += 1
    if not lines:
        raise no_pair(source, target, skipped)
    pairs = SentencePairs(source=sources.finished(), target=targets.finished())
    return TextPart(files=(source, target), pairs=pairs, lines=np.frombuffer(lines, np.int64), skipped=skipped)


def no_pair(source: Path, target: Path, skipped: int) -> DataError:
    """What is said of a part that has no pair to take.

    Args:
        source: its file in the source language.
        target: and in the target language.
        skipped: pairs that were left out as unusable.
    """
    return DataError(f"{source} and {target} hold no sentence pair" + (f" ({skipped} left out)" if skipped else ""))


def _encoded(pairs: Iterable[Pair], vocabulary: Vocabulary) -> Iterator[tuple[Pair, tuple[list[int], list[int]]]]:
    pairs = iter(pairs)
    while chunk := list(islice(pairs, CHUNK)):
        source = vocabulary.encode([pair.source for pair in chunk])
        target = vocabulary.encode([pair.target for pair in chunk])
        yield from zip(chunk, zip(source, target, strict=True), strict=True)


def _unusable(pair: Pair, sides: Sequence[Sequence[int]], files: Sequence[Path], longest: int) -> str:
    """Why a pair cannot be taken; "" where it can."""
    for pieces, file in zip(sides, files, strict=True):
        if not pieces:
            return f'{file}, line {pair.line} is empty; mend it in both files, or give data.unusable = "skip" to leave it out'
        if len(pieces) > longest:
            return (
                f"{file}, line {pair.line} has {len(pieces)} pieces, more than data.longest = {longest}; "
                'raise it, or give data.unusable = "skip" to leave such lines out'
            )
    return ""
