"""Every stage with a translator, on a generated language: what is pruned, dropped, shrunk, stored, packed and trained on."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from words import TINY, translation_of, write_corpus

pytest.importorskip("sentencepiece")
pytest.importorskip("sacrebleu")

from tdcompress.data.parallel_text import ParallelTextSettings
from tdcompress.errors import InterruptedRun, RecipeError
from tdcompress.methods.registry import METHODS
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.models.registry import instantiate
from tdcompress.models.transformer_settings import TransformerSettings
from tdcompress.onnxfile.inspect import inspect_model
from tdcompress.onnxfile.load import load_model
from tdcompress.pipeline import Machine, Runner
from tdcompress.recipes.source import parse_recipe
from tdcompress.runs.checks import check_plan, check_trainings
from tdcompress.runs.plan import RunPlan, plan_run
from tdcompress.sparsity.units import Targets, prunable_weights
from tdcompress.stores.folder import FolderStore
from tdcompress.text.vocabulary import VocabularySettings
from tdcompress.train.distributed import World
from tdcompress.train.loop import train
from tdcompress.train.optim import LrSchedule, OptimizerSettings
from tdcompress.train.settings import TrainSettings

UNITS = {"sparsity.granularity": "unit", "sparsity.scope": "group"}
METHOD_KEYS: tuple[dict[str, Any], ...] = (
    {"method": "none"},
    {"method": "dropout"},
    {"method": "targeted", "gamma": 0.5, "alpha": 0.66},
    {"method": "targeted", "gamma": 0.5, "alpha": 0.66, "schedule": "ramp", "ramp_scale": True},
    {"method": "l1", "l1": 0.01},
    {"method": "l0", "initial_drop": 0.5},
    {"method": "variational"},
    {"method": "smallify"},
    {"method": "random_prune", "fraction": 0.5},
)
OF_WEIGHTS: tuple[dict[str, Any], ...] = (
    {"method": "targeted", "gamma": 0.5, "schedule": "cubic"},
    {"method": "targeted", "keep_per_filter": 3, "alpha": 0.66},
    {"method": "targeted", "gamma": 0.5, "alpha": 0.66, "shares": "global"},
    {"method": "targeted", "gamma": 0.5, "alpha": 0.66, "granularity": "2:4"},
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), train=60, others=12, longest=5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    return FolderStore(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="module")
def plan(corpus: Path, store: FolderStore) -> Callable[..., RunPlan]:
    def make(tables: str = "", **changes: Any) -> RunPlan:
        recipe = parse_recipe(TINY.format(root=corpus) + tables, "stages.toml", changes)
        return plan_run(recipe, store)

    return make


@pytest.fixture
def runner(store: FolderStore, plan: Callable[..., RunPlan], make_recorder: Any) -> Runner:
    return Runner(store=store, watcher=make_recorder(), facts={}, machine=Machine(places=plan().places))


def sparsity(keys: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {f"sparsity.{key}": value for key, value in keys.items()} | more


def test_every_method_is_tried() -> None:
    assert {keys["method"] for keys in METHOD_KEYS} == set(METHODS)


@pytest.mark.parametrize("keys", METHOD_KEYS + OF_WEIGHTS, ids=lambda keys: "-".join(map(str, keys.values())))
def test_every_method_prunes_weights_and_stores_them(runner: Runner, plan: Any, keys: dict[str, Any]) -> None:
    (row,) = plan(**sparsity(keys)).rows
    pruned, stored = runner.ensure(row.pruned), runner.ensure(row.steps["store"])
    assert pruned.record["sparsity_prunable"] == pytest.approx(0.5)
    assert stored.record["accuracy"] == pruned.record["accuracy"]
    names = {layer["name"] for layer in pruned.record["layers"]}
    assert not any("embedding" in name or "logits" in name or "attention.output" in name for name in names)
    kept = load_file(pruned.file("model.safetensors"))
    assert "shares" in keys or int(kept["encoder.0.attention.query.weight"].count_nonzero()) == 128
    assert kept["source_embedding.weight"][1:].count_nonzero() == 59 * 16


@pytest.mark.parametrize("keys", METHOD_KEYS, ids=lambda keys: "-".join(map(str, keys.values())))
def test_every_method_prunes_whole_heads_and_hidden_units_alone(runner: Runner, plan: Any, keys: dict[str, Any]) -> None:
    (row,) = plan(**sparsity(keys, **UNITS, **{"model.prune_output": True})).rows
    with pytest.warns(UserWarning, match=r"left whole, since no unit could ever leave.*normalises all channels together"):
        pruned = runner.ensure(row.pruned)
    weights = load_file(pruned.file("model.safetensors"))
    for name in ("encoder.0.attention", "decoder.0.attention", "decoder.0.cross"):
        parts = [weights[f"{name}.{part}.weight"].view(4, 4, 16).flatten(1).any(1) for part in ("query", "key", "value")]
        assert [part.tolist() for part in parts] == [parts[0].tolist()] * 3  # a head's three projections die together
        assert int(parts[0].sum()) == 2
        bias = weights[f"{name}.query.bias"].view(4, 4).any(1)
        assert not bool(bias[~parts[0]].any())
        # what writes into the stream, which a LayerNorm reads, is never zeroed
        assert weights[f"{name}.output.weight"].any(1).all()
    for name in ("encoder.0.feed_forward", "decoder.0.feed_forward"):
        assert int(weights[f"{name}.hidden.weight"].any(1).sum()) == 8
        assert weights[f"{name}.output.weight"].any(1).all()


def test_packed_in_every_format_after_an_average_and_fine_tuning(run_text: Any, corpus: Path, tmp_path: Path) -> None:
    formats = ["float32", "float16", "codebook16", "int8-kept"]
    changes = sparsity(METHOD_KEYS[2]) | {
        "train.average": "ema",
        "train.average_decay": 0.9,
        "model.prune_output": True,
        "finetune.epochs": 1,
        "finetune.lr": 0.001,
        "prune.recalibrate": 20,
        "prune.fraction": 0.9,
        "export.values": formats,
        "export.prefer": "size",
        "export.measures": "main",
    }
    finished, watcher = run_text(TINY.format(root=corpus), tmp_path, changes)
    assert watcher.made.count("finetune") == 1
    rows = finished.report.rows
    assert re.match(r"The dense network has learnt next to nothing: its BLEU is [0-2]\.\d\d, .* 3\.00\.", finished.report.warning)
    for page in ("report.md", "report.html"):
        assert "has learnt next to nothing" in (tmp_path / "words" / page).read_text()
    assert [row.values for row in rows] == formats
    for row in rows:
        assert row.accuracy_before is None  # there is no BatchNorm to recalibrate
        assert row.sparsity_prunable == pytest.approx(0.875)  # of 16 inputs 14 go
        assert row.figures == ()
        assert row.how.startswith("nrefs:1|case:mixed")
    assert rows[0].unlike_torch is not None
    assert [row.unlike_torch for row in rows[1:]] == [None] * 3
    packed = {row.values: inspect_model(load_model(tmp_path / "words" / row.onnx_file)).encodings for row in rows}
    assert all(sum(count for name, count in made.items() if name != "dense") > 0 for made in packed.values())


def test_without_batchnorm_recalibrating_says_so_and_changes_nothing(
    runner: Runner, plan: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plain, asked = (plan(**{"prune.fraction": 0.7, "prune.recalibrate": count}).rows[0].pruned for count in (0, 20))
    before = runner.ensure(plain)
    assert caplog.text == ""
    after = runner.ensure(asked)
    assert before.key != after.key
    assert caplog.messages == ["no BatchNorm layer with running statistics in this Transformer: nothing to re-estimate"]
    for name in ("model.safetensors", "masks.safetensors"):
        assert after.file(name).read_bytes() == before.file(name).read_bytes()
    assert after.record == before.record
    assert after.record["accuracy_before"] is None


@pytest.mark.parametrize("tied", [True, False])
def test_shrunk_translators_say_the_same_distilled_and_trained_on(
    run_text: Any, corpus: Path, tmp_path: Path, tied: bool
) -> None:
    changes = sparsity(METHOD_KEYS[2], **UNITS) | {
        "train.average": "last",
        "model.tied": tied,
        "model.pre_norm": not tied,
        "finetune.epochs": 1,
        "finetune.after": "shrink",
        "distill.weight": 0.5,
        "export.measures": "main",
    }
    with pytest.warns(UserWarning, match="2 layers left whole"):
        finished, watcher = run_text(TINY.format(root=corpus), tmp_path, changes)
    assert watcher.made.count("train") == 2  # the teacher and the student
    (row,) = finished.report.rows
    assert row.shrunk.max_error < 1e-9
    assert row.accuracy_shrunk == pytest.approx(row.accuracy_masked, abs=1e-3)
    widths = {layer.name: (layer.before, layer.after) for layer in row.shrunk.layers}
    assert widths["decoder.0.cross.key"] == widths["encoder.0.feed_forward.hidden"] == (16, 8)
    assert widths["encoder.0.feed_forward.output"] == (16, 16)
    step = load_model(tmp_path / "words" / f"{row.id}.decoder_step.onnx")
    heads = {value.name: value.type.tensor_type.shape.dim[1].dim_value for value in step.graph.input[2:]}
    assert set(heads.values()) == {2}
    assert row.unlike_torch is not None  # its sentences were compared with those of torch, one by one


def test_the_loss_is_derived_twice(runner: Runner, plan: Any) -> None:
    planned = plan("[analyse]\nbins = 4\n", **{"model.hidden": 4, "train.epochs": 2})
    record = runner.ensure(planned.analyses[0]).record
    assert record["samples"] == 12
    assert np.isfinite([record["gradient_term"], record["curvature_term"], record["measured"]]).all()
    assert record["curvature_term"] != 0.0


def test_what_no_translator_has_is_refused_before_any_stage(runner: Runner, plan: Any) -> None:
    with pytest.raises(RecipeError, match=r'export\.values: a translator has no "int8"'):
        check_plan(plan(**{"export.values": ["float32", "int8"]}), runner)
    with pytest.raises(RecipeError, match=r'export\.input: "uint8" is of images'):
        check_plan(plan(**{"export.input": "uint8"}), runner)
    with pytest.raises(RecipeError, match=r'prune\.recalibrate_on: sentences are not augmented; take "plain"'):
        check_plan(plan(**{"prune.recalibrate": 8, "prune.recalibrate_on": "augmented"}), runner)
    for backend in ("openvino", "deepsparse"):
        planned = plan(**{"bench.budget": "quick", "bench.backend": [backend]})
        for check in (check_plan, check_trainings):
            with pytest.raises(RecipeError, match=rf"bench\.backend: backend '{backend}' cannot time translations"):
                check(planned, runner)
    check_plan(plan(**{"export.values": ["float16", "int8-kept"]}), runner)
    with pytest.raises(RecipeError, match=r"train\.batch_tokens: it counts pieces of text, instead of batch_size"):
        plan(**{"train.batch_size": 4})


@pytest.mark.parametrize("average", ["none", "ema", "last"])
def test_stopped_in_the_middle_of_an_epoch_it_ends_with_the_same_bits(corpus: Path, tmp_path: Path, average: Any) -> None:
    task = translation_of(ParallelTextSettings(root=str(corpus), vocabulary=VocabularySettings(size=60)))
    model = TransformerSettings(width=16, hidden=16, heads=2, encoder_layers=1, decoder_layers=1, dropout=0.1)
    settings = TrainSettings(
        epochs=3,
        batch_tokens=100,
        optimizer=OptimizerSettings(name="adam", lr=0.01),
        lr_schedule=LrSchedule(name="inverse_sqrt", warmup_epochs=0.5),
        label_smoothing=0.1,
        average=average,
        average_share=0.8,  # so that the average of two inputs is evaluated too, and taken up
    )

    def trained(folder: Path, seed: int, stop_after: int | None) -> tuple[SparseNet, int]:
        network = instantiate(model, interface=task.interface, seed=seed)
        targets = Targets(weights=prunable_weights(network))
        net = SparseNet(network, TargetedSettings(gamma=0.5, alpha=0.5).build(targets, network))
        asked = iter(range(10**6))

        def stop() -> int | None:
            return 15 if next(asked) == stop_after else None

        result = train(net, task.train_set(0), task.test_set(), settings, seed=5, device=CPU, folder=folder, should_stop=stop)
        return net, result.resumed_from_step

    steps = task.train_set(0).loader(settings, seed=5, world=World()).steps_per_epoch
    assert steps > 3
    whole, _ = trained(tmp_path / "whole", 0, None)
    with pytest.raises(InterruptedRun):
        trained(tmp_path / "parts", 0, steps + 4)
    again, resumed = trained(tmp_path / "parts", 7, None)
    assert resumed % steps != 0
    for (name, one), other in zip(whole.plain().state_dict().items(), again.plain().state_dict().values(), strict=True):
        assert torch.equal(one, other), name
