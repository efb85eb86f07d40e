"""What a training method is: a change of the parameters in each step, a penalty, and an order of importance."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tdcompress.codec import encode
from tdcompress.sparsity.patterns import PATTERNS
from tdcompress.sparsity.shares import USUAL, Shares
from tdcompress.sparsity.units import Targets

Granularity = Literal["weight", "unit", "2:4", "1x4"]
Parameters = Mapping[str, Tensor]
"""A network's parameters by name, each of its own shape."""


@dataclass(frozen=True, kw_only=True)
class TrainStep:
    """Where training stands when a step begins.

    Attributes:
        epoch: epochs done so far, with fraction: 0.0 at the first step, 1.5 in the middle of the second epoch.
        share: of the whole training done so far, 0..1.
        train_size: training samples, which the penalties of L0 and variational dropout are scaled by.
        process: number of this process, of those that share a batch. What is drawn for each sample depends on it; masks do not.
    """

    epoch: float = 0.0
    share: float = 0.0
    train_size: int = 1
    process: int = 0


class Method(nn.Module):
    """A training method. Its own parameters and buffers (gates, switches, variances) are its state, saved beside the network's.

    The dense weights stay the trained parameters: ``effective`` is a pure function of them, applied with
    `tdcompress.functional.functional_call`. The base class does nothing, which is the method "none".

    Attributes:
        lr_scale: learning rate of the method's own parameters, relative to the network's.
    """

    lr_scale: float = 1.0

    def __init__(self, targets: Targets) -> None:
        super().__init__()
        self.targets = targets

    def held(self, name: str) -> Tensor:
        """A parameter or buffer of the method's own; under ``functional_call`` what stands in its place, such as its average."""
        tensor: Tensor = getattr(self, name)  # not get_parameter, which takes nothing but an nn.Parameter
        return tensor

    def begin_step(self, params: Parameters, step: TrainStep, generator: torch.Generator) -> None:
        """Draw what is random in this step, once, whatever the number of micro-batches. Runs without gradient.

        Args:
            params: the network's, by name.
            step: where training stands.
            generator: of this step alone, on the device of the network.
        """

    def effective(self, params: Parameters) -> dict[str, Tensor]:
        """The parameters that training runs with, by name, of their own shapes, differentiable; only those that differ."""
        return {}

    def deployed(self, params: Parameters) -> dict[str, Tensor]:
        """The parameters that evaluation, pruning and deployment run with; only those that differ; deterministic."""
        return {}

    def penalty(self, params: Parameters) -> Tensor | None:
        """What this method adds to the mean loss of a step; a scalar, or None."""
        return None

    def end_step(self, params: Parameters) -> None:
        """Update the method's own state after the optimizer's step. Runs without gradient."""

    def frozen(self, epoch: float) -> bool:
        """Whether what a step drops at this moment is also set to zero, and stays so to the end: see `dropped`."""
        return False

    def dropped(self) -> dict[str, Tensor]:
        """What the masks of this step drop: by parameter name, bool, broadcasting to it. Needed where steps are frozen."""
        return {}

    def unreached(self) -> str | None:
        """What the settings ask for and this network's shapes do not allow, their key first; None where all of it can be."""
        return None

    def missed(self, steps_per_epoch: int, epochs: int) -> str | None:
        """What the settings' schedule asks for and no step of a training comes to, their key first; None where all of it is.

        Args:
            steps_per_epoch: optimizer steps of an epoch.
            epochs: of the whole training.
        """
        return None

    def metrics(self, step: TrainStep) -> dict[str, float]:
        """What the metrics say of the method in a step: gamma and alpha where it has them."""
        return {}

    def scores(self, params: Parameters) -> dict[str, Tensor]:
        """Importance for pruning, where it is not the magnitude of what ``deployed`` gives.

        By parameter name (of its shape) for weights, by group name (O,) for units. An empty dict means magnitude: |w| for
        weights, the L2 norm of the filter for units (Equations 1 and 2).
        """
        return {}

    def instrument(self, model: nn.Module, params: Parameters) -> list[RemovableHandle]:
        """Put forward hooks on the network's layers for one forward pass in training; most methods need none."""
        return []


