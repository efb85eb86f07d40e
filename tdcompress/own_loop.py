"""Targeted dropout for a training loop of one's own."""

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from tdcompress.arguments import checked
from tdcompress.errors import ArgumentError, ModelError, UserError
from tdcompress.interface import Scope, Unit, find_groups, require_units
from tdcompress.methods.base import Granularity, TrainStep
from tdcompress.methods.recompute import Recompute
from tdcompress.methods.targeted import Targeted, TargetedSettings, targeted_dropout
from tdcompress.methods.wrapper import SparseNet
from tdcompress.seeds import derived_seed
from tdcompress.shrinking.trace import ExampleInputs
from tdcompress.sparsity.schedule import Constant, Schedule, schedule_by_name
from tdcompress.sparsity.shares import Shares
from tdcompress.sparsity.units import Targets, prunable_weights, require_changeable, require_module, unwrapped
from tdcompress.train.update import FrozenZeros

EXACT = 2**53  # up to which float64 holds every whole number


class TargetedDropout(SparseNet):
    """Targeted dropout around any module, for any training loop.

    ``net(x); loss.backward(); optimizer.step(); net.step()``. In training mode the network runs with entries dropped, in
    evaluation mode as it is; its own module, ``net.plain()``, stays an ordinary one. ``net`` takes what that module takes,
    keyword arguments too.

    Where the draws stand is part of ``net.state_dict()``, as one small tensor beside the network's: a loop that loads it goes on
    with the same masks. Each step's draws follow from the seed and the number of steps alone.

    Modules that run again in the backward pass (``torch.utils.checkpoint`` inside the network, gradient checkpointing of
    transformers) run there with the same entries dropped. Hooks on the network see to it, from a forward pass in training to the
    next ``step``. A checkpointed function that reads parameters itself, and calls no module for it, would find them whole.

    Args:
        model: the network; held, not copied.
        granularity: what is dropped: see ``prune``.
        gamma: targeting proportion, the share that are candidates; at 1 all but one of each filter (or group of units). A warning
            says so where there are fewer candidates, or none; or
        keep_per_filter: Xtreme: candidates are all but this many weights of each filter.
        alpha: drop rate of a candidate.
        schedule: "constant", "ramp" or "cubic"; a ``Ramp`` or ``Cubic`` with numbers of its own; or a ``Schedule`` of your own.
            With all but "constant" each ``step`` has to be told the epoch; "ramp" and "cubic" begin with nothing dropped.
        epochs: length of the training, which a schedule given by its word is of: "cubic" needs it, "ramp" is else as long as the
            papers' (98 epochs).
        exclude: names of layers that stay dense.
        include: for units: see ``prune``.
        example_inputs: a tensor or tuple of tensors; needed for units, to trace which parameters belong to one.
        scope: for units: see ``prune``.
        unit: for units: see ``prune``.
        shares: how gamma is split: see ``prune``.
        draw: for units: whole "unit"s, or each "weight" inside candidate units (the released code).
        l1: beta of an L1 penalty; add ``net.penalty()`` to the loss.
        seed: of the draws.

    Raises:
        ArgumentError: a value out of range, or epochs that nothing asks for.
        ModelError: nothing to prune, a wrong name in ``exclude``, no ``example_inputs`` for units, a network that is in targeted
            dropout already, or one in DataParallel, DistributedDataParallel or torch.compile, which go around this wrapper.
    """

    method: Targeted

    @checked
    def __init__(
        self,
        model: nn.Module,
        *,
        granularity: Granularity = "weight",
        gamma: float | None = None,
        keep_per_filter: int | None = None,
        alpha: float = 0.5,
        schedule: Literal["constant", "ramp", "cubic"] | Schedule | None = None,
        epochs: float | None = None,
        exclude: Sequence[str] = (),
        include: Sequence[str] = (),
        example_inputs: ExampleInputs | None = None,
        scope: Scope = "layer",
        unit: Unit = "whole",
        shares: Shares | None = None,
        draw: Literal["unit", "weight"] = "unit",
        l1: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not -EXACT < seed < EXACT:
            raise ArgumentError(f"seed: {seed} is not below 2^53")
        if epochs is not None and schedule not in ("ramp", "cubic"):
            raise ArgumentError('epochs: only a schedule given by its word, "ramp" or "cubic", is of that length')
        require_units(granularity, include=include, scope=scope, unit=unit, draw=draw)
        _require_unwrapped(model)
        try:
            settings = TargetedSettings(
                granularity=granularity,
                gamma=gamma,
                keep_per_filter=keep_per_filter,
                alpha=alpha,
                scope=scope,
                unit=unit,
                shares=shares,
                draw=draw,
                l1=l1,
            )
        except ValueError as error:
            raise ArgumentError(str(error)) from None
        weights = prunable_weights(model, exclude)
        require_changeable(model)
        groups = find_groups(model, example_inputs, exclude, include, scope, unit) if granularity == "unit" else ()
        driver = schedule if isinstance(schedule, Schedule) else schedule_by_name(schedule or "constant", epochs)
        method = targeted_dropout(Targets(weights=weights, groups=groups), model, settings, driver)
        if unreached := method.unreached():
            warnings.warn(unreached, stacklevel=3)  # the caller of what is `checked`
        super().__init__(model, method, l1=l1)
        self.seed = seed
        self._index, self._epoch = 0, 0.0
        self._ran = self._stepped = False  # with these masks; the latter by an optimizer, after the former
        self._warned = False
        self._recompute = Recompute(model, method.effective)
        self.register_state_dict_pre_hook(_give_back)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_give_back)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_draw_again)  # type: ignore[no-untyped-call]
        self._draw()

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """What the network returns for these arguments: with entries dropped in training mode, as it is in evaluation mode.

        Raises:
            ModelError: this is one of the replicas of DataParallel, which have no parameters.
        """
        if getattr(self, "_is_replica", False):
            raise ModelError("DataParallel runs replicas, which have no parameters to drop: take DistributedDataParallel")
        if not torch.compiler.is_compiling():
            self._recompute.give_back()
            if self.training:
                self._look_for_forgotten_step()
        return super().forward(*inputs, **keywords)

    def run_with(self, effective: Mapping[str, Tensor], inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:  # noqa: D102
        if torch.compiler.is_compiling():
            return super().run_with(effective, inputs, keywords)
        with self._recompute.forward_pass(effective):
            return super().run_with(effective, inputs, keywords)

    @checked
    def step(self, epoch: float | None = None, optimizer: torch.optim.Optimizer | None = None) -> None:
        """To be called after each ``optimizer.step()``: draws the next masks, which hold for all micro-batches until then.

        Args:
            epoch: epochs done so far, with fraction; needed with a schedule.
            optimizer: needed with a schedule that freezes the masks: its moments of what is dropped are set to zero then. From
                there on the masks stay what they are.

        Raises:
            ArgumentError: an epoch below 0.
            UserError: a schedule, and no epoch; or the masks are frozen, and there is no optimizer.
        """
        if epoch is None and not isinstance(self.method.schedule, Constant):
            raise UserError("step(): a schedule needs to know the epoch; call net.step(epoch + batch / batches)")
        if epoch is not None and epoch < 0:
            raise ArgumentError(f"step(): epoch has to be 0 or above, and is {epoch}")
        now = self._epoch if epoch is None else epoch
        was_frozen, frozen = self.method.frozen(self._epoch), self.method.frozen(now)
        if frozen and optimizer is None:
            raise UserError("step(): the masks are frozen now, and the optimizer has moments: call net.step(epoch, optimizer)")
        self._recompute.end()
        self.end_step()
        self._index += 1
        self._epoch = now
        self._ran = self._stepped = False
        if not (was_frozen and frozen):
            self._draw()
        if frozen:  # its making sets them to zero; without moments and gradients they stay so
            FrozenZeros(self.parameters_by_name(), {name: ~each for name, each in self.method.dropped().items()}, optimizer)

    def plain(self) -> nn.Module:  # noqa: D102
        self._recompute.give_back()
        return super().plain()

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """As ``nn.Module.named_parameters``, also where an interrupt ended a backward pass."""
        self._recompute.give_back()
        return super().named_parameters(prefix, recurse, remove_duplicate)

    def get_extra_state(self) -> Tensor:
        """Where the draws stand, part of the state_dict: float64 (seed, steps made, epoch)."""
        return torch.tensor([self.seed, self._index, self._epoch], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take up what `get_extra_state` gave, float64 (3,); the masks are drawn once the network is loaded."""
        seed, index, epoch = state.tolist()
        self.seed, self._index, self._epoch = int(seed), int(index), epoch

    def _draw(self) -> None:
        device = next(self.model.parameters()).device
        generator = torch.Generator(device).manual_seed(derived_seed(self.seed, "method", self._index))
        self.begin_step(TrainStep(epoch=self._epoch), generator)
        self._ran = self._stepped = False

    def _look_for_forgotten_step(self) -> None:
        """Warn once where a step of this network's optimizer lies between two forward passes with the same masks.

        Weights that change and no step is over are right: LBFGS runs the network inside its step, and sharpness-aware
        minimisation (SAM) runs it a second time with the weights moved.
        """
        _optimizer_steps().networks.add(self)
        self._ran = True
        if self._stepped and not self._warned:
            self._warned = True
            warnings.warn(
                "TargetedDropout: the weights changed, the masks did not: call net.step() after each optimizer.step(), or the"
                " same entries are dropped all the time",
                stacklevel=5,  # the caller's own line, beyond forward and the two frames of nn.Module's call
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._recompute.give_back()
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._draw()  # masks live where the parameters do
        return moved


class _OptimizerSteps:
    """Tells networks when an optimizer that holds parameters of theirs has finished a step."""

    def __init__(self) -> None:
        self.networks = WeakSet[TargetedDropout]()
        register_optimizer_step_post_hook(self._tell)

    def _tell(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for network in tuple(self.networks):
            if network._ran and any(id(parameter) in moved for parameter in network.model.parameters()):
                network._stepped = True


@functools.cache
def _optimizer_steps() -> _OptimizerSteps:
    return _OptimizerSteps()


def _require_unwrapped(model: nn.Module) -> None:
    """Refuse wrappers inside: a second one would drop anew what the first has dropped, and others hide the layers' names."""
    require_module(model)
    for name, module in model.named_modules():
        if isinstance(module, SparseNet):
            where = f"{name} of {type(model).__name__} is" if name else "the network is"
            raise ModelError(f"{where} in {type(module).__name__} already: use that one, or wrap what it holds, net.plain()")
    if (network := unwrapped(model)) is not model:
        around, inside = type(model).__name__, type(network).__name__
        raise ModelError(f"the network is in {around}: wrap the {inside} itself, and put {around} around TargetedDropout")


def _give_back(net: nn.Module, *_: object) -> None:
    """Before state_dict and load_state_dict: the network's own parameters, also where an interrupt ended a backward pass."""
    assert isinstance(net, TargetedDropout)
    net._recompute.give_back()


def _draw_again(net: nn.Module, _keys: object) -> None:
    """After load_state_dict: the masks of the weights and of the step that were loaded."""
    assert isinstance(net, TargetedDropout)
    net._draw()
