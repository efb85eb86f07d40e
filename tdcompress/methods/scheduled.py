"""The keys of a schedule in a recipe's [sparsity], for every method that a schedule can drive."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

from tdcompress.errors import ArgumentError
from tdcompress.methods.base import MethodSettings
from tdcompress.sparsity.schedule import PAPER_EPOCHS, Constant, Cubic, Ramp, Schedule

_SCHEDULES: Mapping[str, tuple[type[Schedule], Mapping[str, str]]] = {
    "constant": (Constant, {}),
    "ramp": (Ramp, {"epochs": "ramp_epochs"}),
    "cubic": (Cubic, {"epochs": "schedule_epochs", "gamma": "ramp_share", "alpha": "alpha_share", "freeze": "freeze_share"}),
}
"""Its name in a recipe -> the class, and what a recipe calls each of its arguments."""
_OWNED: Mapping[str, tuple[str, ...]] = {
    "ramp": ("ramp_epochs", "ramp_scale"),
    "cubic": ("ramp_share", "alpha_share", "freeze_share", "schedule_epochs"),
}
"""Schedule -> the keys of a recipe that belong to it."""


@dataclass(frozen=True, kw_only=True)
class ScheduledSettings(MethodSettings):
    """Settings of a method whose targeting proportion and drop rate change by a schedule.

    Attributes:
        schedule: "constant"; "ramp" (section 5.5); or "cubic", by share of the training: gamma rises along 1 - (1 - t)^3, alpha
            along a line, and masks are frozen at the end. With alpha = 1 and alpha_share = [0, 0], so that every candidate is
            always dropped, that is gradual magnitude pruning (Zhu and Gupta 2017).
        ramp_epochs: lengths of the two parts of the ramp.
        ramp_scale: shorten the ramp for a training of less than the papers' 256 epochs, in proportion.
        ramp_share: cubic: where in the training, 0..1, gamma begins to rise, and where it is full.
        alpha_share: cubic: likewise for alpha.
        freeze_share: cubic: for this last share of the training, masks are fixed, every candidate is dropped, and what is zero
            stays zero; 0 = never.
        schedule_epochs: cubic: the epochs that the shares are of; None = train.epochs, and no other number fits.
    """

    schedule: Literal["constant", "ramp", "cubic"] = "constant"
    ramp_epochs: tuple[float, float] = (49.0, 49.0)
    ramp_scale: bool = False
    ramp_share: tuple[float, float] = (0.0, 0.45)
    alpha_share: tuple[float, float] = (0.0, 0.6)
    freeze_share: float = 0.3
    schedule_epochs: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._schedule()

    @cached_property
    def idle(self) -> Mapping[str, str]:
        """The keys of the other schedules."""
        return {key: f'schedule = "{owner}"' for owner, keys in _OWNED.items() if owner != self.schedule for key in keys}

    @property
    def silent(self) -> frozenset[str]:
        """The keys of "cubic" where that is not the schedule; and its epochs, which are the training's."""
        return frozenset({"schedule_epochs"} if self.schedule == "cubic" else _OWNED["cubic"])

    def make_schedule(self) -> Schedule:
        """The schedule object that the keys describe.

        Raises:
            ValueError: a schedule by share of a training whose length is not known; the message begins with its key.
        """
        if self.schedule == "cubic" and self.schedule_epochs is None:
            raise ValueError("schedule_epochs: a schedule by share of the training has to know its epochs")
        return self._schedule()

    def _schedule(self) -> Schedule:
        """The schedule; of one epoch where the training's length is not known yet."""
        kind, keys = _SCHEDULES[self.schedule]
        values = {argument: getattr(self, key) for argument, key in keys.items()}
        if "epochs" in values and values["epochs"] is None:
            values["epochs"] = 1
        try:
            return kind(**values)
        except ArgumentError as error:
            argument, _, said = str(error).partition(": ")
            raise ValueError(f"{keys[argument]}: {said}") from None

    def for_training(self, epochs: int) -> Self:
        """The settings for a training of this length.

        Raises:
            ValueError: the ramp is longer than the training, or ``schedule_epochs`` is another length.
        """
        length = max(epochs, 1)  # without any training it does not matter, but a schedule has to have one
        if self.schedule == "cubic":
            if self.schedule_epochs not in (None, length):
                many = "s" * (epochs != 1)
                raise ValueError(
                    f"schedule_epochs: {self.schedule_epochs}, but the training has {epochs} epoch{many}; leave it out"
                )
            return replace(self, schedule_epochs=length)
        if self.schedule == "constant":
            return self
        factor = min(1.0, length / PAPER_EPOCHS) if self.ramp_scale else 1.0
        first, second = (part * factor for part in self.ramp_epochs)
        if (ramp := first + second) > length:
            other = "" if self.ramp_scale else ", or set ramp_scale = true"
            raise ValueError(
                f"ramp_epochs: the ramp takes {ramp:g} epoch{'s' * (ramp != 1)}, the training has {epochs}; shorten it{other}"
            )
        return replace(self, ramp_epochs=(first, second))
