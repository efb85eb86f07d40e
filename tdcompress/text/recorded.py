"""What a vocabulary has to make of some sentences, on any machine and with any version of sentencepiece."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdcompress.codec import encode
from tdcompress.errors import ModelError, VerificationError
from tdcompress.npz import read_npz
from tdcompress.onnxfile.verify import MAX_SAMPLES_BYTES
from tdcompress.text.vocabulary import PAD, Vocabulary

TEXT, PIECES = "text", "pieces"


@dataclass(frozen=True, kw_only=True)
class VocabularyReport:
    """A vocabulary that passed.

    Attributes:
        file_bytes: bytes on disk.
        pieces: how many it has.
        samples: sentences that were cut as recorded.
        notes: what a person should know.
    """

    file_bytes: int
    pieces: int
    samples: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = encode(self)
        return values

    @property
    def summary(self) -> str:
        """What passed, in words."""
        compared = f"{self.samples} sentences cut as recorded" if self.samples else "no sentences recorded to compare"
        return f"loads, {self.pieces} pieces, {compared}"


def recorded_pieces(vocabulary: Vocabulary, sentences: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Sentences and their pieces as arrays: ``text``, UTF-8 with a line each; ``pieces``, int64 (N, longest), padded.

    Args:
        vocabulary: cuts them.
        sentences: on one line each, at least one.
    """
    pieces = vocabulary.encode(sentences)
    rows = np.full((len(pieces), max(1, *map(len, pieces))), PAD, np.int64)
    for row, sentence in zip(rows, pieces, strict=True):
        row[: len(sentence)] = sentence
    return {TEXT: np.frombuffer("\n".join(sentences).encode(), np.uint8), PIECES: rows}


def verify_vocabulary(path: Path, samples: Path | None = None) -> VocabularyReport:
    """Cut the recorded sentences again.

    Args:
        path: sentencepiece's model.
        samples: the .npz file, in which the arrays have the vocabulary's name in front; None = none are recorded.

    Raises:
        DataError: a damaged vocabulary.
        ModelError: recorded sentences that cannot be read.
        VerificationError: other pieces than recorded.
    """
    vocabulary = Vocabulary(path.read_bytes(), str(path))
    report = VocabularyReport(file_bytes=path.stat().st_size, pieces=len(vocabulary), samples=0)
    if samples is None:
        return report
    text, pieces = (f"{path.name}/{name}" for name in (TEXT, PIECES))
    arrays = read_npz(samples, "file of samples", at_most=MAX_SAMPLES_BYTES, names=(text, pieces))
    try:
        sentences = arrays[text].tobytes().decode().split("\n")
    except UnicodeDecodeError as error:
        raise ModelError(f"{samples}: the recorded sentences are no UTF-8") from error
    if not np.array_equal(recorded_pieces(vocabulary, sentences)[PIECES], arrays[pieces]):
        raise VerificationError(f"{path}: cuts sentences into other pieces than recorded; is sentencepiece of another version?")
    return replace(report, samples=len(sentences))
