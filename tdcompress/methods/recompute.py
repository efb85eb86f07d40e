"""Layers that run again in the backward pass, as `torch.utils.checkpoint` has them, run with what they ran with before."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.hooks import RemovableHandle

from tdcompress.methods.base import Parameters


def recompute_with(model: nn.Module, effective: Callable[[Parameters], Mapping[str, Tensor]]) -> list[RemovableHandle]:
    """Hooks for the backward pass of one forward pass by ``functional_call``, which is over when the layers run again.

    A module that runs in a backward pass takes the effective parameters for its own and those of what is inside it. An ordinary
    forward pass is left alone, and so is one by ``functional_call`` in a backward pass: its modules hold others already.

    Args:
        model: the network.
        effective: some of its parameters, by name -> those of them that differ, differentiable.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    lent: dict[nn.Module, list[tuple[nn.Module, str, nn.Parameter]]] = {}

    def lend(module: nn.Module, _inputs: object) -> None:
        if torch._C._current_graph_task_id() < 0:
            return
        places = [(owner, key, own) for owner in module.modules() for key, own in owner._parameters.items() if id(own) in names]
        with saved_tensors_hooks(_itself, _itself):  # those of checkpoint count what the layers save, and masks are none of it
            params = effective({names[id(own)]: own for _, _, own in places if own is not None})
        lent[module] = [(owner, key, own) for owner, key, own in places if own is not None and names[id(own)] in params]
        for owner, key, own in lent[module]:
            owner._parameters[key] = params[names[id(own)]]  # type: ignore[assignment]  # as functional_call puts them there

    def take_back(module: nn.Module, _inputs: object, _output: object) -> None:
        for owner, key, own in lent.pop(module, ()):
            owner._parameters[key] = own

    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(lend))
        handles.append(module.register_forward_hook(take_back, always_call=True))  # checkpoint ends a second run by an exception
    return handles


def _itself(tensor: Tensor) -> Tensor:
    return tensor
