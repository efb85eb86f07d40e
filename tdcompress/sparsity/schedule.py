"""The schedule: how gamma and alpha change while a network trains, and when its masks are fixed."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from tdcompress.arguments import require_types
from tdcompress.errors import ArgumentError, did_you_mean

PAPER_EPOCHS = 256  # the length of training that the papers' ramp of 49 + 49 epochs belongs to


class Schedule(ABC):
    """Shares of the final targeting proportion and drop rate that hold at a moment of training."""

    @abstractmethod
    def gamma_share(self, epoch: float) -> float:
        """Share of the final gamma, 0..1."""

    @abstractmethod
    def alpha_share(self, epoch: float) -> float:
        """Share of the final alpha, 0..1."""

    def frozen(self, epoch: float) -> bool:
        """Whether masks are fixed from this moment on: gamma and alpha are full, and what is zero stays zero."""
        return False


@dataclass(frozen=True)
class Constant(Schedule):
    """The same gamma and alpha from the first step to the last."""

    def gamma_share(self, epoch: float) -> float:  # noqa: D102
        return 1.0

    def alpha_share(self, epoch: float) -> float:  # noqa: D102
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Ramp(Schedule):
    """Ramping targeted dropout (section 5.5): slowly from the dense network to the sparse one.

    gamma rises linearly to 95 % of its value in the first ``epochs[0]`` epochs and by the other 5 % in the next ``epochs[1]``;
    alpha rises linearly over both. The paper's "first ninety-eight steps" for alpha are epochs (the released code says so).

    Attributes:
        epochs: lengths of the two parts; the papers' are 49 and 49.
    """

    epochs: tuple[float, float] = (49.0, 49.0)

    def __post_init__(self) -> None:
        require_types("Ramp", Ramp, vars(self))
        if not all(0 < length < float("inf") for length in self.epochs):
            raise ArgumentError(f"epochs: {list(self.epochs)}: both lengths have to be above 0")

    @property
    def length(self) -> float:
        """Epochs until gamma and alpha are full."""
        return sum(self.epochs)

    def gamma_share(self, epoch: float) -> float:  # noqa: D102
        first, second = self.epochs
        return 0.95 * min(1.0, epoch / first) + 0.05 * min(1.0, max(0.0, (epoch - first) / second))

    def alpha_share(self, epoch: float) -> float:  # noqa: D102
        return min(1.0, epoch / self.length)


@dataclass(frozen=True, kw_only=True)
class Cubic(Schedule):
    """By share of the training: gamma rises along a cubic, alpha along a line, and for the last share masks are frozen.

    gamma_t = gamma * (1 - (1 - t)^3) is the schedule of gradual magnitude pruning (Zhu and Gupta 2017, Equation 1, which begins
    without zeros here). That method is this one with alpha = 1 from the start.

    Attributes:
        epochs: of the training, which the shares are of.
        gamma: where gamma begins to rise, and where it is full.
        alpha: likewise; where both are equal, alpha is full from there, at once.
        freeze: the last share of the training, in which masks are frozen; 0 = never.
    """

    epochs: float
    gamma: tuple[float, float] = (0.0, 0.45)
    alpha: tuple[float, float] = (0.0, 0.6)
    freeze: float = 0.3

    def __post_init__(self) -> None:
        """Messages of values out of range begin with the key of a recipe."""
        require_types("Cubic", Cubic, vars(self))
        if not 0 < self.epochs < float("inf"):
            raise ArgumentError(f"epochs: {self.epochs} is not above 0")
        for key, (start, end) in (("gamma", self.gamma), ("alpha", self.alpha)):
            if not 0 <= start <= end <= 1:
                raise ArgumentError(f"{key}: [{start}, {end}] is no start and end in 0..1, the start first")
        if not 0 <= self.freeze < 1:
            raise ArgumentError(f"freeze: {self.freeze} is not a share from 0 to below 1")
        full = max(self.gamma[1], self.alpha[1])
        if self.freeze and self.freeze + full > 1 + 1e-9:
            raise ArgumentError(
                f"freeze: {self.freeze:g} would freeze the masks at {1 - self.freeze:g} of the training, before gamma and "
                f"alpha are full at {full:g}; lower it, or end both earlier"
            )

    def gamma_share(self, epoch: float) -> float:  # noqa: D102
        return 1.0 - (1.0 - self._done(epoch, *self.gamma)) ** 3

    def alpha_share(self, epoch: float) -> float:  # noqa: D102
        return self._done(epoch, *self.alpha)

    def frozen(self, epoch: float) -> bool:  # noqa: D102
        return self.freeze > 0 and epoch >= (1.0 - self.freeze) * self.epochs

    def _done(self, epoch: float, start: float, end: float) -> float:
        """How far it is from the start to the end, 0..1."""
        begin, length = start * self.epochs, (end - start) * self.epochs
        if length == 0 or epoch >= end * self.epochs:
            return float(epoch >= begin)
        return min(1.0, max(0.0, (epoch - begin) / length))


def schedule_by_name(word: str, epochs: float | None) -> Schedule:
    """The schedule that a word names, for a training of so many epochs.

    Args:
        word: "constant"; "ramp", the papers' ramp, in proportion to their 256 epochs, or as long as theirs where no length is
            given; or "cubic".
        epochs: length of the training.

    Raises:
        ArgumentError: another word, a length that is not above 0, or none for "cubic".
    """
    known = ("constant", "ramp", "cubic")
    if word not in known:
        raise ArgumentError(f"schedule: {word!r} is none of {', '.join(known)}{did_you_mean(word, known)}")
    if epochs is not None and not 0 < epochs < float("inf"):
        raise ArgumentError(f"epochs: {epochs} is not above 0")
    if word == "constant":
        return Constant()
    if word == "ramp":
        first, second = Ramp().epochs
        factor = 1.0 if epochs is None else epochs / PAPER_EPOCHS
        return Ramp(epochs=(first * factor, second * factor))
    if epochs is None:
        raise ArgumentError('epochs: schedule = "cubic" goes by share of the training; give its length')
    return Cubic(epochs=epochs)
