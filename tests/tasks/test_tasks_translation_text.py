"""What is wrong with text is told before anything is trained, and what is left out of it is told too."""

import dataclasses
import gzip
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from words import RECIPE, translation_of, vocabulary_of

pytest.importorskip("sentencepiece")
pytest.importorskip("sacrebleu")

from tdcompress.cli import main
from tdcompress.data.parallel_text import ParallelTextSettings
from tdcompress.errors import DataError
from tdcompress.recipes.shipped import find_recipe
from tdcompress.tasks.translation import MachineTranslation
from tdcompress.text.bleu import bleu
from tdcompress.text.vocabulary import train_vocabulary


@pytest.mark.parametrize(
    ("file", "content", "changes", "said"),
    [
        ("train.de", "eins\n" * 399, [], r"train\.en, line 400: \S+train\.de has only 399 lines; both files need a line"),
        ("train.en", b"one\n\xffone\n" * 200, [], r"train\.en, line 2: byte 1 is no UTF-8 \(0xff\); convert the file to UTF-8"),
        ("val.de", "eins\n\n" * 20, [], r"val\.de, line 2 is empty; mend it in both files, or give data\.unusable = \"skip\""),
        (
            "test.en",
            "one\n" * 39 + "one " * 300,
            [],
            r"test\.en, line 40 has \d+ pieces, more than data\.longest = 256; raise it",
        ),
        ("test.de", None, [], r"test\.de is missing: parallel text is two files"),
        (
            "test.de",
            "eins zwei.\n" * 40,
            [],
            r"test\.de: BLEU counts runs of four words, parted by spaces, and no sentence has four",
        ),
        (
            None,
            None,
            ["data.vocabulary.size=8000"],
            r"no vocabulary of 8000 pieces can be made of this text; lower data\.vocabulary\.size to at most \d+",
        ),
        (
            "train.en",
            "one two three four\n" * 6 + "one two three four five six one two\n" + "one two three four\n" * 393,
            ["train.batch_tokens=5"],
            r"\S+train\.en and \S+train\.de, line 7: (\d+) tokens, more than train\.batch_tokens = 5; raise it to at least \1$",
        ),
    ],
)
def test_bad_text_is_told_in_one_line_before_anything_is_trained(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str | None, content: Any, changes: Any, said: str
) -> None:
    root = shutil.copytree(corpus, tmp_path / "text")
    if file is not None and content is None:
        (root / file).unlink()
    elif file is not None:
        (root / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    recipe = tmp_path / "words.toml"
    recipe.write_text(RECIPE.format(root=root))
    setting = [part for change in changes for part in ("--set", change)]
    assert main(["run", str(recipe), "--artifacts", str(tmp_path / "made"), *setting]) == 2
    assert re.search(said, " ".join(capsys.readouterr().err.split("tdcompress: ")[-1].split()))
    assert not [path for path in (tmp_path / "made" / "stages").glob("train/*") if path.suffix != ".partial"]


def test_the_papers_recipe_is_passed_over_where_its_text_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("arxiv3_resnet101", "transformer_wmt"):
        shutil.copy(find_recipe(Path("paper") / name), folder)
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(folder)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    for name, missing in (("arxiv3_resnet101", "data/imagenet/train"), ("transformer_wmt", "data/wmt14/train.en")):
        assert re.search(rf"{name}: {missing} is missing.* set data\.root to the folder that holds", told)
    assert "2 of 2 recipes failed: arxiv3_resnet101, transformer_wmt" in told


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize(
    ("source", "target", "left_out"), [("", "", ""), ("\n \n", "\n\n", " (2 left out)"), ("one\n", "\n", " (1 left out)")]
)
def test_training_text_without_a_pair_is_told_before_a_vocabulary_is_made(
    settings: ParallelTextSettings, corpus: Path, tmp_path: Path, kind: Any, source: str, target: str, left_out: str
) -> None:
    root = shutil.copytree(corpus, tmp_path / "text")
    (root / "train.en").write_text(source)
    (root / "train.de").write_text(target)
    vocabulary = dataclasses.replace(settings.vocabulary, kind=kind)
    text = dataclasses.replace(settings, root=str(root), unusable="skip", vocabulary=vocabulary).load()
    with pytest.raises(DataError) as raised:
        train_vocabulary(text.training_text(), text.vocabulary)
    assert str(raised.value) == f"{root}/train.en and {root}/train.de hold no sentence pair{left_out}"


def test_the_same_text_has_the_same_hash_and_vocabulary(settings: ParallelTextSettings, corpus: Path, tmp_path: Path) -> None:
    for path in corpus.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    moved = ParallelTextSettings(root=str(tmp_path), vocabulary=settings.vocabulary)
    assert moved.content_hash() == settings.content_hash()
    assert vocabulary_of(moved) == vocabulary_of(settings)
    (tmp_path / "val.de").write_text("eins\n" * 40)
    assert moved.content_hash() != settings.content_hash()
    (tmp_path / "val.de").unlink()
    with pytest.raises(DataError, match=r"val\.de is missing: parallel text is two files"):
        moved.content_hash()


def test_packed_files_hold_the_same_text(corpus: Path, settings: ParallelTextSettings, tmp_path: Path) -> None:
    for path in corpus.iterdir():
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    packed = ParallelTextSettings(root=str(tmp_path), vocabulary=settings.vocabulary)
    loaded, plain = translation_of(packed), translation_of(settings)
    assert loaded.vocabulary.model == plain.vocabulary.model
    assert loaded.references == plain.references
    assert np.array_equal(loaded.train.pairs.target.pieces, plain.train.pairs.target.pieces)
    assert packed.content_hash() != settings.content_hash()  # the files are what is hashed
    (tmp_path / "val.de").write_text("eins\n")  # one that is not packed comes first
    assert packed.files("val") == (tmp_path / "val.en.gz", tmp_path / "val.de")


def test_references_are_those_of_the_pairs_that_are_taken(corpus: Path, settings: ParallelTextSettings, tmp_path: Path) -> None:
    for path in corpus.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "test.en").write_text("one two\n\nthree four\n")
    (tmp_path / "test.de").write_text("zwei eins\neins\nvier drei\n")
    task = translation_of(ParallelTextSettings(root=str(tmp_path), vocabulary=settings.vocabulary, unusable="skip"))
    assert task.references == ("zwei eins", "vier drei")
    assert len(task.test) == 2


