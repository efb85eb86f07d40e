"""An average of the weights over the last part of a training, kept beside those that train."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["none", "ema", "last"]


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """Which average: what each step's parameters count in it. A message of an error begins with the key of [train].

    Attributes:
        kind: "none"; "ema", exponential (Polyak and Juditsky, 1992, with the correction for its start of Kingma and Ba, 2015,
            section 3); or "last", the plain mean (Izmailov et al., 2018, after every step and not every epoch).
        share: the last share of the steps, over which it is taken.
        decay: ema; what a step's parameters keep of their part with each further step.
    """

    kind: Kind = "none"
    share: float = 0.2
    decay: float = 0.999

    def __post_init__(self) -> None:
        if self.kind not in ("none", "ema", "last"):
            raise ValueError(f"average: {self.kind!r} is no average, one of none, ema, last")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"average_share: {self.share} is out of range, above 0, 1 or less")
        if not 0.0 < self.decay < 1.0:
            raise ValueError(f"average_decay: {self.decay} is out of range, above 0 and below 1")

    def weight(self, step: int, steps: int) -> float:
        """How far the average goes to the parameters after a step: average := lerp(average, parameters, weight).

        It is 0 before the average begins, and 1 for the first step of it, whatever the average was before.

        Args:
            step: optimizer steps done, 1 after the first.
            steps: of the whole training.
        """
        averaged = step - steps + max(1, round(self.share * steps))
        if self.kind == "none" or averaged < 1:
            return 0.0
        return 1.0 / averaged if self.kind == "last" else (1.0 - self.decay) / (1.0 - self.decay**averaged)


class RunningAverage:
    """The average of a module's parameters and buffers. Buffers that are not floating-point numbers are taken as they are.

    Args:
        net: the network and its method, where they train; not modified before `finish`.
        settings: which average.
        steps: of the whole training.

    Attributes:
        kept: the average by name, as it stands; empty where none is asked for.
    """

    def __init__(self, net: nn.Module, settings: Averaging, steps: int) -> None:
        self._settings, self._steps = settings, steps
        averaged = settings.kind != "none"
        self._parameters = dict(net.named_parameters()) if averaged else {}
        self._now: dict[str, Tensor] = {**self._parameters, **dict(net.named_buffers())} if averaged else {}
        self.kept = {name: tensor.detach().clone() for name, tensor in self._now.items()}
        moved = [name for name, tensor in self._now.items() if tensor.is_floating_point()]
        self._moved = [self.kept[name] for name in moved], [self._now[name] for name in moved]
        self._copied = [(self.kept[name], self._now[name]) for name in self._now if name not in set(moved)]

    def weight(self, step: int) -> float:
        """`Averaging.weight` in this training."""
        return self._settings.weight(step, self._steps)

    def begun(self, step: int) -> bool:
        """Whether there is an average after ``step`` steps."""
        return self.weight(step) > 0.0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the parameters after step ``step`` in."""
        weight = self.weight(step)
        if weight:
            torch._foreach_lerp_(*self._moved, weight)
            for average, now in self._copied:
                average.copy_(now)

    @torch.no_grad()
    def tensors(self) -> dict[str, Tensor]:
        """The average by name. A parameter's entry that is exactly zero now is so in the average: it is pruned, or frozen."""
        pruned = {name: self.kept[name].masked_fill(now == 0, 0.0) for name, now in self._parameters.items()}
        return self.kept | pruned

    @torch.no_grad()
    def finish(self) -> None:
        """Put the average into the network."""
        for name, value in self.tensors().items():
            self._now[name].copy_(value)

    def state(self, step: int) -> dict[str, Tensor]:
        """What a checkpoint after ``step`` steps has to hold: ``average/<name>``, once the average has begun."""
        return {f"average/{name}": tensor for name, tensor in self.kept.items()} if self.begun(step) else {}

    def load(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take up what `state` gave, out of all tensors of a checkpoint: by name, of the parameters' shapes, on any device."""
        for key in self.state(step):
            self.kept[key.removeprefix("average/")].copy_(tensors[key])
