"""A second task, defined here alone, goes through the same stages: nothing in loop, stages and report asks for images.

Sequences of 3 to 6 digits; their mean is to be said. Batches hold sequences of one length and so many tokens, and the step's
micro-batches differ in weight, as those of translations do.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdcompress.data.base import DataSettings
from tdcompress.data.registry import DATASETS
from tdcompress.errors import ModelError, VerificationError
from tdcompress.methods.base import Method
from tdcompress.methods.wrapper import SparseNet
from tdcompress.models.base import ModelSettings, NetworkInterface, require_interface
from tdcompress.models.mlp import MlpSettings
from tdcompress.models.registry import MODELS
from tdcompress.records.measures import Measure
from tdcompress.seeds import derived_seed
from tdcompress.sparsity.units import Targets
from tdcompress.tasks.base import ExportPart, ExportSet, FileMeasure, LearningTask
from tdcompress.tasks.registry import TASKS
from tdcompress.train.loop import TrainSettings, train
from tdcompress.train.optim import OptimizerSettings

CPU = torch.device("cpu")
TOKENS = 24  # of a step


@dataclasses.dataclass(frozen=True)
class Sequences:
    """One (N, L) int64 tensor for each length."""

    name: str
    by_length: tuple[Tensor, ...]


@dataclasses.dataclass(frozen=True)
class MeansBatch:
    tokens: Tensor
    parts: float

    def loss(self, network: Callable[..., Tensor], lesson: None) -> tuple[Tensor, Tensor]:
        assert lesson is None
        said, wanted = network(self.tokens), self.tokens.float().mean(1)
        return F.mse_loss(said, wanted), ((said.detach() - wanted).abs() < 0.5).sum() * self.tokens.shape[1]


class BucketLoader:
    """Steps of one length and TOKENS tokens at most, in an order of each epoch's own; a step has two unequal micro-batches."""

    table = None

    def __init__(self, data: Sequences, settings: TrainSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.steps = [part for rows in data.by_length for part in rows.split(TOKENS // rows.shape[1])]

    @property
    def steps_per_epoch(self) -> int:
        return len(self.steps)

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
        return torch.randperm(len(self.steps), generator=generator).tolist()

    def units(self, epoch: int, first: int, last: int) -> int:
        return sum(self.steps[index].numel() for index in self._order(epoch)[first:last])

    def step(self, epoch: int, index: int, generator: torch.Generator) -> list[MeansBatch]:
        rows = self.steps[self._order(epoch)[index]]
        pieces = rows.tensor_split([len(rows) // 3]) if self.settings.accumulate > 1 and len(rows) > 2 else (rows,)
        return [MeansBatch(tokens=piece, parts=len(rows) / len(piece)) for piece in pieces]


@dataclasses.dataclass(frozen=True)
class Means:
    """Training or test samples."""

    data: Sequences
    unit: ClassVar[str] = "tokens"

    def __len__(self) -> int:
        return sum(map(len, self.data.by_length))

    def to(self, device: torch.device) -> "Means":
        return self

    @property
    def units(self) -> int:
        return sum(rows.numel() for rows in self.data.by_length)

    def loader(self, settings: TrainSettings, *, seed: int, world: Any) -> BucketLoader:
        return BucketLoader(self.data, settings, seed)

    def first(self, settings: TrainSettings, world: Any) -> MeansBatch:
        return MeansBatch(tokens=self.data.by_length[0][:4], parts=1)

    def every(self, stride: int, first: int) -> "Means":
        return Means(dataclasses.replace(self.data, by_length=tuple(rows[first::stride] for rows in self.data.by_length)))

    def count_right(self, network: Callable[..., Tensor], device: torch.device, *, between: Any = None) -> int:
        right = 0
        for rows in self.data.by_length:
            if between is not None:
                between()
            with torch.no_grad():
                right += int(MeansBatch(tokens=rows, parts=1).loss(network, None)[1])
        return right


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokensToNumber(NetworkInterface):
    kind: ClassVar[str] = "sequences of digits"
    vocabulary: int


class MeanTask(LearningTask):
    name = "mean"
    measure = Measure(name="R2")

    def __init__(self, data: Sequences) -> None:
        self.data = data

    @property
    def interface(self) -> TokensToNumber:
        return TokensToNumber(vocabulary=10)

    @property
    def test_samples(self) -> int:
        return len(self.test_set())

    def train_set(self, seed: int) -> Means:
        return Means(self.data)

    def test_set(self) -> Means:
        return Means(self.data)

    def examples(self, count: int = 2) -> tuple[Tensor, ...]:
        return (self.data.by_length[1][:count],)

    def training_batches(self, seed: int, count: int, device: torch.device, *, augmented: bool) -> list[tuple[Tensor, ...]]:
        return [(rows,) for rows in self.data.by_length]

    def measured(self, network: nn.Module, device: torch.device) -> float:
        with torch.no_grad():
            return self.score(network.eval())

    def score(self, said: Callable[[Tensor], Any]) -> float:
        wanted = torch.cat([rows.float().mean(1) for rows in self.data.by_length])
        given = torch.cat([torch.as_tensor(said(rows)) for rows in self.data.by_length])
        return max(0.0, 1.0 - float((given - wanted).square().sum() / (wanted - wanted.mean()).square().sum()))

    def loss_batches(self, size: int, device: torch.device) -> list[tuple[tuple[Tensor, ...], Tensor]]:
        return [((rows,), rows.double().mean(1)) for rows in self.data.by_length]

    def summed_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs, targets, reduction="sum")

    def exports(self, network: nn.Module, *, pixels: bool) -> ExportSet:
        assert not pixels
        part = ExportPart(
            file="model.onnx",
            module=network,
            samples=(self.data.by_length[1][:20],),
            axes=({0: "batch", 1: "length"},),
            others=((self.data.by_length[3][:7],), (self.data.by_length[0][:1],)),
            calibration=lambda: (self.data.by_length[1],),
        )

        def measured(files: Any, expected: float | None, said: Callable[[int, int], None]) -> FileMeasure:
            said(0, 1)
            found = self.score(files["model.onnx"])
            if expected is not None and abs(found - expected) > 1e-4:
                raise VerificationError("model.onnx: another R2")
            return FileMeasure(accuracy=found)

        return ExportSet(parts=(part,), facts={"digits": 10}, measured=measured, extras={"vocabulary.txt": b"0123456789"})


class MeanNet(nn.Module):
    unprunable = ("head",)

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.hidden = nn.Linear(width, 32)
        self.head = nn.Linear(32, 1)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(self.embed(tokens_BL).mean(1)))).squeeze(1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanNetSettings(ModelSettings):
    name: ClassVar[str] = "mean_net"
    width: int = 16

    def build(self, interface: NetworkInterface) -> nn.Module:
        return MeanNet(require_interface(self.name, interface, TokensToNumber).vocabulary, self.width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitSequences(DataSettings):
    name: ClassVar[str] = "digit_sequences"
    task: ClassVar[str] = "mean"

    def load(self) -> Sequences:
        generator = torch.Generator().manual_seed(0)
        return Sequences(self.name, tuple(torch.randint(0, 10, (50, length), generator=generator) for length in (3, 4, 5, 6)))

    def content_hash(self, hash_file: Any = None) -> str:
        return "digits of seed 0"


RECIPE = """
name = "means"

[data]
name = "digit_sequences"

[model]
name = "mean_net"

[train]
epochs = 8
optimizer = { name = "adam", lr = 0.01 }

[prune]

[bench]
budget = "none"

[[sweep.case]]
"sparsity.method" = "none"
"prune.fraction" = 0.0

[[sweep.case]]
"sparsity.method" = "targeted"
"sparsity.gamma" = 0.5
"sparsity.alpha" = 0.5
"prune.fraction" = 0.25

[[sweep.case]]
"sparsity.method" = "targeted"
"sparsity.granularity" = "unit"
"sparsity.gamma" = 0.5
"sparsity.alpha" = 0.5
"prune.fraction" = 0.5
"finetune.epochs" = 1
"""


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, DigitSequences.name, DigitSequences)  # type: ignore[arg-type]
    monkeypatch.setitem(MODELS, MeanNetSettings.name, MeanNetSettings)  # type: ignore[arg-type]
    monkeypatch.setitem(TASKS, MeanTask.name, MeanTask)  # type: ignore[arg-type]


@pytest.mark.usefixtures("registered")
def test_a_recipe_of_another_task_runs_to_its_report(run_text: Any, tmp_path: Any) -> None:
    finished, watcher = run_text(RECIPE, tmp_path)
    assert {"train", "prune", "finetune", "shrink", "store", "export"} <= set(watcher.made)
    untargeted, weights, units = finished.report.rows
    assert untargeted.accuracy_onnx > 0.9
    for form in (weights.accuracy_masked, weights.accuracy_stored, units.accuracy_finetuned, units.accuracy_shrunk):
        assert form is not None
    assert weights.accuracy_onnx == pytest.approx(weights.accuracy_stored, abs=1e-4)
    assert units.accuracy_onnx == pytest.approx(units.accuracy_finetuned, abs=1e-4)
    assert finished.report.measure == MeanTask.measure
    assert finished.report.classes == ()
    records = [json.loads(path.read_text())["record"] for path in tmp_path.glob("stages/*/*/manifest.json")]
    assert all(record["measure"]["name"] == "R2" for record in records)
    trained = [record for record in records if "epochs" in record]
    assert trained
    assert all(record["tokens_per_second"] > 0 and "images_per_second" not in record for record in trained)
    lines = (next(tmp_path.glob("stages/train/*/metrics.jsonl"))).read_text().splitlines()
    assert {"tokens_per_second", "train_accuracy", "test_accuracy"} <= set(json.loads(lines[-1]))
    written = (tmp_path / "means" / "report.md").read_text()
    assert "R2" in written
    assert "accuracy" not in written.replace("(accuracy.png)", "").lower()  # a plot's file keeps its name
    exported = next(tmp_path.glob("stages/export/*"))
    assert (exported / "vocabulary.txt").read_bytes() == b"0123456789"


def test_unequal_micro_batches_give_the_training_of_whole_steps(tmp_path: Any) -> None:
    nets = []
    for accumulate in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = SparseNet(MeanNet(10, 8), Method(Targets(weights=())))
        samples = Means(DigitSequences().load())
        settings = TrainSettings(epochs=3, optimizer=OptimizerSettings(lr=0.02), accumulate=accumulate)
        train(net, samples, samples, settings, seed=1, device=CPU, folder=tmp_path / str(accumulate))
        nets.append(net)
    torch.testing.assert_close(nets[1].state_dict(), nets[0].state_dict(), rtol=1e-4, atol=1e-6)


def test_a_network_of_another_kind_is_refused_by_name() -> None:
    task = MeanTask(DigitSequences().load())
    with pytest.raises(ModelError, match="mlp takes images with classes, and the data are sequences of digits"):
        MlpSettings().build(task.interface)
