"""A vocabulary of word pieces: sentencepiece, trained to the same bytes from the same text, and read from bytes."""

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from tdcompress.errors import DataError, one_line

PAD, UNKNOWN, BEGIN, END = range(4)
FEWEST, MOST = 8, 1 << 16  # pieces
_PLACE = re.compile(r"^[A-Z_]+: \S+\(\d+\) \[.*\]\s*")  # what sentencepiece begins a message with: a line of its source
_TOO_FEW = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")
_TOO_MANY = re.compile(r"size too high \(\d+\)\. Please set it to a value <= (\d+)")


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
        if not FEWEST <= self.size <= MOST:
            raise ValueError(f"size: pieces, {FEWEST}..{MOST}, not {self.size}")
        if self.kind not in ("bpe", "unigram"):
            raise ValueError(f"kind: {self.kind!r} is no kind of vocabulary, one of bpe, unigram")
        if not 0.9 <= self.coverage <= 1.0:
            raise ValueError(f"coverage: {self.coverage} is out of range, 0.9 to 1")


@runtime_checkable
class TrainingText(Protocol):
    """Data that a vocabulary is made of."""

    @property
    def vocabulary(self) -> VocabularySettings:
        """What it is made with."""

    def training_text(self) -> Iterator[str]:
        """All sentences that are trained on, as a stream."""


def train_vocabulary(lines: Iterable[str], settings: VocabularySettings) -> bytes:
    """A vocabulary as sentencepiece's protobuf: the same text and settings give the same bytes.

    One thread, no sampling, and no file name in the result. Text is normalised as sentencepiece does it ("nmt_nfkc"). "bpe" is
    made of the words and how often each occurs, which gives the pieces that the lines themselves give, without holding these in
    memory. "unigram" counts parts of words in their lines, so it holds the text. What is longer than 64 KiB is left out: of
    "bpe" a word, of "unigram" a line.

    Args:
        lines: the training text, of both languages.
        settings: what it is made with.

    Raises:
        DataError: too little text for so many pieces, or more characters than pieces; and whatever ``lines`` raise.
    """
    from sentencepiece import SentencePieceTrainer  # an extra

    text = _Remembering(lines)
    words = settings.kind == "bpe"
    made = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_counted_words(text) if words else iter(text),
            input_format="tsv" if words else "text",
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
        if text.error is not None:
            raise text.error from None
        cure = _cure(one_line(error))
        raise DataError(f"no vocabulary of {settings.size} pieces can be made of this text; {cure}") from error
    return made.getvalue()


def _cure(reason: str) -> str:
    """What to do about an error of sentencepiece's trainer, whose own advice speaks of other settings than ours."""
    if found := _TOO_FEW.search(reason):
        coverage = "lower data.vocabulary.coverage, so that rare characters get no piece"
        needed = int(found[1])
        return coverage if needed > MOST else f"raise data.vocabulary.size to at least {needed}, or {coverage}"
    if found := _TOO_MANY.search(reason):
        largest = int(found[1])
        return f"lower data.vocabulary.size to at most {largest}, or give more text" if largest >= FEWEST else "give more text"
    said = _PLACE.sub("", reason)
    return "change data.vocabulary.size, or give more text" + (f" ({said})" if said else "")


class _Remembering:
    """Lines, and the error that ended them: sentencepiece makes another one of it, which says neither kind nor signal."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            yield from self._lines
        except BaseException as error:
            self.error = error
            raise


def _counted_words(lines: Iterable[str]) -> Iterator[str]:
    """Each word of a text once, with a tab and how often it occurs."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line.replace("\t", " ").split(" "))
    del counts[""]
    for word, count in counts.items():
        yield f"{word}\t{count}"


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
