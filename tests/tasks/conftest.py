"""A generated language: number words, said in another language and backwards."""

from pathlib import Path

import pytest
from words import translation_of, write_corpus

from tdcompress.data.parallel_text import ParallelTextSettings
from tdcompress.tasks.translation import MachineTranslation
from tdcompress.text.vocabulary import VocabularySettings


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def settings(corpus: Path) -> ParallelTextSettings:
    return ParallelTextSettings(root=str(corpus), vocabulary=VocabularySettings(size=60))


@pytest.fixture(scope="module")
def task(settings: ParallelTextSettings) -> MachineTranslation:
    return translation_of(settings)
