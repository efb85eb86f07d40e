"""A vocabulary of word pieces: sentencepiece, trained to the same bytes from the same text, and read from bytes."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tdcompress.errors import DataError, one_line

PAD, UNKNOWN, BEGIN, END = range(4)


@dataclass(frozen=True, kw_only=True)
class VocabularySettings:
    """What a vocabulary is made with.

    Raises:
        ValueError: a value out of range; the message begins with its key.

    Attributes:
        size: number of pieces, the four special ones included.
        kind: "bpe" merges frequent pairs (Sennrich et al. 2016, as in the Transformer's paper); "unigram" keeps likely pieces
            (Kudo 2018).
        coverage: share of the text's characters that get a piece; rarer ones are unknown, in training too.
    """

    size: int = 8000
    kind: Literal["bpe", "unigram"] = "bpe"
    coverage: float = 0.9995

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 1 << 16:
            raise ValueError(f"size: pieces, 8..65536, not {self.size}")
        if self.kind not in ("bpe", "unigram"):
            raise ValueError(f"kind: {self.kind!r} is no kind of vocabulary, one of bpe, unigram")
        if not 0.9 <= self.coverage <= 1.0:
            raise ValueError(f"coverage: {self.coverage} is out of range, 0.9 to 1")


def train_vocabulary(lines: Iterable[str], settings: VocabularySettings) -> bytes:
    """A vocabulary as sentencepiece's protobuf: the same text and settings give the same bytes.

    One thread, no sampling, and no file name in the result. Text is normalised as sentencepiece does it ("nmt_nfkc"). A line of
    more than 64 KiB is left out.

    Args:
        lines: the training text, of both languages.
        settings: what it is made with.

    Raises:
        DataError: too little text for so many pieces.
    """
    from sentencepiece import SentencePieceTrainer  # an extra

    made = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=made,
            vocab_size=settings.size,
            model_type=settings.kind,
            character_coverage=settings.coverage,
            num_threads=1,
            max_sentence_length=1 << 16,
            pad_id=PAD,
            unk_id=UNKNOWN,
            bos_id=BEGIN,
            eos_id=END,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        reason = one_line(error)
        raise DataError(
            f"no vocabulary of {settings.size} pieces can be made of this text; lower its size, or give more text ({reason})"
        ) from error
    return made.getvalue()


class Vocabulary:
    """Sentences to piece numbers, and back to plain text.

    Args:
        model: sentencepiece's protobuf.
        name: what messages call it: its file.

    Raises:
        DataError: damaged bytes, or special pieces that are not at 0 (pad), 1 (unknown), 2 (begin) and 3 (end).
    """

    def __init__(self, model: bytes, name: str = "the vocabulary") -> None:
        from sentencepiece import SentencePieceProcessor  # an extra

        self.model = model
        try:
            pieces = SentencePieceProcessor()
            pieces.LoadFromSerializedProto(model)
            special = (pieces.pad_id(), pieces.unk_id(), pieces.bos_id(), pieces.eos_id())
        except (RuntimeError, OSError, ValueError) as error:
            raise DataError(f"{name} is no sentencepiece vocabulary, or damaged: {one_line(error)}") from error
        if special != (PAD, UNKNOWN, BEGIN, END):
            raise DataError(f"{name}: pad, unknown, begin and end are pieces {special}, not {(PAD, UNKNOWN, BEGIN, END)}")
        self._pieces = pieces

    def __len__(self) -> int:
        size: int = self._pieces.get_piece_size()
        return size

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """The piece numbers of each sentence, without begin and end."""
        numbers: list[list[int]] = self._pieces.encode(list(sentences), num_threads=1)
        return numbers

    def decode(self, sentences: Sequence[Sequence[int]]) -> list[str]:
        """Plain, detokenised text of each sentence; special pieces leave nothing, unknown ones "⁇"."""
        if not sentences:
            return []
        text: list[str] = self._pieces.decode([[int(piece) for piece in sentence] for sentence in sentences], num_threads=1)
        return text
