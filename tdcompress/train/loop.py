"""The training loop: epochs of optimizer steps, metrics as JSON lines, exact resume, and a stop within one step."""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from tdcompress.errors import ArtifactError, InterruptedRun, TrainingError, UserError
from tdcompress.files import write_text
from tdcompress.methods.wrapper import SparseNet
from tdcompress.train import checkpoint
from tdcompress.train.average import RunningAverage
from tdcompress.train.batchnorm import synchronised
from tdcompress.train.distill import Teacher
from tdcompress.train.distributed import World
from tdcompress.train.evaluate import count_correct
from tdcompress.train.fast.path import FastPath, Mode
from tdcompress.train.finite import FiniteWatch
from tdcompress.train.manner import Manner, settle
from tdcompress.train.paths import Asked, PathName, ReferencePath, StepPath, choose_path
from tdcompress.train.result import Counters, TrainingProgress, TrainResult
from tdcompress.train.samples import TrainData
from tdcompress.train.saved import CHECKPOINTS
from tdcompress.train.settings import TrainSettings
from tdcompress.train.state import load_tensors, state_tensors
from tdcompress.train.step import Stepper
from tdcompress.train.threads import computing_with
from tdcompress.train.together import alone, share
from tdcompress.train.update import FrozenZeros, Updater

__all__ = ["TrainData", "TrainResult", "TrainSettings", "TrainingProgress", "train"]

METRICS = "metrics.jsonl"
STEPS_AT_ONCE = 16  # between looks at signals, on a path that makes several steps at once
_EVALUATION_BATCH = 500
_log = logging.getLogger(__name__)


def train(
    net: SparseNet,
    data: TrainData,
    test: TrainData,
    settings: TrainSettings,
    *,
    seed: int,
    device: torch.device,
    folder: Path,
    progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], int | None] = lambda: None,
    keep: Mapping[str, Tensor] | None = None,
    path: Asked = "auto",
    teacher: Teacher | None = None,
    checkpoint_seconds: float = 30.0,
) -> TrainResult:
    """Train a network in place, going on from the newest checkpoint in ``folder`` if there is one.

    On a CPU a training that was killed and started again ends with the same bits as one that was not. Two numbers of the metrics
    tell of time and so differ: seconds and images_per_second. Under torchrun every process calls this (see `distributed`).
    Of several threads one trains at a time, unless its step draws from generators of its own (see `together`).

    Args:
        net: the network with its method; moved to ``device``, and left in eval mode.
        data: training samples.
        test: samples whose accuracy the metrics report.
        settings: the recipe's [train].
        seed: of the order of samples, augmentation, the method's draws and the network's own dropout.
        device: where to train.
        folder: gets ``metrics.jsonl`` (a line for each epoch) and ``checkpoints/``.
        progress: called after each step or, on the fast path, after some, in the first process.
        should_stop: called before each step and each batch of an evaluation; a signal number stops the training, in several
            processes all of them after the same step.
        keep: by parameter name of the network, True = trained; the other entries are zero from now on (finetuning).
        path: how the steps are made (`tdcompress.train.paths`).
        teacher: a network that this one also learns from; moved to ``device``.
        checkpoint_seconds: time between checkpoints; one more is written at the end, and one when stopped.

    Returns:
        Counts, times and the metrics of every epoch.

    Raises:
        InterruptedRun: ``should_stop`` gave a signal; the state is saved.
        TrainingError: a loss or gradient that is not finite (before the update), a parameter or buffer that is not (before it is
            saved or measured), or no memory.
        UserError: fewer training samples than one batch, or a batch that micro-batches and processes do not divide.
        ArtifactError: the checkpoint in ``folder`` is of another training.
    """
    world = World.current()
    if len(data) < settings.batch_size:
        raise UserError(f"train.batch_size: {settings.batch_size}, but there are only {len(data)} training samples")
    if settings.batch_size % (settings.accumulate * world.size):
        raise UserError(
            f"train.batch_size: {settings.accumulate} micro-batches in each of {world.size} processes "
            f"do not divide {settings.batch_size}"
        )
    found = _newest(folder, world)
    begun = found.header["manner"] if found else None
    with alone(device), _named_memory_errors(settings):
        net, data, test = net.to(device), data.to(device), test.to(device)
        manner = settle(settings, begun, net.model, data, device=device, world=world)
        with computing_with(manner.threads, device):
            run = _Run(net, data, test, settings, seed, device, folder, keep, world, path, found, manner, should_stop, teacher)
            with synchronised(net, world) if settings.sync_batchnorm else nullcontext():
                return run.loop(progress, checkpoint_seconds)


