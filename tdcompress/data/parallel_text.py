"""Parallel text in files <part>.<language>, WMT-style and perhaps .gz, and the vocabulary that is made of its training part."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, get_args

from tdcompress.data.base import DataSettings, HashFile
from tdcompress.data.sentences import SentencePairs
from tdcompress.data.text_parts import TextPart, Unusable, read_part
from tdcompress.files import sha256_file
from tdcompress.text.parallel import missing_text, read_pairs
from tdcompress.text.vocabulary import Vocabulary, VocabularySettings, train_vocabulary


@dataclass(frozen=True, kw_only=True)
class ParallelText:
    """A loaded corpus.

    Attributes:
        name: as a recipe has it.
        train: what is trained on.
        val: what a training is watched by.
        test: what the measure is taken on.
        references: the test part's translations as plain text.
        vocabulary: of both languages, made of the training part.
        longest: pieces that a sentence may have.
    """

    name: str
    train: SentencePairs
    val: SentencePairs
    test: SentencePairs
    references: tuple[str, ...]
    vocabulary: Vocabulary
    longest: int


@dataclass(frozen=True, kw_only=True)
class ParallelTextSettings(DataSettings):
    """Keys of parallel text: files ``<part>.<language>`` of UTF-8 text, whose lines with the same number say the same.

    Where there is no such file, ``<part>.<language>.gz`` is read. Text is read as a stream; only word pieces stay in memory.

    The vocabulary is made anew of the training part whenever the data is loaded: the same text and keys give the same one, so it
    needs no key of its own. An export ships the very bytes.

    Attributes:
        root: the folder that holds the data; of image sets with a name their own folder, as torchvision lays it out.
        source: ending of the files to translate from, usually a language.
        target: ending of the files to translate into.
        train: name of the part to train on.
        val: name of the part that a training is watched by.
        test: name of the part that BLEU is measured on.
        longest: word pieces that a sentence may have.
        unusable: what becomes of a pair with an empty side or one above ``longest``: an "error", or "skip" leaves it out.
        vocabulary: how text is cut into word pieces.
    """

    name: ClassVar[str] = "parallel_text"
    task: ClassVar[str] = "translation"

    root: str = "data"
    source: str = "en"
    target: str = "de"
    train: str = "train"
    val: str = "val"
    test: str = "test"
    longest: int = 256
    unusable: Unusable = "error"
    vocabulary: VocabularySettings = field(default_factory=VocabularySettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.root:
            raise ValueError("root: the folder that holds the data, not empty")
        for key in ("source", "target", "train", "val", "test"):
            value = getattr(self, key)
            if not value or Path(value).name != value:
                raise ValueError(f"{key}: {value!r} is no part of a file's name, as in train.en")
        if self.source == self.target:
            raise ValueError(f"target: {self.target!r} is the source too; a translation needs two files")
        if self.longest < 1:
            raise ValueError(f"longest: {self.longest} is out of range, 1 or more")
        if self.unusable not in get_args(Unusable):
            raise ValueError(f"unusable: {self.unusable!r} is neither of {', '.join(get_args(Unusable))}")

    def files(self, part: str) -> tuple[Path, Path]:
        """Source and target file of a part, packed where only that is there."""
        return self._file(part, self.source), self._file(part, self.target)

    def _file(self, part: str, ending: str) -> Path:
        plain = Path(self.root).expanduser() / f"{part}.{ending}"
        packed = plain.with_name(f"{plain.name}.gz")
        return packed if packed.is_file() and not plain.is_file() else plain

    def content_hash(self, hash_file: HashFile | None = None) -> str:  # noqa: D102
        digest = hashlib.sha256()
        for part in (self.train, self.val, self.test):
            for path in self.files(part):
                if not path.is_file():
                    raise missing_text(path)
                digest.update(f"{path.name}\0{(hash_file or sha256_file)(path)}\n".encode())
        return digest.hexdigest()

    def load(self) -> ParallelText:  # noqa: D102
        vocabulary = Vocabulary(train_vocabulary(self._training_text(), self.vocabulary))
        train, val, test = (self._read(part, vocabulary) for part in (self.train, self.val, self.test))
        lines = set(test.lines.tolist())
        return ParallelText(
            name=self.name,
            train=train.pairs,
            val=val.pairs,
            test=test.pairs,
            references=tuple(pair.target for pair in read_pairs(*self.files(self.test)) if pair.line in lines),
            vocabulary=vocabulary,
            longest=self.longest,
        )

    def _training_text(self) -> Iterator[str]:
        for pair in read_pairs(*self.files(self.train)):
            yield pair.source
            yield pair.target

    def _read(self, part: str, vocabulary: Vocabulary) -> TextPart:
        return read_part(*self.files(part), vocabulary, longest=self.longest, unusable=self.unusable)
