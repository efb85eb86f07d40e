"""Optimizers and learning rates: settings as a recipe writes them, and what they mean per step."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor, nn

PREFIX = "model."  # of the network's names inside a SparseNet
# Kernels and biases are decayed, the affine of a normalisation layer is not. (The released code's L2 is on kernels alone.)
NORMALISATIONS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)

OWN_KEYS: dict[str, frozenset[str]] = {
    "sgd": frozenset({"momentum", "nesterov", "decoupled"}),
    "adam": frozenset({"beta1", "beta2", "epsilon"}),
    "adamw": frozenset({"beta1", "beta2", "epsilon"}),
}

# a schedule's own keys: who owns one, and what it is where it is not set
_SCHEDULE_KEYS: dict[str, tuple[tuple[str, ...], object]] = {
    "milestones": (("piecewise",), ()),
    "factors": (("piecewise",), ()),
    "final_factor": (("cosine", "one_cycle"), None),
    "warmup_share": (("one_cycle",), None),
    "curve": (("one_cycle",), None),
}


def schedule_keys(name: object) -> frozenset[str]:
    """The keys that a schedule has and "constant" has not; none of a name that is no schedule's."""
    return frozenset(key for key, (owners, _) in _SCHEDULE_KEYS.items() if name in owners)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """``optimizer = { name = "sgd", lr = 0.01, momentum = 0.9, nesterov = true }``.

    A key that stays None takes torch's default for the chosen optimizer; one that it does not own is an error.

    Attributes:
        name: the rule of the update.
        lr: the learning rate that the schedule's factors multiply.
        weight_decay: torch's own: added to the gradient, after clipping, by sgd and adam; decoupled by adamw. It touches
            kernels and biases, never a normalisation layer's affine nor a method's own parameters.
        momentum: sgd; default 0.
        nesterov: sgd; default false.
        decoupled: sgd; default false. Before each update weights are multiplied by 1 - learning rate * weight_decay, as adamw
            does; nothing is added to the gradient, so that momentum does not see it (Loshchilov and Hutter, 2019).
        beta1: adam, adamw; default 0.9.
        beta2: adam, adamw; default 0.999.
        epsilon: adam, adamw; default 1e-8.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.01
    weight_decay: float = 0.0
    momentum: float | None = None
    nesterov: bool | None = None
    decoupled: bool | None = None
    beta1: float | None = None
    beta2: float | None = None
    epsilon: float | None = None

    def __post_init__(self) -> None:
        _require_known(self.name, "name", "optimizer", tuple(OWN_KEYS))
        shared = {"name", "lr", "weight_decay"}
        for field in fields(self):
            foreign = field.name not in shared | OWN_KEYS[self.name]
            if foreign and getattr(self, field.name) is not None:
                raise ValueError(f"{field.name}: not a key of {self.name}, which has {', '.join(sorted(OWN_KEYS[self.name]))}")
        _require(0.0 < self.lr < math.inf, "lr", self.lr, "above 0")
        _require(0.0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "0 or more")
        _require(self.momentum is None or 0.0 <= self.momentum < 1.0, "momentum", self.momentum, "0 <= momentum < 1")
        for key, beta in (("beta1", self.beta1), ("beta2", self.beta2)):
            _require(beta is None or 0.0 <= beta < 1.0, key, beta, f"0 <= {key} < 1")
        _require(self.epsilon is None or 0.0 < self.epsilon < math.inf, "epsilon", self.epsilon, "above 0")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs momentum above 0")

    def build(self, net: nn.Module, method_lr_scale: float = 1.0) -> torch.optim.Optimizer:
        """The optimizer over all parameters of ``net`` that require a gradient.

        The fused kernels are used: one call for all tensors, on CPU as on CUDA. Each group says in ``lr_scale`` what its learning
        rate is relative to the network's.

        Args:
            net: the network below "model.", and a method's own parameters.
            method_lr_scale: of the method's own parameters.
        """
        groups = parameter_groups(net, self.weight_decay, method_lr_scale)
        if self.name == "sgd":
            rule = DecoupledSGD if self.decoupled else torch.optim.SGD
            return rule(groups, lr=self.lr, momentum=self.momentum or 0.0, nesterov=self.nesterov or False, fused=True)
        kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        betas = (0.9 if self.beta1 is None else self.beta1, 0.999 if self.beta2 is None else self.beta2)
        return kind(groups, lr=self.lr, betas=betas, eps=1e-8 if self.epsilon is None else self.epsilon, fused=True)


class DecoupledSGD(torch.optim.SGD):
    """SGD whose weight decay is decoupled (SGDW: Loshchilov and Hutter, 2019, algorithm 1).

    As in torch's AdamW the decay is in proportion to the learning rate: w := w * (1 - lr * weight_decay), then SGD's update.
    """

    def __init__(self, groups: list[dict[str, Any]], **settings: Any) -> None:
        # under a key of our own: what SGD calls weight_decay it adds to the gradient
        own = [{**group, "weight_decay": 0.0, "decoupled_decay": group["weight_decay"]} for group in groups]
        super().__init__(own, **settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Decay, then update; parameters without a gradient stay as they are."""
        for group in self.param_groups:
            decayed = [parameter for parameter in group["params"] if parameter.grad is not None]
            if decayed and group["decoupled_decay"]:
                torch._foreach_mul_(decayed, 1.0 - group["lr"] * group["decoupled_decay"])
        loss: float | None = super().step(closure)
        return loss


