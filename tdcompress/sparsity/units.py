"""Weights and units: what a method may touch, and what is dropped, pruned and removed together."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch import nn

from tdcompress.errors import ModelError, UnsupportedError

MATRIX_TYPES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where the entries of a group's units lie in one parameter.

    Attributes:
        parameter: the parameter's qualified name, as in ``model.named_parameters()``.
        axis: the axis that units are counted along.
        positions: for each unit the indices along ``axis`` that are its own, possibly none; None = unit u has index u alone.
        groups: of a transposed convolution, whose inputs lie along axis 0 one group after another; 1 for all else. With several
            of them a filter is one index of axis 1 in one group (`tdcompress.sparsity.scores.by_filter`), and no line of the
            parameter; what lies along axis 0 are the groups.
    """

    parameter: str
    axis: int = 0
    positions: tuple[tuple[int, ...], ...] | None = None
    groups: int = 1

    def owners(self, units: int) -> tuple[list[int], list[int]]:
        """Units, each as often as it has indices along ``axis``, and these indices.

        Args:
            units: how many the group has.
        """
        if self.positions is None:
            return [*range(units)], [*range(units)]
        pairs = [(unit, index) for unit, own in enumerate(self.positions) for index in own]
        return [unit for unit, _ in pairs], [index for _, index in pairs]


@dataclass(frozen=True, kw_only=True)
class UnitGroup:
    """Units that are dropped, pruned and removed together.

    In scope "layer" a group is one layer's filters; in scope "group" it is all writers of a shared stream (a residual sum),
    whose channel u is one unit.

    Attributes:
        name: the first writer's module name, "conv1"; unique in a network.
        size: number of units.
        filters: the weight matrices whose filters are ranked: a unit's score is the L2 norm over all of them (Equation 1).
        tied: what else is zero when a unit is: biases, and the affine of each BatchNorm that sees these units alone.
    """

    name: str
    size: int
    filters: tuple[Slot, ...]
    tied: tuple[Slot, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a method may touch in one network.

    Attributes:
        weights: the prunable weight matrices; each slot's axis is the output axis.
        groups: the units of those matrices; empty where only single weights are of interest.
    """

    weights: tuple[Slot, ...]
    groups: tuple[UnitGroup, ...] = ()


def is_matrix(module: nn.Module) -> bool:
    """Whether a layer has a weight matrix that makes units and reads others."""
    return isinstance(module, MATRIX_TYPES) or is_transposed_linear(module)


def is_transposed_linear(module: nn.Module) -> bool:
    """Whether a layer is HuggingFace's ``Conv1D`` (GPT-2): a linear layer whose weight is (inputs, outputs)."""
    weight = module._parameters.get("weight")
    return type(module).__name__ == "Conv1D" and weight is not None and weight.ndim == 2 and hasattr(module, "nf")


def output_axis(module: nn.Module) -> int:
    """The axis of ``module.weight`` that counts output channels: 1 for transposed convolutions and ``Conv1D``, 0 else.

    In a transposed convolution with groups it counts those of each group.
    """
    return 1 if _is_transposed_convolution(module) or is_transposed_linear(module) else 0


def weight_slot(module: nn.Module, parameter: str) -> Slot:
    """Where the filters of a layer lie in its weight.

    Args:
        module: for which `is_matrix` holds.
        parameter: the weight's qualified name.
    """
    groups = int(module.groups) if _is_transposed_convolution(module) else 1  # type: ignore[arg-type]
    return Slot(parameter=parameter, axis=output_axis(module), groups=groups)


def _is_transposed_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)


def require_module(model: object) -> None:
    """Refuse what is no network before anything is asked of it.

    Raises:
        ModelError: not an nn.Module.
    """
    if not isinstance(model, nn.Module):
        given = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise ModelError(f"the model has to be a torch.nn.Module, and is {given}")


def require_layers(model: nn.Module) -> None:
    """Refuse a network whose layers are compiled away.

    Raises:
        UnsupportedError: a TorchScript program, or a part that is one.
    """
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            what = f"{path} of {type(model).__name__}" if path else "the model"
            raise UnsupportedError(
                f"{what} is a TorchScript program, whose layers cannot be changed: give the module it is made of"
            )


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):  # torch.compile
            model = inner
        else:
            return model


def require_values(model: nn.Module) -> None:
    """Refuse a network without weights to look at.

    Raises:
        ModelError: lazy layers that have not seen an input yet, or tensors on the meta device.
    """
    name = type(model).__name__
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ModelError(f"{path} of {name} has no shape yet: run the network once, so that its lazy layers are made")
        if tensor.is_meta:
            raise ModelError(f"{path} of {name} is on the meta device and has no values: load its weights first")


