"""The fast path as the training loop sees it: epochs of steps on a vector, and the way from and to the network."""

import copy
import math
from collections import deque
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from tdcompress.errors import TrainingError
from tdcompress.methods.wrapper import SparseNet
from tdcompress.seeds import derived_seed
from tdcompress.train.average import RunningAverage
from tdcompress.train.data import Loader
from tdcompress.train.distill import Lesson
from tdcompress.train.evaluate import Precision
from tdcompress.train.fast.drop import Unsupported, dropping_of
from tdcompress.train.fast.graph import CapturedStep, Direct
from tdcompress.train.fast.program import DeviceState, StepProgram
from tdcompress.train.fast.support import layout_of
from tdcompress.train.fast.tables import Course, EpochTable
from tdcompress.train.fast.update import UpdateRule
from tdcompress.train.optim import PREFIX
from tdcompress.train.settings import TrainSettings
from tdcompress.train.update import remedy

Mode = Literal["direct", "graph", "compiled"]
"""Operator by operator; captured in a CUDA graph; that, with the arithmetic compiled (on a CPU without the graph)."""


class FastPath:
    """Trains a network's copy on the device; ``store`` brings it back.

    Args:
        net: the network and its method, on ``device``, as the last checkpoint has them.
        loader: of batches that the device can take by itself: it has a table.
        settings: the recipe's [train].
        optimizer: its momentum is taken up.
        average: of the weights; it is taken up too, and brought back.
        precision: what the network computes in.
        seed: of all that is drawn.
        device: of everything.
        lr: step -> learning rate.
        mode: how a step is run.
        lesson: what the network also learns from, or None.
    """

    def __init__(
        self,
        net: SparseNet,
        loader: Loader,
        settings: TrainSettings,
        optimizer: torch.optim.Optimizer,
        average: RunningAverage,
        *,
        precision: Precision,
        seed: int,
        device: torch.device,
        lr: Callable[[int], float],
        mode: Mode,
        lesson: Lesson | None = None,
    ) -> None:
        self._net, self._settings, self._optimizer, self._average = net, settings, optimizer, average
        self._seed, self._device = seed, device
        self._layout = layout_of(net)
        dropping = dropping_of(net.method, self._layout, device)
        table = loader.table
        assert not isinstance(dropping, Unsupported), dropping.reason
        assert table is not None, "these batches have no table"
        self._course = Course(
            method=net.method,
            dropping=dropping,
            lr=lr,
            average=lambda step: average.weight(step + 1),
            order=table.order,
            steps=loader.steps_per_epoch,
        )
        self._next = (0, self._course.table(0))
        self._state = self._taken_up()
        program = StepProgram(
            network=_skeleton(net.model),
            layout=self._layout,
            dropping=dropping,
            samples=table,
            precision=precision,
            rule=UpdateRule(settings=settings, decayed=self._layout.decayed),
            state=self._state,
            compiled=mode == "compiled",
            lesson=lesson,
        )
        self._generators = program.generators
        self._runner = CapturedStep(program) if device.type == "cuda" and mode != "direct" else Direct(program)
        self._epoch, self._done, self._unstored = 0, 0, 0
        self.loss: float | None = None
        self._pending: deque[torch.cuda.Event] = deque()

    def _taken_up(self) -> DeviceState:
        """Everything that a step needs, as network, optimizer and average have it."""
        device, layout = self._device, self._layout
        params = self._net.parameters_by_name()
        kept = {name.removeprefix(PREFIX): tensor for name, tensor in self._average.kept.items()}
        buffers = {name: value.clone() for name, value in self._net.model.named_buffers() if value.is_floating_point()}
        table = self._next[1]
        return DeviceState(
            vector=layout.gather({name: parameter.detach() for name, parameter in params.items()}),
            moment=layout.gather({name: self._moment(parameter) for name, parameter in params.items()}),
            buffers=buffers,
            average=layout.gather(kept) if kept else None,
            averaged_buffers={name: kept[name].clone() for name in buffers if kept},
            position=torch.zeros(1, dtype=torch.int64, device=device),
            table=EpochTable(numbers=table.numbers.to(device), counts=table.counts.to(device), order=table.order.to(device)),
            sums=torch.zeros(3, dtype=torch.float64, device=device),
        )

    def _moment(self, parameter: nn.Parameter) -> Tensor:
        kept = self._optimizer.state.get(parameter, {}).get("momentum_buffer")
        return torch.zeros_like(parameter) if kept is None else kept.detach()

    def begin_epoch(self, epoch: int, position: int) -> None:
        """Start an epoch, or take it up after ``position`` steps: send its numbers to the device."""
        table = self._next[1] if self._next[0] == epoch else self._course.table(epoch)
        self._state.table.numbers.copy_(table.numbers)
        self._state.table.counts.copy_(table.counts)
        self._state.table.order.copy_(table.order)
        self._state.position.fill_(position)
        self._epoch, self._done = epoch, position

    def advance(self, most: int) -> int:
        """Make up to ``most`` steps of the epoch; returns how many. The device may still be working on them."""
        count = min(most, self._course.steps - self._done)
        for _ in range(count):
            step = self._epoch * self._course.steps + self._done
            for stream, generator in self._generators.items():
                generator.manual_seed(derived_seed(self._seed, stream, step))
            self._runner.run()
            self._done += 1
            self._unstored += 1
        if self._done == self._course.steps:  # while the device still works
            self._next = (self._epoch + 1, self._course.table(self._epoch + 1))
        self._wait()
        return count

    def _wait(self) -> None:
        """Keep the host from running far ahead of the device."""
        if self._device.type != "cuda":
            return
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._pending.append(event)
        if len(self._pending) > 1:
            self._pending.popleft().synchronize()

    def collect(self, where: str) -> tuple[float, int]:
        """The sum of the losses and of the right answers since the last call.

        Args:
            where: names the steps in an error.

        Raises:
            TrainingError: steps that were not finite.
        """
        loss, correct, bad = self._state.sums.tolist()
        self._state.sums.zero_()
        if bad or not math.isfinite(loss):
            raise TrainingError(
                f"{where}: the loss or a gradient of {int(bad)} steps was not finite; these updates were not made. "
                f"{remedy(self._settings)}"
            )
        return loss, int(correct)

    @torch.no_grad()
    def store(self) -> None:
        """Put everything back into the network, the optimizer and the average."""
        state = self._state
        values, moments = self._layout.views(state.vector), self._layout.views(state.moment)
        for name, parameter in self._net.parameters_by_name().items():
            parameter.copy_(values[name])
            if self._settings.optimizer.momentum:
                self._optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(moments[name])
        for name, buffer in self._net.model.named_buffers():
            if name in state.buffers:
                buffer.copy_(state.buffers[name])
            elif name.endswith("num_batches_tracked"):
                buffer.add_(self._unstored)
        self._unstored = 0
        if state.average is not None:
            averaged = self._layout.views(state.average) | state.averaged_buffers
            for name, buffer in self._net.model.named_buffers():
                averaged.setdefault(name, buffer)  # what is counted is not averaged
            for name, value in averaged.items():
                self._average.kept[PREFIX + name].copy_(value)


def _skeleton(model: nn.Module) -> nn.Module:
    """A copy that gives the forward code. It counts no batches: 33 small kernels a step for a number that nobody reads."""
    skeleton = copy.deepcopy(model).train()
    for module in skeleton.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.num_batches_tracked = None
    return skeleton
