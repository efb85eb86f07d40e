"""Parallel text in files <part>.<language>, WMT-style and perhaps .gz: what it is called, and its parts as word pieces."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import ClassVar, Self, get_args

from tdcompress.data.base import DataSettings, HashFile, check_root
from tdcompress.data.text_parts import TextPart, Unusable, no_pair, read_part
from tdcompress.errors import DataError
from tdcompress.files import sha256_file
from tdcompress.text.parallel import missing_text, read_pairs
from tdcompress.text.vocabulary import Vocabulary, VocabularySettings

_LONGEST = 256
_UNUSABLE: Unusable = "error"


class ParallelText:
    """A corpus that is read part by part, each once and where it is asked for, and held against what its key says.

    Args:
        settings: where it lies, and which pairs are taken.
        content: hash of all its files, `ParallelTextSettings.content_hash`.
    """

    def __init__(self, settings: "ParallelTextSettings", content: str) -> None:
        self.settings, self.name = settings, settings.name
        self._content = content
        self._parts: dict[tuple[str, bytes], TextPart] = {}
        self._references: dict[bytes, tuple[str, ...]] = {}
        self._reading = Lock()  # trainings in threads share what one of them reads

    @property
    def vocabulary(self) -> VocabularySettings:
        """How the text is cut into word pieces."""
        return self.settings.vocabulary

    def training_text(self) -> Iterator[str]:
        """The sentences of the training part in both languages, as a stream.

        Raises:
            DataError: what `read_pairs` refuses, or no pair at all; or the files were changed.
        """
        files, whole, lines = self.settings.files(self.settings.train), False, 0
        for pair in read_pairs(*files):
            yield pair.source
            yield pair.target
            whole, lines = whole or bool(pair.source and pair.target), pair.line
        if not whole:
            raise no_pair(*files, skipped=lines if self.settings.unusable == "skip" else 0)
        self._refuse_other_files()

    def part(self, name: str, vocabulary: Vocabulary) -> TextPart:
        """A part as pieces.

        Args:
            name: of the part, as in the settings.
            vocabulary: of both languages.

        Raises:
            DataError: what `read_part` refuses; or the files were changed.
        """
        with self._reading:
            known = name, vocabulary.model
            if known not in self._parts:
                longest, unusable = self.settings.longest, self.settings.unusable
                part = read_part(*self.settings.files(name), vocabulary, longest=longest, unusable=unusable)
                self._refuse_other_files()
                self._parts[known] = part
            return self._parts[known]

    def references(self, vocabulary: Vocabulary) -> tuple[str, ...]:
        """The translations of the test part as plain text.

        Args:
            vocabulary: of both languages; by it some pairs may be left out.
        """
        if vocabulary.model not in self._references:
            taken = set(self.part(self.settings.test, vocabulary).lines.tolist())
            pairs = read_pairs(*self.settings.files(self.settings.test))
            references = tuple(pair.target for pair in pairs if pair.line in taken)
            self._refuse_other_files()
            self._references[vocabulary.model] = references
        return self._references[vocabulary.model]

    def _refuse_other_files(self) -> None:
        """Hash all files again, now that some were read: what was read is what the content says."""
        if self.settings.content_hash() != self._content:
            raise DataError(f"{self.settings.root}: its text was changed while it was in use; put back what it was, or run again")


@dataclass(frozen=True, kw_only=True)
class ParallelTextSettings(DataSettings):
    """Keys of parallel text: files ``<part>.<language>`` of UTF-8 text, whose lines with the same number say the same.

    Where there is no such file, ``<part>.<language>.gz`` is read. Text is read as a stream; only word pieces stay in memory.

    The vocabulary is made of the training part by a stage of its own, once for all trainings (`tdcompress.stages.vocabulary`).

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
    longest: int = _LONGEST
    unusable: Unusable = _UNUSABLE
    vocabulary: VocabularySettings = field(default_factory=VocabularySettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_root(self.root)
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

    def for_preparing(self) -> Self:
        """A vocabulary is made of the training part alone, whatever is left out of it later."""
        return replace(self, val=self.train, test=self.train, longest=_LONGEST, unusable=_UNUSABLE)

    def load(self) -> ParallelText:  # noqa: D102
        return ParallelText(self, self.content_hash())
