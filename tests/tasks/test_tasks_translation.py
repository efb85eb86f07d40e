"""Translation through the stages of a recipe, on a generated language: number words, said in another language and backwards."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from words import RECIPE, write_corpus

pytest.importorskip("sentencepiece")
pytest.importorskip("sacrebleu")

from tdcompress.data.digits import DigitsSettings
from tdcompress.data.parallel_text import ParallelTextSettings
from tdcompress.data.sentences import IGNORED
from tdcompress.errors import DataError, ModelError, RecipeError, UserError, VerificationError
from tdcompress.methods.base import Method
from tdcompress.methods.wrapper import SparseNet
from tdcompress.models.digits_cnn import DigitsCnnSettings
from tdcompress.models.registry import instantiate
from tdcompress.models.transformer_settings import TransformerSettings
from tdcompress.runs.verification import verify_path
from tdcompress.sparsity.units import Targets
from tdcompress.tasks.classification import Classification
from tdcompress.tasks.translation import MachineTranslation
from tdcompress.text.bleu import bleu
from tdcompress.text.translator import OnnxDecoder, TextTranslator
from tdcompress.text.vocabulary import Vocabulary, VocabularySettings
from tdcompress.train.distributed import World
from tdcompress.train.loop import train
from tdcompress.train.optim import OptimizerSettings
from tdcompress.train.settings import TrainSettings

CPU = torch.device("cpu")
SMALL = TransformerSettings(width=32, hidden=64, heads=2, encoder_layers=1, decoder_layers=1, dropout=0.0, pre_norm=True)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def settings(corpus: Path) -> ParallelTextSettings:
    return ParallelTextSettings(root=str(corpus), vocabulary=VocabularySettings(size=60))


@pytest.fixture(scope="module")
def task(settings: ParallelTextSettings) -> MachineTranslation:
    return MachineTranslation(settings.load())


@pytest.fixture
def net(task: MachineTranslation) -> torch.nn.Module:
    return instantiate(SMALL, interface=task.interface, seed=0).eval()


def test_a_recipe_of_translation_runs_to_what_is_shipped(corpus: Path, run_text: Any, tmp_path: Path) -> None:
    finished, watcher = run_text(RECIPE.format(root=corpus), tmp_path)
    assert {"train", "prune", "store", "export"} <= set(watcher.made)
    report, folder = finished.report, tmp_path / "words"
    assert (report.measure.name, report.test_samples) == ("BLEU", 40)
    _, targeted = report.rows
    assert targeted.accuracy_onnx > 0.3  # an untrained translator has about 0
    assert targeted.accuracy_onnx == pytest.approx(targeted.accuracy_stored, abs=0.02)
    assert "BLEU" in (folder / "report.md").read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    files = [f"{targeted.id}.onnx", f"{targeted.id}.decoder_step.onnx", "vocabulary.model"]
    assert {*files, "dense.onnx", "dense.decoder_step.onnx"} <= set(manifest["files"])
    assert targeted.onnx_bytes == sum((folder / name).stat().st_size for name in files)
    assert verify_path(folder)[files[0]].samples > 0
    vocabulary = Vocabulary((folder / files[2]).read_bytes())
    translator = TextTranslator(decoder=OnnxDecoder(folder / files[0], folder / files[1]), vocabulary=vocabulary)
    sentences, references = ((corpus / f"test.{end}").read_text().splitlines() for end in ("en", "de"))
    assert bleu(translator(sentences, beam=1), references).score / 100 == pytest.approx(targeted.accuracy_onnx, abs=0.02)


def test_a_benchmark_of_a_translator_is_refused_before_any_stage(corpus: Path, run_text: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r'bench\.budget: the files of translation are not timed yet; set budget = "none"'):
        run_text(RECIPE.format(root=corpus).replace('budget = "none"', 'budget = "quick"'), tmp_path)
    assert not list(tmp_path.glob("**/train/*"))


def test_the_same_text_has_the_same_hash_and_vocabulary(settings: ParallelTextSettings, corpus: Path, tmp_path: Path) -> None:
    for path in corpus.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    moved = ParallelTextSettings(root=str(tmp_path), vocabulary=settings.vocabulary)
    assert moved.content_hash() == settings.content_hash()
    assert moved.load().vocabulary.model == settings.load().vocabulary.model
    (tmp_path / "val.de").write_text("eins\n" * 40)
    assert moved.content_hash() != settings.content_hash()
    (tmp_path / "val.de").unlink()
    with pytest.raises(DataError, match=r"val\.de is missing: parallel text is two files"):
        moved.content_hash()


def test_references_are_those_of_the_pairs_that_are_taken(corpus: Path, settings: ParallelTextSettings, tmp_path: Path) -> None:
    for path in corpus.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "test.en").write_text("one two\n\nthree four\n")
    (tmp_path / "test.de").write_text("zwei eins\neins\nvier drei\n")
    data = ParallelTextSettings(root=str(tmp_path), vocabulary=settings.vocabulary, unusable="skip").load()
    assert data.references == ("zwei eins", "vier drei")
    assert len(data.test) == 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("root", "", "root:"),
        ("target", "en", "target:"),
        ("val", "a/b", "val:"),
        ("longest", 0, "longest:"),
        ("source", "", "source:"),
    ],
)
def test_keys_out_of_range_are_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ParallelTextSettings(**{key: value})


def test_model_and_data_have_to_fit(task: MachineTranslation) -> None:
    with pytest.raises(ModelError, match="digits_cnn takes images with classes, and the data are sentences with translations"):
        DigitsCnnSettings().build(task.interface)
    images = Classification(DigitsSettings().load())
    with pytest.raises(ModelError, match="transformer takes sentences with translations, and the data are images with classes"):
        SMALL.build(images.interface)


def test_a_budget_of_tokens_is_of_text_and_instead_of_a_batch_size() -> None:
    with pytest.raises(ValueError, match="batch_tokens: it is instead of batch_size"):
        TrainSettings(batch_size=4, batch_tokens=100)
    assert TrainSettings().batch_size == 128
    assert TrainSettings(batch_tokens=100).batch_size is None
    images = Classification(DigitsSettings().load()).train_set(0)
    with pytest.raises(UserError, match=r"train\.batch_tokens: images have no tokens"):
        images.loader(TrainSettings(batch_tokens=100), seed=0, world=World())


@pytest.mark.parametrize("batch", [{"batch_tokens": 120}, {"batch_size": 16}])
def test_micro_batches_and_processes_make_the_gradient_of_the_step(task: MachineTranslation, net: Any, batch: Any) -> None:
    data, gradients = task.train_set(0), []
    for accumulate, size in ((1, 1), (2, 1), (1, 3), (2, 24)):
        net.zero_grad()
        asked = TrainSettings(**batch, accumulate=accumulate, label_smoothing=0.1)
        right = 0
        for rank in range(size):
            loader = data.loader(asked, seed=0, world=World(rank=rank, size=size))
            for micro in loader.step(0, 1, torch.Generator()):
                loss, correct = micro.loss(net, None)
                (loss / micro.parts / size).backward()
                right += int(correct)
        gradients.append((right, torch.cat([parameter.grad.flatten() for parameter in net.parameters()])))
    for right, gradient in gradients[1:]:
        assert right == gradients[0][0]
        torch.testing.assert_close(gradient, gradients[0][1], rtol=1e-4, atol=1e-6)


def test_units_and_right_answers_are_target_pieces(task: MachineTranslation, net: Any) -> None:
    data = task.test_set()
    loader = data.loader(TrainSettings(batch_tokens=100), seed=0, world=World())
    assert loader.units(3, 0, loader.steps_per_epoch) == data.units
    batch = data.batch(np.arange(len(data)))
    with torch.no_grad():
        said = net(batch.source, batch.target_in).argmax(2)
    expected = int(((said == batch.target_out) & (batch.target_out != IGNORED)).sum())
    assert data.count_right(net, CPU) == expected
    assert sum(data.every(3, first).count_right(net, CPU) for first in range(3)) == expected
    with pytest.raises(VerificationError, match="not finite"):
        data.count_right(lambda source, target: torch.full((*target.shape, 60), float("nan")), CPU)


def test_other_files_than_the_network_are_refused(task: MachineTranslation, net: Any) -> None:
    from tdcompress.export.check import OnnxNetwork
    from tdcompress.export.to_onnx import to_model_proto

    trained = train_a_little(task, net)
    parts = task.exports(instantiate(SMALL, interface=task.interface, seed=7).eval(), pixels=False).parts
    protos = {part.file: to_model_proto(part.module, part.samples, names=part.names, axes=part.axes) for part in parts}
    files = {name: OnnxNetwork(proto, name) for name, proto in protos.items()}
    with pytest.raises(VerificationError, match=r"test sentence \d+ is translated differently under onnxruntime from piece 1 on"):
        task.exports(trained, pixels=False).measured(files, 0.0, lambda done, of: None)


def train_a_little(task: MachineTranslation, net: Any) -> Any:
    import tempfile

    wrapped = SparseNet(net, Method(Targets(weights=())))
    asked = TrainSettings(epochs=1, batch_tokens=400, optimizer=OptimizerSettings(name="adam", lr=0.01))
    with tempfile.TemporaryDirectory() as folder:
        train(wrapped, task.train_set(0), task.test_set(), asked, seed=0, device=CPU, folder=Path(folder))
    return wrapped.plain()
