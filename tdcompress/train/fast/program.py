"""One optimizer step as operations on device state alone: the body of a graph."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from tdcompress.functional import functional_call
from tdcompress.train.data import DeviceBatches, TrainBatch
from tdcompress.train.distill import Lesson
from tdcompress.train.evaluate import Precision, autocast
from tdcompress.train.fast.drop import Dropping
from tdcompress.train.fast.layout import VectorLayout
from tdcompress.train.fast.tables import ALPHA, AVERAGE, EPOCH, FROZEN, LR, EpochTable
from tdcompress.train.fast.update import UpdateRule, update

T = TypeVar("T")


@dataclass(kw_only=True)
class DeviceState:
    """Everything that a step reads and changes.

    Attributes:
        vector: all parameters, (P,).
        moment: SGD's momentum, (P,).
        buffers: of the network (running statistics), by name, of any shape.
        average: the weights' running average, (P,); None without one.
        averaged_buffers: theirs, of the same shapes.
        position: int64 (1,), steps of this epoch done.
        table: what holds in each step of the epoch.
        sums: float64 (3,): of the losses, of the right answers, of the steps that were not finite.
    """

    vector: Tensor
    moment: Tensor
    buffers: dict[str, Tensor]
    average: Tensor | None
    averaged_buffers: dict[str, Tensor] = field(default_factory=dict)
    position: Tensor
    table: EpochTable
    sums: Tensor

    def tensors(self) -> list[Tensor]:
        """All that a step changes."""
        averaged = [] if self.average is None else [self.average, *self.averaged_buffers.values()]
        return [self.vector, self.moment, *self.buffers.values(), *averaged, self.position, self.sums]


class StepProgram:
    """The step.

    Args:
        network: gives the forward code; its own tensors are not used, and it counts no batches.
        layout: of the vector.
        dropping: what is dropped.
        samples: training samples on the device.
        precision: what the network computes in.
        rule: of the update.
        state: on the device.
        compiled: run forward, backward and update through torch.compile.
        lesson: what the network also learns from, or None.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        layout: VectorLayout,
        dropping: Dropping,
        samples: DeviceBatches,
        precision: Precision,
        rule: UpdateRule,
        state: DeviceState,
        compiled: bool,
        lesson: Lesson | None,
    ) -> None:
        self._lesson = lesson
        self._network, self._layout, self._dropping, self._samples = network, layout, dropping, samples
        self._rule, self.state = rule, state
        self._precision = precision
        device = state.vector.device
        self._never = torch.zeros(layout.size, dtype=torch.bool, device=device)
        self.generators = {name: torch.Generator(device) for name in ("method", "augment")}
        self._loss: Callable[..., tuple[Tensor, Tensor]] = _compiled(_loss) if compiled else _loss
        self._update: Callable[..., None] = _compiled(update) if compiled else update

    def step(self) -> None:
        """One optimizer step; nothing comes back to the host."""
        state = self.state
        now = state.table.numbers.index_select(0, state.position)[0]
        counts = state.table.counts.index_select(0, state.position)[0]
        chosen = state.table.order.index_select(0, state.position)[0]
        uniform = uniform_numbers(self._dropping.draws, self.generators["method"])
        dropped = self._widened(self._dropping(state.vector, uniform, counts, now[ALPHA]))
        if dropped is not None:
            zeroed = dropped & (now[FROZEN] > 0)
            state.vector.masked_fill_(zeroed, 0.0)
            state.moment.masked_fill_(zeroed, 0.0)
        batch = self._samples.batch(chosen, now[EPOCH], self.generators["augment"])
        leaf = state.vector.detach().requires_grad_()
        loss, right = self._loss(self._network, self._layout, self._precision, leaf, dropped, batch, state.buffers, self._lesson)
        (gradient,) = torch.autograd.grad(loss, leaf)
        with torch.no_grad():
            self._update(self._rule, state.vector, state.moment, gradient, loss.detach(), right, now[LR], state.sums)
            self._take_average(now[AVERAGE])
            state.position.add_(1)

    def _widened(self, dropped: Tensor) -> Tensor | None:
        """What is dropped, for the whole vector; None where the method never drops."""
        if not len(dropped):
            return None
        return torch.cat([dropped, self._never[len(dropped) :]])

    def _take_average(self, weight: Tensor) -> None:
        state = self.state
        if state.average is None:
            return
        averaged = [state.average, *state.averaged_buffers.values()]
        now = [state.vector, *(state.buffers[name] for name in state.averaged_buffers)]
        towards = torch._foreach_sub(now, averaged)  # three calls for all tensors; foreach_lerp takes no weight on the device
        torch._foreach_mul_(towards, weight)
        torch._foreach_add_(averaged, towards)


def uniform_numbers(count: int, generator: torch.Generator) -> Tensor:
    """What chance gives to one step, (count,) in [0, 1)."""
    return torch.rand(count, generator=generator, device=generator.device)


def _loss(
    network: nn.Module,
    layout: VectorLayout,
    precision: Precision,
    vector_P: Tensor,
    dropped_P: Tensor | None,
    batch: TrainBatch,
    buffers: dict[str, Tensor],
    lesson: Lesson | None,
) -> tuple[Tensor, Tensor]:
    """The mean loss of a batch, and how many of its units are right."""
    effective_P = vector_P if dropped_P is None else vector_P.masked_fill(dropped_P, 0.0)
    params = layout.views(effective_P, torch.bfloat16 if precision == "bfloat16" else None)

    def called(*inputs: Tensor) -> Tensor:
        with autocast(vector_P.device, precision):
            outputs: Tensor = functional_call(network, {**params, **buffers}, inputs).float()
        return outputs

    return batch.loss(called, lesson)


def _compiled(function: Callable[..., T]) -> Callable[..., T]:
    # a campaign's networks and settings are variants of one function; torch gives up after eight
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    return torch.compile(function, fullgraph=True, dynamic=False)
