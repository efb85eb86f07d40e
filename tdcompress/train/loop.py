"""The training loop: epochs of optimizer steps, metrics as JSON lines, exact resume, and a stop within one step."""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tdcompress.errors import ArtifactError, InterruptedRun, TrainingError, UserError
from tdcompress.files import write_text
from tdcompress.methods.base import Step
from tdcompress.methods.wrapper import SparseNet
from tdcompress.train import checkpoint
from tdcompress.train.evaluate import accuracy, autocast
from tdcompress.train.samples import TrainData, derived_seed, epoch_order
from tdcompress.train.settings import TrainSettings
from tdcompress.train.state import load_tensors, state_tensors
from tdcompress.train.update import FrozenZeros, Updater

__all__ = ["Progress", "TrainData", "TrainResult", "TrainSettings", "train"]

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
_EVALUATION_BATCH = 500
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a training stands, after every step.

    Attributes:
        step: optimizer steps done.
        steps: of the whole training.
        epoch: the epoch that runs, from 1.
        epochs: of the whole training.
        loss: of this step, with the method's penalty.
        images_per_second: over the epoch so far.
        seconds_left: until the last step, evaluation not counted.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training was.

    Attributes:
        epochs: done.
        steps: optimizer steps done.
        seconds: in training steps, over all resumed parts.
        images_per_second: over all of them.
        loss: mean of the last epoch.
        train_accuracy: of the last epoch, on augmented samples while the weights changed.
        test_accuracy: after the last epoch, in float32, with the method's deployed parameters.
        resumed_from_step: steps that an earlier process had done; 0 = none.
        history: the lines of metrics.jsonl.
    """

    epochs: int
    steps: int
    seconds: float
    images_per_second: float
    loss: float | None
    train_accuracy: float | None
    test_accuracy: float
    resumed_from_step: int
    history: tuple[Mapping[str, Any], ...]


@dataclass
class _Counters:
    """What changes from step to step beside tensors; saved in the checkpoint's header as it is."""

    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def train(
    net: SparseNet,
    data: TrainData,
    test: TrainData,
    settings: TrainSettings,
    *,
    seed: int,
    device: torch.device,
    folder: Path,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], int | None] = lambda: None,
    keep: Mapping[str, Tensor] | None = None,
    checkpoint_seconds: float = 30.0,
) -> TrainResult:
    """Train a network in place, going on from the newest checkpoint in ``folder`` if there is one.

    On a CPU a training that was killed and started again ends with the same bits as one that was not. Two numbers of the metrics
    tell of time and so differ: seconds and images_per_second.

    Args:
        net: the network with its method; moved to ``device``, and left in eval mode.
        data: training samples.
        test: samples whose accuracy the metrics report.
        settings: the recipe's [train].
        seed: of the order of samples, augmentation, the method's draws and the network's own dropout.
        device: where to train.
        folder: gets ``metrics.jsonl`` (a line for each epoch) and ``checkpoints/``.
        progress: called after each step.
        should_stop: called before each step and each batch of an evaluation; a signal number stops the training.
        keep: by parameter name of the network, True = trained; the other entries are zero from now on (finetuning).
        checkpoint_seconds: time between checkpoints; one more is written at the end, and one when stopped.

    Returns:
        Counts, times and the metrics of every epoch.

    Raises:
        InterruptedRun: ``should_stop`` gave a signal; the state is saved.
        TrainingError: a loss or gradient that is not finite (before the update), or no memory.
        UserError: fewer training samples than one batch.
        ArtifactError: the checkpoint in ``folder`` is of another training.
    """
    if len(data) < settings.batch_size:
        raise UserError(f"train.batch_size: {settings.batch_size}, but there are only {len(data)} training samples")
    with _own_randomness(seed, device), _named_memory_errors(settings):
        run = _Run(net.to(device), data.to(device), test.to(device), settings, seed, device, folder, keep)
        return run.loop(progress, should_stop, checkpoint_seconds)


