"""A copy of any network to work on, whatever tensors its modules hold."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.overrides import TorchFunctionMode

from tdcompress.errors import ModelError, one_line
from tdcompress.sparsity.freeze import unfreeze


class _AnyTensor(TorchFunctionMode):
    """Lets deepcopy take tensors that torch does not copy: results of an operator, and those made in inference mode.

    A module holds such tensors where its weight is computed in each forward pass (weight_norm, spectral_norm), or where it
    caches a feature. What is copied are their values.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (Tensor.__deepcopy__, nn.Parameter.__deepcopy__) and (not args[0].is_leaf or args[0].is_inference()):
            tensor, memo = args
            copied = tensor.detach().clone()
            if isinstance(tensor, nn.Parameter):
                copied = nn.Parameter(copied, requires_grad=tensor.requires_grad)
            return memo.setdefault(id(tensor), copied)
        return func(*args, **(kwargs or {}))


@torch.inference_mode(mode=False)
def duplicate(model: nn.Module) -> nn.Module:
    """A deep copy of a network, of ordinary tensors; nothing is frozen in it.

    Raises:
        ModelError: it cannot be copied, or torch.nn.utils.prune computes a weight anew in each forward pass.
    """
    name = type(model).__name__
    for path, module in model.named_modules():
        if any(isinstance(hook, BasePruningMethod) for hook in module._forward_pre_hooks.values()):
            raise ModelError(
                f"{path or name} is masked by torch.nn.utils.prune: make its zeros permanent first, with"
                " torch.nn.utils.prune.remove(layer, name)"
            )
    try:
        with _AnyTensor():
            return unfreeze(copy.deepcopy(model))
    except Exception as error:  # user classes raise anything
        raise ModelError(f"{name} cannot be copied: {type(error).__name__}: {one_line(error)}") from error
