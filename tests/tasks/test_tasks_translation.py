"""Translation through the stages of a recipe, on a generated language: number words, said in another language and backwards."""

import copy
import dataclasses
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from words import RECIPE

pytest.importorskip("sentencepiece")
pytest.importorskip("sacrebleu")


from tdcompress.cli import main
from tdcompress.data.digits import DigitsSettings
from tdcompress.data.parallel_text import ParallelTextSettings
from tdcompress.data.sentences import IGNORED
from tdcompress.errors import ModelError, RecipeError, UnsupportedError, UserError, VerificationError
from tdcompress.export.check import OnnxNetwork
from tdcompress.export.to_onnx import to_model_proto
from tdcompress.methods.base import Method
from tdcompress.methods.wrapper import SparseNet
from tdcompress.models.digits_cnn import DigitsCnnSettings
from tdcompress.models.registry import instantiate
from tdcompress.models.torch_decoder import TorchDecoder
from tdcompress.models.transformer_settings import TransformerSettings
from tdcompress.runs.rows import nothing_learnt
from tdcompress.runs.verification import verify_path
from tdcompress.sparsity.units import Targets
from tdcompress.stages.export import unlike_notes
from tdcompress.tasks.base import ExportPart
from tdcompress.tasks.classification import Classification
from tdcompress.tasks.pairs import PairSet
from tdcompress.tasks.translation import MachineTranslation
from tdcompress.text.bleu import bleu
from tdcompress.text.search import greedy
from tdcompress.text.translator import OnnxDecoder, TextTranslator
from tdcompress.text.vocabulary import Vocabulary
from tdcompress.train.distributed import World
from tdcompress.train.loop import train
from tdcompress.train.optim import OptimizerSettings
from tdcompress.train.settings import TrainSettings

CPU = torch.device("cpu")
SMALL = TransformerSettings(width=32, hidden=64, heads=2, encoder_layers=1, decoder_layers=1, dropout=0.0, pre_norm=True)


@pytest.fixture
def net(task: MachineTranslation) -> torch.nn.Module:
    return instantiate(SMALL, interface=task.interface, seed=0).eval()


def test_a_recipe_of_translation_runs_to_what_is_shipped(
    words_root: Path, run_text: Any, short_benchmarks: Any, tmp_path: Path
) -> None:
    corpus = words_root / "corpus"
    shutil.copytree(words_root / "artifacts" / "stages", tmp_path / "stages")  # all of this recipe's but the benchmark
    with short_benchmarks():
        finished, watcher = run_text(RECIPE.format(root=corpus), tmp_path)
        here = tmp_path / "here.json"
        assert main(["bench", "words", "--artifacts", str(tmp_path), "--batch", "2", "--json", str(here)]) == 0
    assert {"train", "prune", "store", "export"} <= set(watcher.kept)
    assert watcher.made == ["bench"]
    report, folder = finished.report, tmp_path / "words"
    assert (report.measure.name, report.test_samples) == ("BLEU", 40)
    _, targeted = report.rows
    assert targeted.accuracy_onnx > 0.3  # an untrained translator has about 0
    assert targeted.accuracy_onnx == pytest.approx(targeted.accuracy_stored, abs=0.02)
    (latency,) = targeted.latency
    assert latency.tokens is not None
    assert latency.tokens_per_second == pytest.approx(latency.tokens / latency.p50_ns * 1e9)
    written = (folder / "report.md").read_text()
    assert "BLEU" in written
    assert f"batch 1, {latency.tokens} tokens a call" in written
    assert "tokens/s" in written
    measured = json.loads(here.read_text())["benchmark"]  # of the run's folder, and of sentences that it ships
    assert [row["file"] for row in measured["rows"]] == ["model.onnx", *sorted(row.onnx_file for row in finished.report.rows)]
    assert all(row["bytes"] == targeted.onnx_bytes for row in measured["rows"] if row["file"] == targeted.onnx_file)
    assert measured["protocol"]["call"].startswith("a call translates 2 sentences of ")
    assert main(["report", "words", "--artifacts", str(tmp_path), "--bench", str(here)]) == 0
    assert "batch 2, " in (folder / "report.md").read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    files = [f"{targeted.id}.onnx", f"{targeted.id}.decoder_step.onnx", "vocabulary.model"]
    assert {*files, "dense.onnx", "dense.decoder_step.onnx"} <= set(manifest["files"])
    assert targeted.onnx_bytes == sum((folder / name).stat().st_size for name in files)
    assert verify_path(folder)[files[0]].samples > 0
    vocabulary = Vocabulary((folder / files[2]).read_bytes())
    translator = TextTranslator(decoder=OnnxDecoder(folder / files[0], folder / files[1]), vocabulary=vocabulary)
    sentences, references = ((corpus / f"test.{end}").read_text().splitlines() for end in ("en", "de"))
    greedily = bleu(translator(sentences, beam=1), references)
    assert greedily.score / 100 == pytest.approx(targeted.accuracy_onnx, abs=0.02)
    assert targeted.how == greedily.signature
    beam, pieces = targeted.figures
    with_beam = bleu(translator(sentences, beam=4, alpha=0.6), references)
    assert (beam.measure.name, beam.how) == ("BLEU, beam 4", f"{with_beam.signature}, alpha 0.6")
    assert beam.value == pytest.approx(with_beam.score / 100, abs=0.02)
    assert (pieces.measure.name, pieces.measure.unit) == ("per-token accuracy", "%")
    assert 0.3 < pieces.value <= 1
    assert targeted.unlike_torch is not None
    page = (folder / "report.md").read_text()
    assert "| row | pruned | BLEU | BLEU, beam 4 | per-token accuracy, % | answers unlike torch's | how |" in page
    assert greedily.signature in page.replace("\\", "")
    assert [figure["measure"]["name"] for figure in json.loads((folder / "report.json").read_text())["rows"][1]["figures"]] == [
        "BLEU, beam 4",
        "per-token accuracy",
    ]