class _Run:
    """One training in one process: where it stands, what it tells, what it saves."""

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
        world: World,
        path: Asked,
        found: checkpoint.Checkpoint | None,
        manner: Manner,
        should_stop: Callable[[], int | None],
        teacher: Teacher | None,
    ) -> None:
        self.should_stop = should_stop
        self.teacher = None if teacher is None else teacher.to(device)
        self.net, self.data, self.test, self.settings = net, data, test, settings
        self.seed, self.device, self.folder, self.world, self.manner = seed, device, folder, world, manner
        self.steps_per_epoch = len(data) // settings.batch_size
        self.steps = settings.epochs * self.steps_per_epoch
        self.counters = Counters()
        self.identity = _identity(settings, seed, len(data), keep, teacher)
        self.optimizer = settings.optimizer.build(net, method_lr_scale=net.method.lr_scale)
        self.watch = FiniteWatch(net)
        self.average = RunningAverage(net, settings.averaging(), self.steps)
        if unreached := settings.lr_schedule.unreached(self.steps_per_epoch, settings.epochs):
            _log.warning("train.%s", unreached)
        begun = None if found is None else self.take_up(found)
        self.choice = choose_path(path, begun, net, settings, device=device, world=world, keep=keep)
        _log.info("training on the %s path (%s), %s", self.choice.name, self.choice.reason, "; ".join(manner.notes))
        self.stepper: Stepper | None = None
        self.path = self.fast_path() if self.choice.name == "fast" else self.reference_path(keep)

    def reference_path(self, keep: Mapping[str, Tensor] | None) -> StepPath:
        """Step by step."""
        net, settings, seed, device = self.net, self.settings, self.seed, self.device
        frozen = None if keep is None else FrozenZeros(net.parameters_by_name(), keep)
        updater = Updater(net, self.optimizer, l2=settings.l2, clip_norm=settings.clip_norm, frozen=frozen)
        self.stepper = Stepper(
            net,
            self.data,
            settings,
            updater,
            precision=self.manner.precision,
            seed=seed,
            device=device,
            world=self.world,
            asked=self.should_stop,
            teacher=self.teacher,
        )
        return ReferencePath(self.stepper, len(self.data), settings, seed=seed, device=device, lr=self.lr, average=self.average)

    def fast_path(self) -> StepPath:
        """An epoch on the device."""
        mode: Mode = "compiled" if self.device.type == "cuda" or self.settings.compile else "direct"
        path = FastPath(
            self.net,
            self.data,
            self.settings,
            self.optimizer,
            self.average,
            precision=self.manner.precision,
            seed=self.seed,
            device=self.device,
            lr=self.lr,
            mode=mode,
            teacher=self.teacher,
        )
        share()  # compiled, captured, and with generators of its own: other threads may go on
        return path

    def loop(
        self,
        progress: Callable[[TrainingProgress], None] | None,
        checkpoint_seconds: float,
    ) -> TrainResult:
        now, resumed_from = self.counters, self.counters.step
        saved_at = time.monotonic()

        def stop_if_asked() -> None:
            signal_number = self.asked()
            if signal_number is not None:
                self.save()
                raise InterruptedRun(
                    f"stopped after step {now.step} of {self.steps}; saved in {self.folder}: start again to go on", signal_number
                )

        running = -1
        while True:
            stop_if_asked()
            epoch, position = divmod(now.step, self.steps_per_epoch)
            if position == 0 and len(now.history) < epoch:
                self.end_epoch(epoch, stop_if_asked)
                continue
            if now.step == self.steps:
                break
            if running != epoch:
                self.path.begin_epoch(epoch, position)
                running = epoch
            with self.timed():
                now.step += self.path.advance(STEPS_AT_ONCE)
            if progress is not None and self.world.first:
                progress(self.describe(epoch))
            if time.monotonic() - saved_at >= checkpoint_seconds:
                self.save()
                saved_at = time.monotonic()
        self.net.eval()
        self.save()
        if self.average.begun(now.step):
            self.average.finish()
        return self.result(resumed_from, stop_if_asked)

    def asked(self) -> int | None:
        """The signal that asks for an end; of several processes the one that all of them know of since the last step."""
        if self.world.size == 1:
            return self.should_stop()
        return self.stepper.agreed if self.stepper else None

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the block's seconds as training."""
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self.counters.epoch_seconds += seconds
        self.counters.seconds += seconds

    def collect(self) -> None:
        """Bring the counters and the network up to the last step; a network that is not finite goes no further.

        Raises:
            TrainingError: the loss, a gradient, a parameter or a buffer is not finite.
        """
        now = self.counters
        with self.timed():
            loss, correct = self.path.collect(f"step {now.step}, epoch {len(now.history) + 1}")
        now.loss_sum += loss
        now.correct += correct
        self.path.store()
        self.watch.check(f"step {now.step}, epoch {len(now.history) + 1}")

    def lr(self, step: int) -> float:
        """The learning rate of the step with ``step`` steps before it."""
        return self.settings.optimizer.lr * self.settings.lr_schedule.factor(step, self.steps_per_epoch, self.settings.epochs)

    def end_epoch(self, epoch: int, stop_if_asked: Callable[[], None]) -> None:
        """Measure, write the epoch's line, start new sums."""
        now = self.counters
        self.collect()
        images = self.steps_per_epoch * self.settings.batch_size
        line: dict[str, Any] = {"epoch": epoch, "step": now.step, "loss": now.loss_sum / self.steps_per_epoch}
        line["train_accuracy"] = now.correct / images
        if epoch % self.settings.evaluate_every == 0 or now.step == self.steps:
            line["test_accuracy"] = self.test_accuracy(stop_if_asked)
        line["lr"] = self.lr(now.step - 1)
        line["precision"] = self.manner.precision
        line |= self.net.method.metrics((now.step - 1) / self.steps_per_epoch)
        line["images_per_second"] = round(images / now.epoch_seconds, 1)
        line["seconds"] = round(now.epoch_seconds, 3)
        now.history.append(line)
        now.loss_sum, now.correct, now.epoch_seconds = 0.0, 0, 0.0
        self.write_metrics()

    def test_accuracy(self, stop_if_asked: Callable[[], None]) -> float:
        """Of the deployed parameters, or of their average once there is one, in float32; each process measures its part."""
        self.net.eval()
        evaluated: Callable[[Tensor], Tensor] = self.net
        if self.average.begun(self.counters.step):
            averaged = self.average.tensors()
            evaluated = partial(functional_call, self.net, averaged)
            self.world.share(averaged.values())
        else:
            self.world.share(self.net.buffers())
        part = self.test.every(self.world.size, self.world.rank)
        # parts differ in length, and processes agree to stop between steps only
        between = stop_if_asked if self.world.size == 1 else None
        correct = count_correct(evaluated, part, _EVALUATION_BATCH, self.device, between=between)
        return int(self.world.total(torch.tensor(correct, device=self.device))) / len(self.test)

    def describe(self, epoch: int) -> TrainingProgress:
        """The numbers that a progress display shows."""
        now = self.counters
        done = now.step - epoch * self.steps_per_epoch
        return TrainingProgress(
            step=now.step,
            steps=self.steps,
            epoch=epoch + 1,
            epochs=self.settings.epochs,
            loss=self.path.loss,
            precision=self.manner.precision,
            images_per_second=done * self.settings.batch_size / now.epoch_seconds,
        )

    def write_metrics(self) -> None:
        """Publish metrics.jsonl as the history has it, so that it never holds a line of steps that were lost."""
        if self.world.first:
            lines = "".join(json.dumps(line, allow_nan=False) + "\n" for line in self.counters.history)
            write_text(self.folder / METRICS, lines)

    def save(self) -> None:
        """Write a checkpoint of this moment, between two steps."""
        self.collect()
        if self.world.first:
            counters = dataclasses.asdict(self.counters)
            header = {
                "identity": self.identity,
                "counters": counters,
                "path": self.choice.name,
                "manner": self.manner.header(),
                "processes": self.world.size,
            }
            tensors = state_tensors(self.net, self.optimizer) | self.average.state(self.counters.step)
            content = checkpoint.Checkpoint(step=self.counters.step, tensors=tensors, header=header)
            checkpoint.write(self.folder / CHECKPOINTS, content)

    def take_up(self, found: checkpoint.Checkpoint) -> PathName:
        """Go on from a checkpoint; returns the path that it is of."""
        if found.header["identity"] != self.identity:
            raise ArtifactError(
                f"{self.folder / CHECKPOINTS} is of another training (settings, seed or data differ): remove it to train anew"
            )
        if (processes := found.header["processes"]) != self.world.size:
            raise ArtifactError(
                f"{self.folder / CHECKPOINTS} is of a training in {processes} process{'es' * (processes > 1)}, and here are "
                f"{self.world.size}: go on with {processes} (torchrun --nproc-per-node), or remove it to train anew"
            )
        load_tensors(found.tensors, self.net, self.optimizer)
        self.counters = Counters(**found.header["counters"])
        self.average.load(found.tensors, found.step)
        self.write_metrics()
        _log.info("going on after step %d of %d", self.counters.step, self.steps)
        path: PathName = found.header["path"]
        return path

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
            precision=self.manner.precision,
            threads=self.manner.threads,
            notes=self.manner.notes,
            path=self.choice.name,
            path_reason=self.choice.reason,
            history=tuple(now.history),
        )


def _newest(folder: Path, world: World) -> checkpoint.Checkpoint | None:
    """The newest complete checkpoint, once what a killed process left half-written is removed."""
    with world.first_goes_first():
        if world.first:  # alone: a later sweep would take away what the first process is writing by then
            checkpoint.sweep(folder / CHECKPOINTS)
            for leftover in folder.glob(f".{METRICS}.*.tmp"):
                leftover.unlink()
        return checkpoint.read_newest(folder / CHECKPOINTS)


def _identity(
    settings: TrainSettings, seed: int, samples: int, keep: Mapping[str, Tensor] | None, teacher: Teacher | None
) -> str:
    """A hash of what must be the same for a checkpoint to go on: settings, seed, number of samples, frozen masks, teacher."""
    facts = [dataclasses.asdict(settings), seed, samples, sorted(keep or {})]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for _, mask in sorted((keep or {}).items()):
        digest.update(mask.cpu().contiguous().numpy().tobytes())
    if teacher is not None:
        digest.update(teacher.digest().encode())
    return digest.hexdigest()


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
