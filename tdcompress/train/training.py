"""The training loop in one process: epochs of optimizer steps, what is told of them, and a stop within one step."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdcompress.errors import InterruptedRun
from tdcompress.functional import functional_call
from tdcompress.methods.base import TrainStep
from tdcompress.methods.wrapper import SparseNet
from tdcompress.train import checkpoint
from tdcompress.train.average import RunningAverage
from tdcompress.train.data import TestSet, TrainSet
from tdcompress.train.distill import Lesson, Teacher
from tdcompress.train.distributed import World
from tdcompress.train.fast.path import FastPath, Mode
from tdcompress.train.finite import FiniteWatch
from tdcompress.train.manner import Manner
from tdcompress.train.paths import Asked, ReferencePath, StepPath, choose_path
from tdcompress.train.result import Counters, TrainingProgress, TrainResult
from tdcompress.train.settings import TrainSettings
from tdcompress.train.standing import Header, Standing, identity_of
from tdcompress.train.step import Stepper
from tdcompress.train.together import share
from tdcompress.train.update import FrozenZeros, Updater

STEPS_AT_ONCE = 16  # between looks at signals, on a path that makes several steps at once
_log = logging.getLogger(__name__)


class Training:
    """One training in one process: steps, epochs, and what it tells of them.

    Args:
        net: the network with its method.
        data: training samples.
        test: samples that the metrics tell of.
        settings: the recipe's [train].
        seed: of all that is drawn.
        device: where it trains.
        folder: gets metrics and checkpoints.
        keep: by parameter name, bool, of its shape, True = trained; None = all.
        world: the processes of this training.
        path: how steps are made.
        found: the checkpoint to go on from; None = it starts.
        manner: precision and threads.
        should_stop: gives the number of a signal, or None.
        teacher: a network to learn from, or None.
    """

    def __init__(
        self,
        net: SparseNet,
        data: TrainSet,
        test: TestSet,
        settings: TrainSettings,
        *,
        seed: int,
        device: torch.device,
        folder: Path,
        keep: Mapping[str, Tensor] | None,
        world: World,
        path: Asked,
        found: checkpoint.Checkpoint[Header] | None,
        manner: Manner,
        should_stop: Callable[[], int | None],
        teacher: Teacher | None,
    ) -> None:
        teacher = None if teacher is None else teacher.to(device)
        self.should_stop = should_stop
        self.lesson = None if teacher is None else Lesson(teacher=teacher, precision=manner.precision)
        self.net, self.data, self.test, self.settings = net, data, test, settings
        self.seed, self.device, self.folder, self.world, self.manner = seed, device, folder, world, manner
        self.loader = data.loader(settings, seed=seed, world=world)
        self.steps_per_epoch = self.loader.steps_per_epoch
        self.steps = settings.epochs * self.steps_per_epoch
        self.optimizer = settings.optimizer.build(net, method_lr_scale=net.method.lr_scale)
        self.watch = FiniteWatch(net, settings.lr_key)
        self.average = RunningAverage(net, settings.averaging(), self.steps)
        identity = identity_of(settings, seed, len(data), keep, teacher)
        self.standing = Standing(net, self.optimizer, self.average, folder=folder, identity=identity, manner=manner, world=world)
        if unreached := settings.lr_schedule.unreached(self.steps_per_epoch, settings.epochs):
            _log.warning("%s.%s", settings.lr_schedule_key, unreached)
        for unreached in (net.method.unreached(), net.method.missed(self.steps_per_epoch, settings.epochs)):
            if unreached:
                _log.warning("sparsity.%s", unreached)
        begun = None if found is None else self.standing.take_up(found)
        if begun is not None:
            _log.info("going on after step %d of %d", self.now.step, self.steps)
        self.choice = choose_path(path, begun, net, settings, self.loader, device=device, world=world, keep=keep)
        _log.info("training on the %s path (%s), %s", self.choice.name, self.choice.reason, "; ".join(manner.notes))
        self.stepper: Stepper | None = None
        self.path = self.fast_path() if self.choice.name == "fast" else self.reference_path(keep)

    @property
    def now(self) -> Counters:
        """Where it stands."""
        return self.standing.counters

    def reference_path(self, keep: Mapping[str, Tensor] | None) -> StepPath:
        """Step by step. ``keep``: bool by parameter name, of its shape, where a weight trains; None = everywhere."""
        net, settings = self.net, self.settings
        frozen = None if keep is None else FrozenZeros(net.parameters_by_name(), keep)
        updater = Updater(net, self.optimizer, settings, frozen=frozen)
        self.stepper = Stepper(
            net,
            self.loader,
            len(self.data),
            settings,
            updater,
            precision=self.manner.precision,
            seed=self.seed,
            device=self.device,
            world=self.world,
            asked=self.should_stop,
            lesson=self.lesson,
        )
        return ReferencePath(self.stepper, self.steps_per_epoch, lr=self.lr, average=self.average)

    def fast_path(self) -> StepPath:
        """An epoch on the device."""
        mode: Mode = "compiled" if self.device.type == "cuda" or self.settings.compile else "direct"
        path = FastPath(
            self.net,
            self.loader,
            self.settings,
            self.optimizer,
            self.average,
            precision=self.manner.precision,
            seed=self.seed,
            device=self.device,
            lr=self.lr,
            mode=mode,
            lesson=self.lesson,
        )
        share()  # compiled, captured, and with generators of its own: other threads may go on
        return path

    def loop(
        self,
        progress: Callable[[TrainingProgress], None] | None,
        checkpoint_seconds: float,
    ) -> TrainResult:
        """Make the steps that are left, and end the epochs between them; arguments and errors as of `train.loop.train`."""
        now, resumed_from = self.now, self.now.step
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
        self.now.epoch_seconds += seconds
        self.now.seconds += seconds

    def collect(self) -> None:
        """Bring the counters and the network up to the last step; a network that is not finite goes no further.

        Raises:
            TrainingError: the loss, a gradient, a parameter or a buffer is not finite.
        """
        now = self.now
        where = f"step {now.step}, epoch {len(now.history) + 1}"
        with self.timed():
            loss, correct = self.path.collect(where)
        now.loss_sum += loss
        now.correct += correct
        self.path.store()
        self.watch.check(where)

    def lr(self, step: int) -> float:
        """The learning rate of the step with ``step`` steps before it."""
        return self.settings.optimizer.lr * self.settings.lr_schedule.factor(step, self.steps_per_epoch, self.settings.epochs)

    def end_epoch(self, epoch: int, stop_if_asked: Callable[[], None]) -> None:
        """Measure, write the epoch's line, start new sums."""
        now = self.now
        self.collect()
        units = self.loader.units(epoch - 1, 0, self.steps_per_epoch)
        line: dict[str, Any] = {"epoch": epoch, "step": now.step, "loss": now.loss_sum / self.steps_per_epoch}
        line["train_accuracy"] = now.correct / units
        if epoch % self.settings.evaluate_every == 0 or now.step == self.steps:
            line["test_accuracy"] = self.test_accuracy(stop_if_asked)
        line["lr"] = self.lr(now.step - 1)
        line["precision"] = self.manner.precision
        passed = (now.step - 1) / self.steps_per_epoch
        line |= self.net.method.metrics(TrainStep(epoch=passed, share=passed / self.settings.epochs, train_size=len(self.data)))
        line[f"{self.data.unit}_per_second"] = round(units / now.epoch_seconds, 1)
        line["seconds"] = round(now.epoch_seconds, 3)
        now.history.append(line)
        now.loss_sum, now.correct, now.epoch_seconds = 0.0, 0, 0.0
        self.standing.write_metrics()

    def test_accuracy(self, stop_if_asked: Callable[[], None]) -> float:
        """Of the deployed parameters, or of their average once there is one, in float32; each process measures its part."""
        self.net.eval()
        evaluated: Callable[..., Tensor] = self.net
        if self.average.begun(self.now.step):
            averaged = self.average.tensors()
            evaluated = partial(_with_tensors, self.net, averaged)
            self.world.share(averaged.values())
        else:
            self.world.share(self.net.buffers())
        part = self.test.every(self.world.size, self.world.rank)
        # parts differ in length, and processes agree to stop between steps only
        between = stop_if_asked if self.world.size == 1 else None
        right = part.count_right(evaluated, self.device, between=between)
        return int(self.world.total(torch.tensor(right, device=self.device))) / self.test.units

    def describe(self, epoch: int) -> TrainingProgress:
        """The numbers that a progress display shows."""
        now = self.now
        done = now.step - epoch * self.steps_per_epoch
        return TrainingProgress(
            step=now.step,
            steps=self.steps,
            epoch=epoch + 1,
            epochs=self.settings.epochs,
            loss=self.path.loss,
            precision=self.manner.precision,
            throughput=self.loader.units(epoch, 0, done) / now.epoch_seconds,
            unit=self.data.unit,
        )

    def save(self) -> None:
        """Write a checkpoint of this moment, between two steps."""
        self.collect()
        self.standing.save(self.choice.name)

    def result(self, resumed_from: int, stop_if_asked: Callable[[], None]) -> TrainResult:
        """The last epoch's line, and the sums."""
        now = self.now
        last = now.history[-1] if now.history else {}
        seen = sum(self.loader.units(epoch, 0, self.steps_per_epoch) for epoch in range(len(now.history)))
        return TrainResult(
            epochs=len(now.history),
            steps=now.step,
            seconds=now.seconds,
            throughput=seen / now.seconds if now.seconds else 0.0,
            unit=self.data.unit,
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


def _with_tensors(net: SparseNet, tensors: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
    """What a network gives with these in place of its parameters and buffers."""
    outputs: Tensor = functional_call(net, tensors, inputs)
    return outputs