@dataclass(frozen=True, kw_only=True)
class LrSchedule:
    """What the learning rate is multiplied by, as a function of the step.

    ``{ name = "piecewise", unit = "steps", milestones = [40000, 60000, 80000], factors = [0.1, 0.01, 0.001] }`` is the
    released ResNet-32's.

    Attributes:
        name: "constant"; "piecewise", factor i from milestone i on, and 1 before the first; "cosine", half a cosine from 1 to
            ``final_factor`` over what follows the warm-up; "one_cycle", up to 1 over ``warmup_share``, then down to
            ``final_factor``; or "inverse_sqrt", after the warm-up the root of warm-up steps / steps. The last is that of
            "Attention is all you need" (section 5.3), where 1 is (width * warm-up steps)^-0.5.
        warmup_epochs: the factor is also multiplied by (steps done + 1) / warm-up steps until that is 1; not for one_cycle.
        warmup_share: one_cycle; the share of the training in which the factor rises; default 0.3.
        curve: one_cycle; "linear" (the default), or "cosine": half a cosine up and half a cosine down.
        unit: of the milestones: "epochs", optimizer "steps", or the "share" (0 to 1) of the training, whatever its length.
        milestones: piecewise; increasing.
        factors: piecewise; one per milestone.
        final_factor: cosine, one_cycle; default 0.
    """

    name: Literal["constant", "piecewise", "cosine", "one_cycle", "inverse_sqrt"] = "constant"
    warmup_epochs: float = 0.0
    warmup_share: float | None = None
    curve: Literal["linear", "cosine"] | None = None
    unit: Literal["epochs", "steps", "share"] = "epochs"
    milestones: tuple[float, ...] = ()
    factors: tuple[float, ...] = ()
    final_factor: float | None = None

    def __post_init__(self) -> None:
        _require_known(self.name, "name", "schedule", ("constant", "piecewise", "cosine", "one_cycle", "inverse_sqrt"))
        _require_known(self.unit, "unit", "unit", ("epochs", "steps", "share"))
        _require_known(self.curve or "linear", "curve", "curve", ("linear", "cosine"))
        for key, (owners, unset) in _SCHEDULE_KEYS.items():
            if self.name not in owners and getattr(self, key) != unset:
                raise ValueError(f"{key}: not a key of {self.name}, only of {' and '.join(owners)}")
        _require(0.0 <= self.warmup_epochs < math.inf, "warmup_epochs", self.warmup_epochs, "0 or more")
        if self.name == "one_cycle" and self.warmup_epochs:
            raise ValueError("warmup_epochs: one_cycle rises over warmup_share of the training; leave it out")
        if self.name == "inverse_sqrt" and not self.warmup_epochs:
            raise ValueError("warmup_epochs: inverse_sqrt falls from the end of the warm-up on; give its length, above 0")
        _require(
            self.warmup_share is None or 0.0 <= self.warmup_share < 1.0, "warmup_share", self.warmup_share, "0 or more, below 1"
        )
        _require(self.final_factor is None or 0.0 <= self.final_factor <= 1.0, "final_factor", self.final_factor, "0 to 1")
        if self.name == "piecewise":
            self._check_milestones()

    def _check_milestones(self) -> None:
        increasing = all(a < b for a, b in zip(self.milestones, self.milestones[1:], strict=False))
        if not self.milestones or not increasing or not 0.0 < self.milestones[0] <= self.milestones[-1] < math.inf:
            raise ValueError(f"milestones: {list(self.milestones)}, increasing and above 0")
        if self.unit == "share" and self.milestones[-1] >= 1.0:
            raise ValueError(f'milestones: {list(self.milestones)}, with unit = "share" all of them below 1')
        if len(self.factors) != len(self.milestones):
            raise ValueError(f"factors: {len(self.factors)} for {len(self.milestones)} milestones, one for each")
        for factor in self.factors:
            _require(0.0 <= factor < math.inf, "factors", factor, "0 or more")

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """The factor of the optimizer step with ``step`` steps before it.

        Args:
            step: 0 for the first.
            steps_per_epoch: optimizer steps in an epoch.
            epochs: of the whole training.
        """
        steps = epochs * steps_per_epoch
        if self.name == "one_cycle":
            warmup_steps = steps * (0.3 if self.warmup_share is None else self.warmup_share)
        else:
            warmup_steps = self.warmup_epochs * steps_per_epoch
        warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
        if self.name == "constant":
            return warmup
        if self.name == "inverse_sqrt":
            return min(warmup, math.sqrt(warmup_steps / (step + 1)))
        if self.name == "piecewise":
            passed = sum(step >= first for first in self.milestone_steps(steps_per_epoch, epochs))
            return warmup * (self.factors[passed - 1] if passed else 1.0)
        final = self.final_factor or 0.0
        done = min(1.0, max(0.0, step - warmup_steps) / max(1.0, steps - warmup_steps))
        if self.name == "cosine":
            return warmup * (final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * done)))
        return self._risen(warmup) * (1.0 - (1.0 - final) * self._risen(done))

    def milestone_steps(self, steps_per_epoch: int, epochs: int) -> tuple[Fraction, ...]:
        """Steps done at each milestone, exactly: of the decimals as written."""
        scale = {"epochs": steps_per_epoch, "steps": 1, "share": epochs * steps_per_epoch}[self.unit]
        return tuple(Fraction(str(milestone)) * scale for milestone in self.milestones)

    def unreached(self, steps_per_epoch: int, epochs: int) -> str | None:
        """What to say where no step comes to the warm-up's end, or after the first milestone; else None."""
        steps = epochs * steps_per_epoch
        if steps and self.warmup_epochs > epochs:
            return (
                f"warmup_epochs: the warm-up takes {self.warmup_epochs:g} epochs, and this training has {epochs}: its learning "
                f"rate ends at {epochs / self.warmup_epochs:.2g} of what it would come to; shorten it"
            )
        last = steps - 1  # steps done when the last one is made
        if not self.milestones or not steps or self.milestone_steps(steps_per_epoch, epochs)[0] <= last:
            return None
        by_share = "" if self.unit == "share" else ', or give them with unit = "share"'
        first = self.milestones[0]
        at = f"{first:g} of the training" if self.unit == "share" else f"{first:g} {self.unit[:-1]}{'s' * (first != 1)}"
        return (
            f"milestones: the first one, {at}, comes after the last step of this training, which "
            f"has {steps} ({epochs} epoch{'s' * (epochs != 1)}): its learning rate never changes; lower them{by_share}"
        )

    def _risen(self, share: float) -> float:
        """From 0 to 1 along the curve."""
        return 0.5 * (1.0 - math.cos(math.pi * share)) if self.curve == "cosine" else share


