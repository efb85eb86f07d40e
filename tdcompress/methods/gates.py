"""Numbers that belong to single weights or whole units: what the methods with gates, noise or masks of their own share."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tdcompress.methods.base import Granularity, Method, Parameters
from tdcompress.seeds import derived_seed
from tdcompress.sparsity.masks import lay_along, widen_all
from tdcompress.sparsity.units import Slot, Targets


def state_name(kind: str, name: str) -> str:
    """How a method calls the state that it keeps for a parameter or a group: "log_alpha/conv1/weight".

    A dot cannot be part of a parameter's name in torch, and the slash keeps clear of a module's own attributes.
    """
    return f"{kind}/{name.replace('.', '/')}"


def state_generator(seed: int) -> torch.Generator:
    """A generator on the CPU for what a method draws once, independent of the network's initial weights of the same seed."""
    return torch.Generator().manual_seed(derived_seed(seed, "method state"))


def shapes(targets: Targets, granularity: Granularity, params: Parameters) -> dict[str, torch.Size]:
    """Shape of one number for each prunable weight, by parameter name, or for each unit, (O,) by group name.

    Args:
        targets: what the method may touch.
        granularity: "weight" or "unit".
        params: the network's, by name.
    """
    if granularity == "weight":
        return {slot.parameter: params[slot.parameter].shape for slot in targets.weights}
    return {group.name: torch.Size([group.size]) for group in targets.groups}


def weights_behind(targets: Targets, granularity: Granularity, params: Parameters) -> dict[str, int]:
    """How many weights each of these numbers stands for: one, or all of a unit's (the largest unit's, where they differ).

    Args:
        targets: what the method may touch.
        granularity: "weight" or "unit".
        params: the network's, by name.
    """
    if granularity == "weight":
        return {slot.parameter: 1 for slot in targets.weights}
    return {group.name: sum(_fan_in(slot, params) for slot in group.filters) for group in targets.groups}


def _fan_in(slot: Slot, params: Parameters) -> int:
    """Weights of one unit in one of its filters' parameters."""
    weight = params[slot.parameter]
    lines = 1 if slot.positions is None else max(map(len, slot.positions))
    return weight.numel() // weight.shape[slot.axis] * lines


def without(params: Parameters, targets: Targets, granularity: Granularity, removed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters that lose something, with +0.0 there; differentiable in what stays.

    Args:
        params: by name.
        targets: whose units are meant.
        granularity: what is removed.
        removed: bool, True = removed: by parameter name (of its shape), or (O,) by group name.
    """
    entries = widen_all(targets.groups, removed, params) if granularity == "unit" else removed
    return {name: params[name].masked_fill(selected, 0.0) for name, selected in entries.items()}


class Gated(Method):
    """A method with one number for each prunable weight, or for each unit, that multiplies it.

    A unit's gate multiplies all that is dropped and pruned with it: its filters and what is tied to them. So with ``unit =
    "whole"`` the layer's output is multiplied once, with or without BatchNorm: BatchNorm takes out the factor of the filter, and
    its affine has a factor of its own. With ``unit = "filter"``, the papers' form, only the filter is multiplied.
    """

    def __init__(self, targets: Targets, granularity: Granularity) -> None:
        super().__init__(targets)
        self.granularity = granularity

    def gated(self, params: Parameters, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters times their gates, differentiable in both; no gates at all change nothing.

        Args:
            params: by name, each of its own shape.
            gates: by parameter name (of its shape), or (O,) by group name.
        """
        return {name: params[name] * factor for name, factor in self._factors(params, gates).items()}

    def gated_exactly(self, params: Parameters, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`gated` for deployment: a closed gate leaves 0.0, never -0.0, which a packed file would have to keep.

        Args:
            params: by name, each of its own shape.
            gates: by parameter name (of its shape), or (O,) by group name.
        """
        return {name: value.masked_fill(value == 0, 0.0) for name, value in self.gated(params, gates).items()}

    def _factors(self, params: Parameters, gates: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.granularity == "weight":
            return gates
        factors: dict[str, Tensor] = {}
        for group in self.targets.groups:
            if group.name not in gates:
                continue
            for slot in (*group.filters, *group.tied):
                factor = lay_along(gates[group.name], slot, params[slot.parameter].shape, absent=1.0)
                earlier = factors.get(slot.parameter)
                factors[slot.parameter] = factor if earlier is None else earlier * factor
        return factors
