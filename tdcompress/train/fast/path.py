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
from tdcompress.train.evaluate import Precision
from tdcompress.train.fast.drop import Dropping, Unsupported, dropping_of
from tdcompress.train.fast.graph import Direct, Graph
from tdcompress.train.fast.layout import Layout
from tdcompress.train.fast.program import Program, State
from tdcompress.train.fast.update import Rule
from tdcompress.train.optim import decayed_parameters
from tdcompress.train.samples import TrainData, derived_seed, epoch_order
from tdcompress.train.settings import TrainSettings

PREFIX = "model."
Mode = Literal["direct", "graph", "compiled"]
"""Operator by operator; captured in a CUDA graph; that, with the arithmetic compiled (on a CPU without the graph)."""


def why_not(net: SparseNet, settings: TrainSettings) -> str | None:
    """Why the fast path cannot make this training, or None where it can."""
    params = net.parameters_by_name()
    axes = {slot.axis for slot in net.method.targets.weights}
    drawing = [type(m).__name__ for m in net.model.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]
    cumulative = [m for m in net.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.momentum is None]
    for holds, reason in (
        (settings.optimizer.name != "sgd", f"the optimizer is {settings.optimizer.name}, not sgd"),
        (settings.accumulate > 1, "the batch comes in micro-batches"),
        (net.l1 > 0, "there is an L1 penalty"),
        (axes - {0}, "a transposed convolution's filters are not rows"),
        (drawing, f"the network has a {(drawing or [''])[0]}, which draws from the global generator"),
        (cumulative, "a BatchNorm averages over all batches"),
        (any(not p.requires_grad for p in params.values()), "some parameters are not trained"),
        (any(p.dtype != torch.float32 for p in params.values()), "some parameters are not float32"),
    ):
        if holds:
            return reason
    found = dropping_of(net.method, layout_of(net), torch.device("cpu"))
    return found.reason if isinstance(found, Unsupported) else None


def layout_of(net: SparseNet) -> Layout:
    """The vector of a network's parameters."""
    shapes = {name: parameter.shape for name, parameter in net.model.named_parameters()}
    prunable = [slot.parameter for slot in net.method.targets.weights]
    decayed = [name.removeprefix(PREFIX) for name in decayed_parameters(net, PREFIX)]
    return Layout.of(shapes, prunable, decayed)