def test_a_dense_network_no_better_than_one_answer_to_everything_is_warned_of(task: MachineTranslation) -> None:
    assert nothing_learnt(0.0301, task) == ""
    assert nothing_learnt(0.0004, task) == (
        "The dense network has learnt next to nothing: its BLEU is 0.04, and one answer to everything gets about 3.00. "
        "So the rows say nothing about pruning. Train it longer, or with another learning rate."
    )
    images = Classification(DigitsSettings().load())
    most = max(Counter(images.data.test.labels.tolist()).values())
    assert nothing_learnt((most + 1) / images.test_samples, images) == ""
    assert f"one answer to everything gets about {100 * most / images.test_samples:.2f} %" in nothing_learnt(0.1, images)


def test_a_backend_that_cannot_translate_is_refused_before_any_stage(corpus: Path, run_text: Any, tmp_path: Path) -> None:
    asked = RECIPE.format(root=corpus) + '\n[bench]\nbackend = ["onnxruntime", "openvino"]\n'
    with pytest.raises(RecipeError, match=r"bench\.backend: backend 'openvino' cannot time translations, .*; use onnxruntime"):
        run_text(asked, tmp_path)
    assert not list(tmp_path.glob("**/train/*"))


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
    with pytest.raises(ValueError, match="batch_tokens: it counts pieces of text, instead of batch_size"):
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


def test_files_that_no_translator_has_are_refused(task: MachineTranslation, net: Any) -> None:
    with pytest.raises(UserError, match=r'export\.input: "uint8" is of images; sentences have no pixels'):
        task.exports(net, pixels=True)
    for part in task.exports(net, pixels=False).parts:
        with pytest.raises(UnsupportedError, match=r'export\.values: a translator has no "int8" files; take "int8-kept"'):
            part.calibration()


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


def opened(parts: Sequence[ExportPart]) -> dict[str, OnnxNetwork]:
    protos = {part.file: to_model_proto(part.module, part.samples, names=part.names, axes=part.axes) for part in parts}
    return {name: OnnxNetwork(proto, name) for name, proto in protos.items()}


def test_sentences_that_differ_from_a_tie_on_are_counted(task: MachineTranslation, net: Any) -> None:
    """Two pieces have the same logits in torch; under onnxruntime the other one leads, by less than a tie allows."""
    trained = train_a_little(task, copy.deepcopy(net))
    said = Counter(piece for sentence in task._search(TorchDecoder(trained), greedy, unsaid) for piece in sentence)
    piece, twin = sorted((said.most_common(1)[0][0], len(task.vocabulary) - 1))
    assert piece != twin
    tied = instantiate(dataclasses.replace(SMALL, tied=False), interface=task.interface, seed=0).eval()
    tied.load_state_dict(trained.state_dict(), strict=False)
    with torch.no_grad():
        tied.target_embedding.weight.copy_(trained.source_embedding.weight)
        tied.logits.weight.copy_(trained.source_embedding.weight)
        tied.logits.weight[[piece, twin]] = trained.source_embedding.weight[said.most_common(1)[0][0]]
    expected = task._search(TorchDecoder(tied), greedy, unsaid)
    with_it = sum(piece in sentence for sentence in expected)
    assert with_it > 0
    near = copy.deepcopy(tied)
    with torch.no_grad():
        near.logits.weight[twin] *= 1 + 2e-6
    files = opened(task.exports(near, pixels=False).parts)
    measured = task.exports(tied, pixels=False).measured(files, 0.0, unsaid)
    assert measured.unlike_torch == with_it
    assert unlike_notes(measured, 40) == (
        f"{with_it} of 40 test samples are answered otherwise than in torch, each from a tie on",
    )
    same = task.exports(near, pixels=False).measured(files, 0.0, unsaid)
    assert (same.unlike_torch, unlike_notes(same, 40)) == (0, ())
    assert task.exports(near, pixels=False).measured(files, None, unsaid).unlike_torch is None  # rounded: not compared


def test_pieces_right_are_those_of_the_whole_target_at_once(task: MachineTranslation, net: Any) -> None:
    pairs = PairSet.of(task.test)
    assert task._share_right(TorchDecoder(net), unsaid) == pairs.count_right(net, CPU) / pairs.units


def test_other_files_than_the_network_are_refused(task: MachineTranslation, net: Any) -> None:
    trained = train_a_little(task, net)
    files = opened(task.exports(instantiate(SMALL, interface=task.interface, seed=7).eval(), pixels=False).parts)
    with pytest.raises(VerificationError, match=r"test sentence \d+ is translated differently under onnxruntime from piece 1 on"):
        task.exports(trained, pixels=False).measured(files, 0.0, unsaid)


def unsaid(done: int, of: int) -> None:
    assert 0 <= done <= of


def train_a_little(task: MachineTranslation, net: Any) -> Any:
    wrapped = SparseNet(net, Method(Targets(weights=())))
    asked = TrainSettings(epochs=1, batch_tokens=400, optimizer=OptimizerSettings(name="adam", lr=0.01))
    with tempfile.TemporaryDirectory() as folder:
        train(wrapped, task.train_set(0), task.test_set(), asked, seed=0, device=CPU, folder=Path(folder))
    return wrapped.plain()