@dataclass(frozen=True, kw_only=True)
class MethodSettings(ABC):
    """A method's keys in a recipe's [sparsity] table, and how it is built. The registry maps names to subclasses.

    Attributes:
        granularity: what is dropped or gated in training, and pruned afterwards unless [prune] says otherwise. A "weight" or a
            "unit"; or "2:4", two weights of every four neighbouring input channels; or "1x4", a block of one weight of each of
            four neighbouring filters. The last two are for targeted dropout, and for pruning by magnitude.
        scope: for units: rank inside each "layer" (the papers'), or all writers of a residual stream together ("group").
        unit: a unit is "whole" (filter, bias and the affine of the BatchNorm that sees it alone) or, as in the papers, the
            "filter" alone.
        shares: how the share that is dropped, and pruned afterwards, is split: "filter" and "layer" take the same of each; "erk"
            is Erdos-Renyi-kernel, where small layers keep more; "global" ranks all layers together. Weights have all four, units
            the last three. None = "filter" for weights and "layer" for units, as in the papers.
        exclude: names of layers that stay dense, besides those that the model declares.
        include: for units: names of layers whose units are dropped or gated, and pruned, although none of them could ever leave.
        l1: beta of an L1 penalty, beta * sum over prunable layers of mean |w|, which combines with any method; 0 = none.
    """

    name: ClassVar[str]
    patterned: ClassVar[bool] = False  # whether granularity "2:4" and "1x4" are known
    splits: ClassVar[bool] = False  # whether the training itself drops or prunes by ``shares``
    own_scale: ClassVar[bool] = False  # whether its importance, where it has one, does not compare with magnitudes
    headline: ClassVar[tuple[str, ...]] = ()  # keys that name a training, as the papers' tables do, also at their defaults
    granularity: Granularity = "weight"
    scope: Literal["layer", "group"] = "layer"
    unit: Literal["whole", "filter"] = "whole"
    shares: Shares | None = None
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    l1: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values out of range; a message begins with its key."""
        if not 0 <= self.l1 < float("inf"):
            raise ValueError(f"l1: {self.l1} is not a strength of 0 or above")
        if self.granularity in PATTERNS and not self.patterned:
            raise ValueError(f'granularity: method = "{self.name}" has no "{self.granularity}", only "weight" and "unit"')
        if self.granularity == "2:4" and self.shares is not None:
            raise ValueError('shares: "2:4" prunes two of every four; there is nothing to split')
        if self.granularity == "unit" and self.shares == "filter":
            raise ValueError('shares: "filter" is a share of the weights of each filter; units have "layer", "erk" or "global"')
        if self.include and self.granularity != "unit":
            raise ValueError('include: it names layers whose units are trained on; with granularity = "unit" only')

    @property
    def split(self) -> Shares:
        """The shares that hold, with the granularity's default."""
        return self.shares or USUAL[self.granularity]

    @property
    def silent(self) -> frozenset[str]:
        """Keys that say nothing of this training: they belong to a choice that was not made, or something else tells them."""
        return frozenset()

    @cached_property
    def idle(self) -> Mapping[str, str]:
        """Keys of its own that have no effect beside the others: what each needs, 'schedule = "cubic"'."""
        return {}

    @cached_property
    def options(self) -> dict[str, Any]:
        """The method's own keys, without those that all methods have; L1's strength and the shares where they are given."""
        shared = {field.name for field in fields(MethodSettings)} | self.silent
        own = {key: value for key, value in encode(self).items() if key not in shared and value is not None}
        given = {"l1": self.l1 or None, "shares": self.shares}
        return own | {key: value for key, value in given.items() if value is not None}

    def for_training(self, epochs: int) -> Self:
        """These settings for a training of this length; refuses what does not fit it."""
        return self

    def of_training(self) -> Self:
        """These settings without what [prune] alone takes from them, so that one training has one key."""
        return self

    @abstractmethod
    def build(self, targets: Targets, model: nn.Module, seed: int = 0) -> Method:
        """The method for one network, on the device and with the parameters that ``model`` has now.

        Args:
            targets: what it may touch.
            model: the network.
            seed: of what is drawn once: the first gates and switches, the mask of random pruning.
        """


@dataclass(frozen=True, kw_only=True)
class UntargetedSettings(MethodSettings):
    """What methods have in common that drop nothing: their training knows no granularity, and no layers but those of its L1."""

    patterned: ClassVar[bool] = True

    def of_training(self) -> Self:  # noqa: D102
        exclude = self.exclude if self.l1 else ()
        bare = replace(self, granularity="weight", scope="layer", unit="whole", shares=None, include=(), exclude=exclude)
        return self if bare == self else bare  # itself knows its options already

    def build(self, targets: Targets, model: nn.Module, seed: int = 0) -> Method:  # noqa: D102
        return Method(targets)


@dataclass(frozen=True, kw_only=True)
class TrainedMethodSettings(MethodSettings):
    """What the methods that train parameters of their own beside the network's have in common.

    Attributes:
        lr_scale: learning rate of gates, variances or switches, relative to the network's. At 1, as in the released code, plain
            SGD hardly moves those of L0 and variational dropout, whose costs are divided by the training samples.
    """

    lr_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.lr_scale < float("inf"):
            raise ValueError(f"lr_scale: {self.lr_scale} is not above 0")
