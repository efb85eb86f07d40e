"""Two ways to make the steps of a training: the reference, step by step, and the fast path, an epoch on the device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from tdcompress.errors import ArtifactError, UserError
from tdcompress.methods.wrapper import SparseNet
from tdcompress.train.average import RunningAverage
from tdcompress.train.data import Loader
from tdcompress.train.distributed import World
from tdcompress.train.fast.support import draws, why_not
from tdcompress.train.settings import TrainSettings
from tdcompress.train.step import Stepper

PathName = Literal["reference", "fast"]
Asked = Literal["auto", "reference", "fast"]


class StepPath(Protocol):
    """Makes the steps of one training; network and optimizer are up to date after ``store``."""

    loss: float | None
    """Of the last step, where the host knows it."""

    def begin_epoch(self, epoch: int, position: int) -> None:
        """Start an epoch, or take it up after ``position`` steps."""

    def advance(self, most: int) -> int:
        """Make between one and ``most`` steps of the epoch; returns how many."""

    def collect(self, where: str) -> tuple[float, int]:
        """The sum of the losses and of the right answers since the last call.

        Raises:
            TrainingError: a step was not finite.
        """

    def store(self) -> None:
        """Bring network and optimizer up to date."""


class ReferencePath:
    """One step at a time, its loss read by the host.

    Args:
        stepper: makes a step.
        steps: of an epoch.
        lr: step -> learning rate.
        average: of the weights.
    """

    def __init__(self, stepper: Stepper, steps: int, *, lr: Callable[[int], float], average: RunningAverage) -> None:
        self._stepper, self._steps, self._lr, self._average = stepper, steps, lr, average
        self._sums = (0.0, 0)
        self.loss: float | None = None

    def begin_epoch(self, epoch: int, position: int) -> None:  # noqa: D102
        self._step = epoch * self._steps + position

    def advance(self, most: int) -> int:  # noqa: D102
        loss, right = self._stepper.step(self._step, self._lr(self._step))
        self._step += 1
        self._average.update(self._step)
        self._sums = (self._sums[0] + loss, self._sums[1] + right)
        self.loss = loss
        return 1

    def collect(self, where: str) -> tuple[float, int]:  # noqa: D102
        sums, self._sums = self._sums, (0.0, 0)
        return sums

    def store(self) -> None:  # noqa: D102
        pass


@dataclass(frozen=True, kw_only=True)
class PathChoice:
    """Which path makes a training, and why.

    Attributes:
        name: of the path.
        reason: for people.
    """

    name: PathName
    reason: str


def choose_path(
    asked: Asked,
    begun: PathName | None,
    net: SparseNet,
    settings: TrainSettings,
    loader: Loader,
    *,
    device: torch.device,
    world: World,
    keep: Mapping[str, Tensor] | None,
) -> PathChoice:
    """Choose the path of a training.

    The two draw the same numbers in another order. So a training that a checkpoint takes up stays on its path.

    Args:
        asked: "auto" takes the fast path on CUDA where it can.
        begun: the path of the checkpoint, None without one.
        net: the network and its method.
        settings: the recipe's [train].
        loader: of its batches.
        device: where to train.
        world: the processes of this training.
        keep: masks of a fine-tuning by parameter name, bool, of its shape; None without one.

    Raises:
        UserError: the fast path was asked for and cannot make this training.
        ArtifactError: the checkpoint is of a path that cannot go on here, or of another one than was asked for.
    """
    if world.size > 1:
        obstacle: str | None = "several processes share each batch"
    elif keep is not None:
        obstacle = "masks are frozen"
    elif loader.table is None:
        obstacle = "batches differ in size"
    else:
        obstacle = why_not(net, settings)
    tempting = asked != "reference" and (device.type == "cuda" or "fast" in (asked, begun))
    if obstacle is None and tempting and draws(net.model, loader, device):
        obstacle = "the network draws from torch's global generator"
    if begun is not None:
        if asked not in ("auto", begun):
            raise ArtifactError(
                f"the checkpoint is of the {begun} path, not of the {asked} path: leave the path open, or start anew"
            )
        if begun == "fast" and obstacle:
            raise ArtifactError(
                f"the checkpoint is of the fast path, which cannot go on here: {obstacle}; remove it to train anew"
            )
        return PathChoice(name=begun, reason="as the checkpoint has it")
    if asked == "fast" and obstacle:
        raise UserError(f"the fast path cannot make this training: {obstacle}")
    if asked != "auto":
        return PathChoice(name=asked, reason="asked for")
    if obstacle:
        return PathChoice(name="reference", reason=obstacle)
    if device.type != "cuda":
        return PathChoice(name="reference", reason=f"the device is {device.type}")
    return PathChoice(name="fast", reason="all of it runs on the GPU")
