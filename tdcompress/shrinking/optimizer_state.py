"""What an optimizer remembers of a network, narrowed as the network was."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tdcompress.errors import ModelError, UnsupportedError
from tdcompress.shrinking.kept import Kept, from_json
from tdcompress.shrinking.surgery import Cut

ParameterState = dict[str, Any]


@torch.no_grad()
def narrow_state(optimizer: torch.optim.Optimizer, before: nn.Module, after: nn.Module, kept: Mapping[str, Any]) -> None:
    """Let an optimizer go on with the narrow network, in place.

    Its groups hold the narrow network's parameters where they held the full one's, in the same order, and what it remembers of
    them is cut as they were. A bias that shrinking added joins the group of its layer's weight, and nothing is remembered of it.
    Schedulers and others that hold the optimizer go on with it.

    Args:
        optimizer: over parameters of ``before``, and possibly others, which are left as they are.
        before: the full network.
        after: the narrow one.
        kept: ``Shrunk.kept``.

    Raises:
        ModelError: the optimizer trains nothing of ``before``, or ``kept`` is not of these two networks.
        UnsupportedError: something that it remembers is not of single entries (Adafactor's rows and columns, LBFGS), so that no
            part of it belongs to what stays.
    """
    description = from_json(kept)
    full, narrow = dict(before.named_parameters()), dict(after.named_parameters())
    _check(full, narrow, description)
    name_of = {id(parameter): name for name, parameter in full.items()}
    trained = [p for group in optimizer.param_groups for p in group["params"] if id(p) in name_of]
    if not trained:
        raise ModelError(f"the optimizer trains no parameter of this {type(before).__name__}: give the network before shrinking")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise UnsupportedError("LBFGS remembers all parameters as one vector, which has no narrow part: start a new optimizer")
    states = {
        name: _narrowed(optimizer.state[p], p, narrow[name], description.cuts.get(name), name)
        for p in trained
        if p in optimizer.state and (name := name_of[id(p)])
    }
    added = {name.rpartition(".")[0]: narrow[name] for name in description.new_biases}
    for group in optimizer.param_groups:
        owned = [name_of.get(id(p)) for p in group["params"]]
        group["params"] = [p if name is None else narrow[name] for p, name in zip(group["params"], owned, strict=True)]
        group["params"] += [added[layer] for name in owned if name and (layer := name.removesuffix(".weight")) in added]
    for parameter in trained:
        optimizer.state.pop(parameter, None)
    for name, state in states.items():
        optimizer.state[narrow[name]] = state


def _check(full: Mapping[str, nn.Parameter], narrow: Mapping[str, nn.Parameter], description: Kept) -> None:
    """Refuse a description of other networks before anything changes."""
    for name, parameter in full.items():
        cut = description.cuts.get(name)
        shape = tuple(parameter.shape) if cut is None else _shape(cut)
        if name not in narrow or tuple(narrow[name].shape) != shape or (cut and cut.shape != tuple(parameter.shape)):
            raise ModelError(
                f"{name}: kept is not of these two networks; give the full one, its Shrunk.model and its Shrunk.kept"
            )
    for name in description.new_biases:
        if name not in narrow:
            raise ModelError(
                f"{name}: the narrow network has no such bias; give the full one, its Shrunk.model and its Shrunk.kept"
            )


def _shape(cut: Cut) -> tuple[int, ...]:
    return tuple(
        len(rows[0]) if (rows := cut.keep.get(axis)) and isinstance(rows[0], list) else len(rows) if rows else size
        for axis, size in enumerate(cut.shape)
    )


def _narrowed(state: Mapping[str, Any], old: nn.Parameter, new: nn.Parameter, cut: Cut | None, name: str) -> ParameterState:
    """The state of one parameter."""
    if cut is None:
        return dict(state)
    narrowed: ParameterState = {}
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == old.shape:
            # fused kernels walk memory, so a moment must have its parameter's strides
            like = torch.empty_like(new, dtype=value.dtype, device=value.device)
            narrowed[key] = like.copy_(cut.apply(value, f"{key} of {name}"))
        elif value is None or isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1):
            narrowed[key] = value  # of the parameter as a whole, such as the number of steps
        else:
            found = f"has shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"is a {type(value).__name__}"
            raise UnsupportedError(
                f"{key} of {name} {found}, the parameter {tuple(old.shape)}: it cannot be narrowed; start a new optimizer"
            )
    return narrowed