def decayed_parameters(net: nn.Module) -> dict[str, Tensor]:
    """The network's kernels and biases: what L2 and weight decay touch; by qualified name, each tensor once."""
    spared = {
        id(parameter)
        for module in net.modules()
        if isinstance(module, NORMALISATIONS)
        for parameter in module.parameters(recurse=False)
    }
    return {
        name: parameter
        for name, parameter in net.named_parameters()
        if parameter.requires_grad and name.startswith(PREFIX) and id(parameter) not in spared
    }


def parameter_groups(net: nn.Module, weight_decay: float, method_lr_scale: float = 1.0) -> list[dict[str, Any]]:
    """The network's parameters that are decayed, those that are not, and the method's own; a group only where it has any.

    Args:
        net: the network and its method.
        weight_decay: of the first group.
        method_lr_scale: learning rate of the method's own parameters, relative to the network's.
    """
    decayed = decayed_parameters(net)
    rest = {name: p for name, p in net.named_parameters() if p.requires_grad and name not in decayed}
    spared = [p for name, p in rest.items() if name.startswith(PREFIX)]
    own = [p for name, p in rest.items() if not name.startswith(PREFIX)]
    groups: list[dict[str, Any]] = [
        {"params": list(decayed.values()), "weight_decay": weight_decay, "lr_scale": 1.0},
        {"params": spared, "weight_decay": 0.0, "lr_scale": 1.0},
        {"params": own, "weight_decay": 0.0, "lr_scale": method_lr_scale},
    ]
    return [group for group in groups if group["params"]]


def _require(holds: bool, key: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{key}: {value} is out of range, {allowed}")


def _require_known(value: str, key: str, noun: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{key}: {value!r} is no {noun}, one of {', '.join(known)}")