class FastPath:
    """Trains a network's copy on the device; ``store`` brings it back.

    Args:
        net: the network and its method, on ``device``, as the last checkpoint has them.
        data: training samples, there too.
        settings: the recipe's [train].
        optimizer: its momentum is taken up.
        precision: what the network computes in.
        seed: of all that is drawn.
        device: of everything.
        lr: step -> learning rate.
        mode: how a step is run.
    """

    def __init__(
        self,
        net: SparseNet,
        data: TrainData,
        settings: TrainSettings,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision,
        seed: int,
        device: torch.device,
        lr: Callable[[int], float],
        mode: Mode,
    ) -> None:
        self._net, self._settings, self._optimizer, self._seed, self._lr = net, settings, optimizer, seed, lr
        self._device = device
        self._steps = len(data) // settings.batch_size
        self._samples = len(data)
        self._layout = layout_of(net)
        dropping = dropping_of(net.method, self._layout, device)
        assert not isinstance(dropping, Unsupported), dropping.reason
        self._dropping: Dropping = dropping
        self._state = self._fresh_state()
        rule = Rule(optimizer=settings.optimizer, decayed=self._layout.decayed, l2=settings.l2, clip_norm=settings.clip_norm)
        program = Program(
            network=_skeleton(net.model),
            layout=self._layout,
            dropping=dropping,
            data=data,
            settings=settings,
            precision=precision,
            rule=rule,
            state=self._state,
            compiled=mode == "compiled",
        )
        self._generators = program.generators
        self._begin_epoch(0, 0)
        self._runner = Graph(program) if device.type == "cuda" and mode != "direct" else Direct(program)
        self._done, self._unstored = 0, 0
        self.loss: float | None = None
        self._pending: deque[torch.cuda.Event] = deque()

    def _fresh_state(self) -> State:
        device, layout, steps = self._device, self._layout, self._steps
        params = {name: parameter.detach() for name, parameter in self._net.parameters_by_name().items()}
        moments = {name: self._moment(parameter) for name, parameter in self._net.parameters_by_name().items()}
        return State(
            vector=layout.gather(params).float(),
            moment=layout.gather(moments),
            buffers={name: value.clone() for name, value in self._net.model.named_buffers() if value.is_floating_point()},
            average=None,
            position=torch.zeros(1, dtype=torch.int64, device=device),
            numbers=torch.zeros(steps, 4, device=device),
            counts=torch.zeros(steps, len(self._dropping.counts(0.0)), dtype=torch.int32, device=device),
            order=torch.zeros(steps, self._settings.batch_size, dtype=torch.int64, device=device),
            sums=torch.zeros(3, dtype=torch.float64, device=device),
        )

    def _moment(self, parameter: nn.Parameter) -> Tensor:
        kept = self._optimizer.state.get(parameter, {}).get("momentum_buffer")
        return torch.zeros_like(parameter) if kept is None else kept.detach()

    def _begin_epoch(self, epoch: int, position: int) -> None:
        """Send what the host knows of an epoch's steps to the device."""
        method = self._net.method
        moments = [epoch + step / self._steps for step in range(self._steps)]
        numbers = [
            [self._lr(epoch * self._steps + step), method.numbers(moment).get("alpha", 0.0), float(method.frozen(moment)), 0.0]
            for step, moment in enumerate(moments)
        ]
        counts = [list(self._dropping.counts(moment)) for moment in moments]
        used = self._steps * self._settings.batch_size
        order = epoch_order(self._samples, self._seed, epoch)[:used].view(self._steps, -1)
        state = self._state
        state.numbers.copy_(torch.tensor(numbers))
        state.counts.copy_(torch.tensor(counts, dtype=torch.int32).view_as(state.counts))
        state.order.copy_(order)
        state.position.fill_(position)
        self._epoch = epoch

    def begin_epoch(self, epoch: int, position: int) -> None:
        """Start an epoch, or take it up after ``position`` steps."""
        self._begin_epoch(epoch, position)
        self._done = position

    def advance(self, most: int) -> int:
        """Make up to ``most`` steps of the epoch; returns how many. The device may still be working on them."""
        count = min(most, self._steps - self._done)
        for _ in range(count):
            step = self._epoch * self._steps + self._done
            for stream, generator in self._generators.items():
                generator.manual_seed(derived_seed(self._seed, stream, step))
            self._runner.run()
            self._done += 1
            self._unstored += 1
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
                "Lower train.optimizer.lr, or set train.clip_norm"
            )
        return loss, int(correct)

    @torch.no_grad()
    def store(self) -> None:
        """Put parameters, momentum and buffers back into the network and the optimizer."""
        values, moments = self._layout.views(self._state.vector), self._layout.views(self._state.moment)
        for name, parameter in self._net.parameters_by_name().items():
            parameter.copy_(values[name])
            if self._settings.optimizer.momentum:
                state = self._optimizer.state[parameter]
                state["momentum_buffer"] = torch.empty_like(parameter).copy_(moments[name])
        for name, buffer in self._net.model.named_buffers():
            if name in self._state.buffers:
                buffer.copy_(self._state.buffers[name])
            elif name.endswith("num_batches_tracked"):
                buffer.add_(self._unstored)
        self._unstored = 0


def _skeleton(model: nn.Module) -> nn.Module:
    """A copy that gives the forward code. It counts no batches: 33 small kernels a step for a number that nobody reads."""
    skeleton = copy.deepcopy(model).train()
    for module in skeleton.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.num_batches_tracked = None
    return skeleton