def test_what_is_left_out_is_told_of_each_part_and_beside_bleu(
    corpus: Path, settings: ParallelTextSettings, tmp_path: Path, task: MachineTranslation
) -> None:
    assert task.remarks == ()
    root = shutil.copytree(corpus, tmp_path / "text")
    english, german = ["one two three four"] * 8, ["vier drei zwei eins"] * 8
    english[3] = german[5] = ""
    for name, lines in (("test.en", english), ("test.de", german)):
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    some = translation_of(ParallelTextSettings(root=str(root), vocabulary=settings.vocabulary, unusable="skip"))
    assert some.remarks == (f"{root}/test.en and {root}/test.de: 2 of 8 lines left out as unusable",)
    said = [[1]] * 6
    plain = bleu(some.vocabulary.decode(said), some.references).signature
    assert some._score(said).signature == f"{plain}, 2 of 8 lines left out as unusable"
    assert task._score([[1]] * 40).signature == plain


def test_references_that_look_tokenised_are_told_once(corpus: Path, settings: ParallelTextSettings, tmp_path: Path) -> None:
    root = shutil.copytree(corpus, tmp_path / "text")
    for name in ("test.en", "test.de"):
        (root / name).write_text("eins zwei drei .\n" * 3 + "eins zwei drei vier.\n" * 2)
    tokenised = translation_of(ParallelTextSettings(root=str(root), vocabulary=settings.vocabulary))
    (remark,) = tokenised.remarks
    assert remark.startswith(f'{root}/test.de: 3 of 5 sentences end in " .", as tokenised text does; BLEU is meant for')
    (root / "test.de").write_text("eins zwei drei .\n" * 2 + "eins zwei drei vier.\n" * 3)
    assert translation_of(ParallelTextSettings(root=str(root), vocabulary=settings.vocabulary)).remarks == ()