class _Run:
    """One training in one process: the objects that a step needs."""

    def __init__(
        self,
        net: SparseNet,
        data: TrainData,
        test: TrainData,
        settings: TrainSettings,
        seed: int,
        device: torch.device,
        folder: Path,
        keep: Mapping[str, Tensor] | None,
    ) -> None:
        self.net, self.data, self.test = net, data, test
        self.settings, self.seed, self.device, self.folder = settings, seed, device, folder
        self.steps_per_epoch = len(data) // settings.batch_size
        self.steps = settings.epochs * self.steps_per_epoch
        self.forward: Callable[[Tensor], Tensor] = torch.compile(net) if settings.compile else net
        self.generators = {name: torch.Generator(device).manual_seed(derived_seed(seed, name)) for name in ("augment", "method")}
        self.optimizer = settings.optimizer.build(net)
        frozen = None if keep is None else FrozenZeros(net.parameters_by_name(), keep)
        self.updater = Updater(net, self.optimizer, l2=settings.l2, clip_norm=settings.clip_norm, frozen=frozen)
        self.counters = _Counters()
        self.identity = self._identity(keep)
        self.resume()
        if frozen is not None:
            frozen.clear()

    def loop(
        self,
        progress: Callable[[Progress], None] | None,
        should_stop: Callable[[], int | None],
        checkpoint_seconds: float,
    ) -> TrainResult:
        resumed_from, now = self.counters.step, self.counters
        saved_at = time.monotonic()

        def stop_if_asked() -> None:
            signal_number = should_stop()
            if signal_number is not None:
                self.save()
                raise InterruptedRun(
                    f"stopped after step {now.step} of {self.steps}; saved in {self.folder}: start again to go on", signal_number
                )

        order, order_epoch = torch.empty(0, dtype=torch.int64), -1
        while True:
            stop_if_asked()
            epoch, position = divmod(now.step, self.steps_per_epoch)
            if position == 0 and len(now.history) < epoch:
                self.end_epoch(epoch, stop_if_asked)
                continue
            if now.step == self.steps:
                break
            if order_epoch != epoch:
                order, order_epoch = epoch_order(len(self.data), self.seed, epoch).to(self.device), epoch
            batch = order[position * self.settings.batch_size : (position + 1) * self.settings.batch_size]
            loss = self.step(batch)
            if progress is not None:
                progress(self.describe(epoch, position + 1, loss))
            if time.monotonic() - saved_at >= checkpoint_seconds:
                self.save()
                saved_at = time.monotonic()
        self.net.eval()
        self.save()
        return self.result(resumed_from, stop_if_asked)

    def step(self, batch: Tensor) -> float:
        """One optimizer step on the samples of these indices; returns its loss."""
        began = time.perf_counter()
        now, settings = self.counters, self.settings
        self.net.train()
        moment = now.step / self.steps_per_epoch
        self.net.begin_step(Step(epoch=moment, index=now.step, train_size=len(self.data)), self.generators["method"])
        pixels, labels = self.data.pixels[batch], self.data.labels[batch]
        if self.data.augment is not None:
            pixels = self.data.augment(pixels, self.generators["augment"])
        loss = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device)
        for part, target in zip(pixels.chunk(settings.accumulate), labels.chunk(settings.accumulate), strict=True):
            part_loss, part_correct = self.backward(part, target)
            loss, correct = loss + part_loss, correct + part_correct
        where = f"step {now.step + 1} (epoch {int(moment) + 1})"
        loss_value, correct_value = self.updater.apply(torch.stack([loss, correct]), self.lr(), where)
        self.net.end_step()
        now.step += 1
        now.loss_sum += loss_value
        now.correct += int(correct_value)
        seconds = time.perf_counter() - began
        now.epoch_seconds += seconds
        now.seconds += seconds
        return loss_value

    def backward(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Add a micro-batch's share of the gradient; returns its share of the mean loss, and how many were right."""
        images = self.data.preprocess(pixels)
        # The images' order decides every layer's. Weights keep theirs, so that checkpoints and selection see plain memory.
        order = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        images = images.contiguous(memory_format=order)
        with autocast(self.device, self.settings.precision):
            logits = self.forward(images).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)
        penalty = self.net.penalty()
        share = (loss if penalty is None else loss + penalty) / self.settings.accumulate
        torch.autograd.backward(share)
        return share.detach(), (logits.detach().argmax(1) == labels).sum()

    def lr(self) -> float:
        """The learning rate of the next step."""
        factor = self.settings.lr_schedule.factor(self.counters.step, self.steps_per_epoch, self.settings.epochs)
        return self.settings.optimizer.lr * factor

    def end_epoch(self, epoch: int, stop_if_asked: Callable[[], None]) -> None:
        """Measure, write the epoch's line, start new sums."""
        now = self.counters
        images = self.steps_per_epoch * self.settings.batch_size
        line: dict[str, Any] = {"epoch": epoch, "step": now.step, "loss": now.loss_sum / self.steps_per_epoch}
        line["train_accuracy"] = now.correct / images
        if epoch % self.settings.evaluate_every == 0 or now.step == self.steps:
            line["test_accuracy"] = self.test_accuracy(stop_if_asked)
        line["lr"] = self.settings.optimizer.lr * self.settings.lr_schedule.factor(
            now.step - 1, self.steps_per_epoch, self.settings.epochs
        )
        line |= self.net.method.numbers((now.step - 1) / self.steps_per_epoch)
        line["images_per_second"] = round(images / now.epoch_seconds, 1)
        line["seconds"] = round(now.epoch_seconds, 3)
        now.history.append(line)
        now.loss_sum, now.correct, now.epoch_seconds = 0.0, 0, 0.0
        self.write_metrics()

    def test_accuracy(self, stop_if_asked: Callable[[], None]) -> float:
        """Of the deployed parameters, in float32."""
        return accuracy(self.net, self.test, _EVALUATION_BATCH, self.device, between=stop_if_asked)

    def describe(self, epoch: int, done: int, loss: float) -> Progress:
        """The numbers that a progress display shows."""
        now = self.counters
        return Progress(
            step=now.step,
            steps=self.steps,
            epoch=epoch + 1,
            epochs=self.settings.epochs,
            loss=loss,
            images_per_second=done * self.settings.batch_size / now.epoch_seconds,
            seconds_left=(self.steps - now.step) * now.epoch_seconds / done,
        )

    def write_metrics(self) -> None:
        """Publish metrics.jsonl as the history has it, so that it never holds a line of steps that were lost."""
        lines = "".join(json.dumps(line, allow_nan=False) + "\n" for line in self.counters.history)
        write_text(self.folder / METRICS, lines)

    def save(self) -> None:
        """Write a checkpoint of this moment, between two steps."""
        header = {"identity": self.identity, "counters": dataclasses.asdict(self.counters)}
        tensors = state_tensors(self.net, self.optimizer, self.generators, self.device)
        content = checkpoint.Checkpoint(step=self.counters.step, tensors=tensors, header=header)
        checkpoint.write(self.folder / CHECKPOINTS, content)

    def resume(self) -> None:
        """Take up the newest complete checkpoint."""
        found = checkpoint.read_newest(self.folder / CHECKPOINTS)
        if found is None:
            return
        if found.header["identity"] != self.identity:
            raise ArtifactError(
                f"{self.folder / CHECKPOINTS} is of another training (settings, seed or data differ): remove it to train anew"
            )
        load_tensors(found.tensors, self.net, self.optimizer, self.generators, self.device)
        self.counters = _Counters(**found.header["counters"])
        self.write_metrics()
        _log.info("going on after step %d of %d", self.counters.step, self.steps)

    def result(self, resumed_from: int, stop_if_asked: Callable[[], None]) -> TrainResult:
        """The last epoch's line, and the sums."""
        now = self.counters
        last = now.history[-1] if now.history else {}
        seen = now.step * self.settings.batch_size
        return TrainResult(
            epochs=len(now.history),
            steps=now.step,
            seconds=now.seconds,
            images_per_second=seen / now.seconds if now.seconds else 0.0,
            loss=last.get("loss"),
            train_accuracy=last.get("train_accuracy"),
            test_accuracy=last["test_accuracy"] if last else self.test_accuracy(stop_if_asked),
            resumed_from_step=resumed_from,
            history=tuple(now.history),
        )

    def _identity(self, keep: Mapping[str, Tensor] | None) -> str:
        """A hash of what must be the same for a checkpoint to go on: settings, seed, number of samples, frozen masks."""
        facts = [dataclasses.asdict(self.settings), self.seed, len(self.data), sorted(keep or {})]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for _, mask in sorted((keep or {}).items()):
            digest.update(mask.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, which nn.Dropout draws from, and give them back as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        # not torch.manual_seed, which would seed GPUs that this training does not use
        torch.default_generator.manual_seed(derived_seed(seed, "network"))
        if device.type == "cuda":
            torch.cuda.manual_seed(derived_seed(seed, "network"))
        yield


@contextmanager
def _named_memory_errors(settings: TrainSettings) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _no_memory(settings) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise _no_memory(settings) from error


def _no_memory(settings: TrainSettings) -> TrainingError:
    return TrainingError(
        f"out of memory with train.batch_size = {settings.batch_size} and train.accumulate = {settings.accumulate}: "
        "raise accumulate (same result, less memory) or lower batch_size"
    )
