"""Zeros that stay: what is pruned is kept at exactly zero in any training loop, whatever optimizer makes the steps.

Three hooks do it. Nothing in the network is replaced, so its names, types and state_dict stay as they are.

- After each step of any ``torch.optim.Optimizer`` the entries, and its moments of them, are set to zero. What weight decay,
  momentum or noise would add is gone before anybody sees it.
- Their gradients are set to zero as they arrive, so that clipping by norm does not see them either.
- Each layer sets its own to zero before it runs, for updates that no optimizer makes.
"""

import functools
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from tdcompress.errors import ModelError, did_you_mean
from tdcompress.sparsity.scores import filter_rows
from tdcompress.sparsity.units import is_matrix, require_changeable, weight_slot

_log = logging.getLogger(__name__)
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class Frozen:
    """Zeros that are kept until ``remove``, or to the end of a ``with`` block.

    Args:
        keepers: one for each module that owns some of the entries.
        entrances: wrappers that compute from the parameters before any layer runs; all entries are zero when they are entered.
    """

    def __init__(self, keepers: Iterable["_Keeper"], entrances: Iterable[nn.Module] = ()) -> None:
        self._keepers = tuple(keepers)
        self._places = [keeper.module for keeper in self._keepers]
        for keeper in self._keepers:
            keeper.module.register_forward_pre_hook(keeper)
        for entrance in entrances:
            entrance.register_forward_pre_hook(_Entrance(self._keepers))
            self._places.append(entrance)

    def remove(self) -> None:
        """Let the entries train again. They are zero until the next update; a second call does nothing."""
        for place in self._places:
            _remove_hooks(place, self._keepers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.remove()


def freeze(model: nn.Module, masks: Mapping[str, Tensor] | None = None, *, entrances: Iterable[nn.Module] = ()) -> Frozen:
    """Keep entries at zero from now on, in place of what was frozen in this network before.

    Args:
        model: the plain network.
        masks: by parameter name, bool of the parameter's shape, True = trained; None = `pruned_entries`.
        entrances: see `Frozen`.

    Raises:
        ModelError: a mask that fits no parameter, or a network that was made in ``torch.inference_mode``.
    """
    found = pruned_entries(model) if masks is None else _from_masks(model, masks)
    if not any(bool(zeros.any()) for _, zeros in found):
        _log.warning("freeze: this %s has no zeros to keep; prune it first, if it should have", type(model).__name__)
    if found:
        require_changeable(model)
    entrances = tuple(entrances)
    for place in (model, *entrances):
        unfreeze(place)
    of = {id(parameter): zeros for parameter, zeros in found}
    keepers = []
    for module in model.modules():
        own = {name: of[id(p)] for name, p in module._parameters.items() if id(p) in of}
        if own:
            keepers.append(_Keeper(module, own))
    return Frozen(keepers, entrances)


def unfreeze(model: nn.Module) -> nn.Module:
    """Let all entries of a network train again; returns it."""
    for module in model.modules():
        _remove_hooks(module)
    return model


def pruned_entries(model: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    """What is pruned, as the zeros tell: (parameter, bool of its shape, True = zero).

    Of parameters with two or more axes every zero; of a layer's bias the zeros whose filter is zero; of a normalisation the
    entries whose scale and shift are both zero. Of what several layers share, the zeros that tell so in each of them. What is
    zero as a whole was not pruned but started so, and is left out.
    """
    found: dict[nn.Parameter, Tensor] = {}

    def add(parameter: nn.Parameter, zeros: Tensor) -> None:
        found[parameter] = found[parameter] & zeros if parameter in found else zeros

    for module in model.modules():
        own = {name: p for name, p in module._parameters.items() if p is not None and not nn.parameter.is_lazy(p)}
        if isinstance(module, _NORMS):
            zeros = [own[name] == 0 for name in ("weight", "bias") if name in own]
            if zeros:
                both = functools.reduce(torch.logical_and, zeros)
                for p in own.values():
                    add(p, both)
            continue
        for p in own.values():
            if p.ndim >= 2:
                add(p, p == 0)
        if is_matrix(module) and "weight" in own and "bias" in own:
            pruned = (own["weight"] != 0).any()  # a weight of zeros alone was started so
            add(own["bias"], (own["bias"] == 0) & _dead_filters(module, own["weight"]) & pruned)
    return [(p, zeros.detach()) for p, zeros in found.items() if bool(zeros.any()) and not bool(zeros.all())]


def moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> list[Tensor]:
    """What an optimizer remembers of each entry of a parameter: its tensors of the parameter's shape, such as momentum."""
    state = optimizer.state.get(parameter, {})
    return [value for value in state.values() if isinstance(value, Tensor) and value.shape == parameter.shape]


class _Keeper:
    """Keeps zeros of the parameters that one module owns; it is the module's forward pre-hook.

    Parameters are looked up by name each time, since moving a network can replace them. A deep copy of the module has a deep copy
    of this, which keeps the zeros there.
    """

    def __init__(self, module: nn.Module, zeros: Mapping[str, Tensor]) -> None:
        self.__setstate__({"module": module, "zeros": dict(zeros)})
        self.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self.module, "zeros": self.zeros}  # hooks of gradients are not copied: see `_watch`

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.module: nn.Module = state["module"]
        self.zeros: dict[str, Tensor] = state["zeros"]
        self._watched: dict[str, tuple[weakref.ref[nn.Parameter], RemovableHandle]] = {}
        _listen()
        _KEEPERS.add(self)

    def __call__(self, _module: nn.Module, _inputs: tuple[Any, ...]) -> None:
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if not traced:  # a graph that is traced shall not write weights
            self.clear()

    @torch.no_grad()
    def clear(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Set the entries, and an optimizer's moments of them, to zero.

        The write goes by ``data``: what an earlier forward pass saved for its backward pass has these zeros already.
        """
        for name, parameter, zeros in self.entries():
            parameter.data.masked_fill_(zeros, 0.0)
            for moment in () if optimizer is None else moments(optimizer, parameter):
                moment.masked_fill_(zeros, 0.0)
            self._watch(name, parameter)

    def entries(self) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
        """The parameters as they are now; not tensors that ``torch.func.functional_call`` puts in their place."""
        for name, zeros in self.zeros.items():
            parameter = self.module._parameters.get(name)
            if isinstance(parameter, nn.Parameter) and parameter.shape == zeros.shape:
                if zeros.device != parameter.device:
                    zeros = self.zeros[name] = zeros.to(parameter.device)
                yield name, parameter, zeros

    def _watch(self, name: str, parameter: nn.Parameter) -> None:
        """Put a hook on the gradient, where there is none yet: the parameter may be new, or may not have needed one before."""
        known = self._watched.get(name)
        if not parameter.requires_grad or (known is not None and known[0]() is parameter):
            return
        hook = _gradient_hook(weakref.ref(self), name)
        handle = parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        self._watched[name] = (weakref.ref(parameter), handle)

    def stop(self) -> None:
        """Keep nothing any more."""
        _KEEPERS.discard(self)
        for _, handle in self._watched.values():
            handle.remove()
        self.zeros = {}


class _Entrance:
    """Forward pre-hook of a wrapper, in front of all layers."""

    def __init__(self, keepers: tuple[_Keeper, ...]) -> None:
        self.keepers = keepers

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for keeper in self.keepers:
            keeper(module, inputs)


_KEEPERS: "weakref.WeakSet[_Keeper]" = weakref.WeakSet()


@functools.cache
def _listen() -> RemovableHandle:
    """Ask torch to tell of every step of every optimizer, once in this process."""
    return register_optimizer_step_post_hook(_after_step)


def _after_step(optimizer: torch.optim.Optimizer, _args: tuple[Any, ...], _kwargs: dict[Any, Any]) -> None:
    if not _KEEPERS:
        return
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for keeper in list(_KEEPERS):
        if any(id(parameter) in trained for _, parameter, _ in keeper.entries()):
            keeper.clear(optimizer)


def _gradient_hook(keeper: "weakref.ref[_Keeper]", name: str) -> Callable[[Tensor], None]:
    @torch.no_grad()
    def clear(parameter: Tensor) -> None:
        alive = keeper()
        zeros = None if alive is None else alive.zeros.get(name)
        if zeros is not None and parameter.grad is not None and parameter.grad.layout == torch.strided:
            parameter.grad.data.masked_fill_(zeros.to(parameter.device), 0.0)

    return clear


def _remove_hooks(place: nn.Module, own: Iterable[_Keeper] | None = None) -> None:
    """Take the hooks of these keepers, or of all, off a module; those of other people stay."""
    wanted = None if own is None else set(own)
    for key, hook in list(place._forward_pre_hooks.items()):
        if not isinstance(hook, _Keeper | _Entrance):
            continue
        keepers = {hook} if isinstance(hook, _Keeper) else set(hook.keepers)
        if wanted is None or keepers <= wanted:
            del place._forward_pre_hooks[key]
            for keeper in keepers:
                keeper.stop()


def _from_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> list[tuple[nn.Parameter, Tensor]]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found: dict[nn.Parameter, Tensor] = {}
    for name, mask in masks.items():
        if name not in parameters:
            raise ModelError(f"masks: {type(model).__name__} has no parameter {name!r}{did_you_mean(name, parameters)}")
        parameter = parameters[name]
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise ModelError(f"masks: that of {name} is {kind}, not a bool tensor (True = trained)")
        if mask.ndim != parameter.ndim or any(
            own not in (1, size) for own, size in zip(mask.shape, parameter.shape, strict=True)
        ):
            shapes = f"{tuple(mask.shape)}, the parameter {tuple(parameter.shape)}"
            raise ModelError(f"masks: that of {name} has shape {shapes}: they are of another network")
        zeros = ~mask.to(parameter.device).expand_as(parameter)
        found[parameter] = found[parameter] | zeros if parameter in found else zeros
    return list(found.items())


def _dead_filters(module: nn.Module, weight: Tensor) -> Tensor:
    """Which outputs of a layer have a filter of zeros alone, bool (outputs,)."""
    return filter_rows(weight == 0, weight_slot(module, "weight")).all(1)