def require_changeable(model: nn.Module) -> None:
    """Refuse a network whose tensors torch lets nobody change.

    Raises:
        ModelError: one that was made in ``torch.inference_mode``.
    """
    if any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers())):
        raise ModelError(f"{type(model).__name__} was made in torch.inference_mode and cannot be changed; build it outside")


def prunable_weights(model: nn.Module, exclude: Sequence[str] = ()) -> tuple[Slot, ...]:
    """The weight matrices that a method may touch, in the order of the network's modules.

    A network declares what must stay with an attribute ``unprunable`` (a tuple of module names: stem, head). One that declares
    nothing keeps its last Linear layer, or its last convolution where there is none. (The papers prune every matrix but those
    that lead to the logits; the released code also spares the 7x7 stem.) A weight that several layers share is one weight, and
    stays dense where any of them does.

    Args:
        model: any module.
        exclude: further module names ("features.0", or "features" for all below it) that must stay dense.

    Raises:
        ModelError: a name, given or declared, that matches no convolution or linear layer, a network without any prunable one,
            a layer whose weight is computed from other parameters, or one whose weight lies in the memory of another one's.
        UnsupportedError: a TorchScript program.
    """
    require_module(model)
    require_layers(model)
    require_values(model)
    matrices = {name: module for name, module in model.named_modules() if is_matrix(module)}
    if not matrices:
        raise ModelError(f"{type(model).__name__} has no convolution or linear layer: nothing can be pruned")
    declared = getattr(model, "unprunable", None)
    if declared is None:
        linear = [name for name, module in matrices.items() if isinstance(module, nn.Linear)]
        declared = ((linear or list(matrices))[-1],)
    spared = (*declared, *exclude)
    for prefix in spared:
        if not any(is_below(name, prefix) for name in matrices):
            known = [name or "only itself" for name in matrices]
            listed = ", ".join([*known[:8], "..."] if len(known) > 8 else known)
            key = "exclude" if prefix in exclude else "unprunable"
            raise ModelError(
                f"{key} = {prefix!r} names no convolution or linear layer of {type(model).__name__}; it has {listed}"
            )
    first_name = {id(parameter): name for name, parameter in model.named_parameters()}
    stays = {name for name in matrices if any(is_below(name, prefix) for prefix in spared)}
    slots, seen = [], {id(matrices[name]._parameters.get("weight")) for name in stays}
    for name, module in matrices.items():
        if name in stays:
            continue
        weight = module._parameters.get("weight")  # to ask a parametrization for it may change what that has stored
        if weight is None:
            raise ModelError(
                f"the weight of {name or type(model).__name__} is computed from other parameters (weight_norm, ...), so "
                f"that zeros in it would not last; remove the parametrization first, or leave the layer out: exclude = [{name!r}]"
            )
        if id(weight) in seen:
            continue
        seen.add(id(weight))
        slots.append(weight_slot(module, first_name[id(weight)]))
    _refuse_overlaps(matrices, {name for name in matrices if name not in stays})
    if not slots and not exclude:
        kept = ", ".join(name or "its only layer" for name in declared)
        raise ModelError(f"{type(model).__name__} has no layer to prune beside {kept}, which gives the result and stays dense")
    if not slots:
        raise ModelError(f"every layer of {type(model).__name__} is excluded: nothing is left to prune")
    return tuple(slots)


def _refuse_overlaps(matrices: Mapping[str, nn.Module], prunable: Set[str]) -> None:
    """Refuse two parameters in the same memory, ``nn.Parameter(encoder.weight.t())``: what one loses, the other has lost too.

    Args:
        matrices: layers by name.
        prunable: those of them whose weights may lose entries.

    Raises:
        ModelError: names both layers.
    """
    spans: dict[nn.Parameter, tuple[int, int, str]] = {}
    for name, module in matrices.items():
        weight = module._parameters.get("weight")
        extent = 0 if weight is None else sum((n - 1) * step for n, step in zip(weight.shape, weight.stride(), strict=True)) + 1
        if weight is not None and weight.numel() == extent and type(weight) is nn.Parameter:  # others lie in strips
            spans.setdefault(weight, (weight.data_ptr(), weight.data_ptr() + extent * weight.itemsize, name))
    ordered = sorted(spans.values())
    for place, (_, end, name) in enumerate(ordered, start=1):
        for begin, _, other in ordered[place:]:  # a long one may reach over several
            if begin >= end:
                break
            if prunable & {name, other}:
                raise ModelError(
                    f"the weights of {name} and {other} are two parameters in the same memory: make them one parameter, which "
                    "both apply, or two that share nothing"
                )


def is_below(name: str, prefix: str) -> bool:
    """Whether a module is the named one, or inside it."""
    return name == prefix or name.startswith(prefix + ".")
