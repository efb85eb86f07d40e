"""Stage "vocabulary": the training text of parallel files -> the word pieces that all trainings on it share."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Self

from tdcompress.errors import DataError, UserError
from tdcompress.files import write_bytes
from tdcompress.lineage.origin import KnownData
from tdcompress.lineage.versions import RECORDS, VERSIONS
from tdcompress.pipeline import Stage, Workspace
from tdcompress.records.stages import VocabularyRecord
from tdcompress.text.names import VOCABULARY
from tdcompress.text.vocabulary import TrainingText, Vocabulary, train_vocabulary

EVERY = 20_000  # sentences between two signs of life


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a vocabulary depends on.

    Attributes:
        data: the text that is read, of the training part, with data.vocabulary among its keys.
        maker: the library that makes it, with its version: another version may make other pieces of the same text.
    """

    data: KnownData
    maker: str

    @classmethod
    def here(cls, data: KnownData) -> Self:
        """As this machine makes it.

        Raises:
            UserError: sentencepiece is not installed.
        """
        try:
            return cls(data=data, maker=f"sentencepiece {version('sentencepiece')}")
        except PackageNotFoundError:
            raise UserError("a vocabulary needs sentencepiece: pip install '.[translate]' in tdcompress's checkout") from None


def run(settings: Settings, work: Workspace) -> VocabularyRecord:
    """Make the vocabulary, and read it back.

    Raises:
        DataError: text that cannot be read or is too little for so many pieces; or data without text.
        UserError: another version of sentencepiece is installed here than the one that is to make it.
    """
    here = Settings.here(settings.data)
    if here != settings:
        raise UserError(
            f"the vocabulary of {settings.maker} is gone or damaged, and here is {here.maker}, which may make another one: "
            "fetch it again, or run again to train with a new one"
        )
    text = settings.data.load(work.machine.places)
    if not isinstance(text, TrainingText):
        raise DataError(f"{text.name}: a vocabulary is made of text, and this data set has none")

    def lines() -> Iterator[str]:
        for number, line in enumerate(text.training_text()):
            if number % EVERY == 0:
                work.progress.update(0, 1, f"{number:,} sentences read")
                work.stop_if_asked()
            yield line
        work.progress.update(1, 1, f"choosing {text.vocabulary.size:,} word pieces")

    model = train_vocabulary(lines(), text.vocabulary)
    write_bytes(work.folder / VOCABULARY, model)
    return VocabularyRecord(pieces=len(Vocabulary(model)), bytes=len(model))


STAGE = Stage(name="vocabulary", version=VERSIONS["vocabulary"], settings=Settings, run=run, record=RECORDS["vocabulary"])
