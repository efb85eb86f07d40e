"""What people call from Python with their own network and their own training loop. Needs torch; see ``tdcompress.__init__``."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tdcompress.arguments import checked
from tdcompress.console import StageConsole, make_console
from tdcompress.errors import ArgumentError, ModelError, UnsupportedError, of_system, one_line
from tdcompress.files import StrPath
from tdcompress.methods.base import Granularity
from tdcompress.methods.wrapper import SparseNet
from tdcompress.recipes.overrides import load_changed
from tdcompress.recipes.shipped import find_recipe
from tdcompress.records.report import Report
from tdcompress.runs.execution import Execution
from tdcompress.runs.run import find_device, run_recipe
from tdcompress.shrinking import exact, optimizer_state, rebuild
from tdcompress.shrinking.align import check_align
from tdcompress.shrinking.exact import Shrunk
from tdcompress.shrinking.groups import find_units
from tdcompress.shrinking.trace import ExampleInputs
from tdcompress.sparsity import freeze as zeros
from tdcompress.sparsity.freeze import Frozen
from tdcompress.sparsity.masks import Masks, apply_masks, unit_masks, weight_masks
from tdcompress.sparsity.patterns import check_fraction
from tdcompress.sparsity.reach import WeightShare, unit_reach, weight_reach
from tdcompress.sparsity.shares import Shares
from tdcompress.sparsity.units import UnitGroup, prunable_weights, require_layers, require_module, require_values, unwrapped
from tdcompress.storage.csr import save_arrays

Scope = Literal["layer", "group"]
Unit = Literal["whole", "filter"]


def find_groups(
    model: nn.Module,
    example_inputs: ExampleInputs | None,
    exclude: Sequence[str],
    include: Sequence[str],
    scope: Scope,
    unit: Unit,
) -> tuple[UnitGroup, ...]:
    """The units of a network; warns of the layers that are left whole since no unit of theirs could leave.

    Args:
        model: the network.
        example_inputs: a batch as it takes it; needed.
        exclude: names of layers that stay dense.
        include: names of layers whose units are offered although they can never leave.
        scope: "layer" or "group"; see ``prune``.
        unit: "whole" or "filter"; see ``prune``.

    Raises:
        ModelError: no example inputs.
    """
    if example_inputs is None:
        raise ModelError("units: give example_inputs (a batch as the network takes it), so that the network can be traced")
    units = find_units(model, example_inputs, prunable_weights(model, exclude), scope=scope, unit=unit, include=include)
    if units.fixed:
        warnings.warn(str(units), stacklevel=4)  # the caller of what is `checked`
    return units.groups


_OF_UNITS = {"include": (), "scope": "layer", "unit": "whole", "draw": "unit", "align": 1}  # and what says nothing


def require_units(granularity: Granularity, **arguments: object) -> None:
    """Refuse what is said of units where none are meant. A default passes: it cannot be told from nothing said.

    Args:
        granularity: what is pruned, or dropped.
        arguments: those that are of units only.

    Raises:
        ArgumentError: names the argument.
    """
    for name, value in arguments.items():
        if granularity != "unit" and value != _OF_UNITS[name] and not (name == "include" and not value):
            raise ArgumentError(
                f'{name}: it is of units, and granularity is "{granularity}"; give granularity = "unit", or leave {name} out'
            )


def _require_share(granularity: Granularity, fraction: float | None, keep_per_filter: int | None, shares: Shares | None) -> None:
    """Refuse what does not say how much is pruned, or says it twice; as [prune] of a recipe does.

    Raises:
        ArgumentError: names the argument.
    """
    if keep_per_filter is not None:
        if granularity == "unit":
            raise ArgumentError('keep_per_filter: it counts weights of a filter; with granularity = "unit" give fraction')
        if granularity == "2:4":
            raise ArgumentError('keep_per_filter: "2:4" keeps two of every four; give fraction = 0.5')
        if shares is not None and fraction is None:
            raise ArgumentError("shares: they split a fraction; keep_per_filter says how many weights of each filter stay")
    elif fraction is None:
        other = "" if granularity in ("unit", "2:4") or shares else ", or keep_per_filter, the weights of each filter that stay"
        raise ArgumentError(f"fraction: give fraction, the share that is pruned{other}")
    if granularity == "2:4":
        if shares is not None:
            raise ArgumentError('shares: "2:4" prunes two of every four; there is nothing to split')
        try:
            check_fraction(fraction or 0, "2:4")
        except ArgumentError as error:
            raise ArgumentError(f"fraction: {error}") from None


@checked
def prune(
    model: nn.Module,
    *,
    granularity: Granularity = "weight",
    fraction: float | None = None,
    keep_per_filter: int | None = None,
    example_inputs: ExampleInputs | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    scope: Scope = "layer",
    unit: Unit = "whole",
    shares: Shares | None = None,
    align: int = 1,
) -> Masks:
    """Set the lowest-magnitude weights or units to exactly zero, in place (section 2.2).

    Args:
        model: any module, or a network in ``TargetedDropout``.
        granularity: what is pruned: a "weight" or a "unit"; "2:4", two of every four; or "1x4", blocks over four filters.
        fraction: pruned share, 0..1; exactly floor(fraction * n) of the decimal as written. One weight of each filter, or one
            unit of each group, stays; where that leaves less to prune, as at 1, a warning says how much went, and likewise where
            floor leaves nothing.
        keep_per_filter: instead, for weights: how many stay in each filter.
        example_inputs: needed for units.
        exclude: layers that stay dense, besides those the network declares in ``unprunable`` or else its last linear one.
        include: for units: layers to prune although no unit of theirs could ever leave. What the network returns is left whole by
            default, and so are streams that nothing can narrow (a LayerNorm reads them, their number of heads is written in the
            forward code); a warning names the latter, since zeros there cost accuracy and save nothing.
        scope: for units: ranked inside each "layer", or all writers of a residual stream together ("group").
        unit: "whole": a unit is its filter, bias, and the affine of the BatchNorm that sees it alone; or the "filter" alone.
        shares: how the fraction is split: the same of every "filter" (weights; the default), of every "layer" (for units, the
            default, of every group), by "erk", or "global": see ``tdcompress.sparsity.shares.selected_counts``.
        align: for units: kept counts are rounded up to a multiple of this.

    Returns:
        Masks by parameter name; True = kept.

    Raises:
        ArgumentError: an argument of a wrong type or out of range, or two of them that exclude each other.
        ModelError: no module, nothing to prune, or no ``example_inputs`` for units.
    """
    check_align(align)
    require_units(granularity, include=include, scope=scope, unit=unit, align=align)
    _require_share(granularity, fraction, keep_per_filter, shares)
    model = _plain(model)
    require_values(model)
    params = {name: value.detach() for name, value in model.named_parameters()}
    if granularity != "unit":
        weights, pattern = prunable_weights(model, exclude), None if granularity == "weight" else granularity
        budget = WeightShare(fraction=fraction, keep_per_filter=keep_per_filter, shares=shares or "filter", pattern=pattern)
        masks, reach = weight_masks(params, weights, **budget), weight_reach(params, weights, **budget)
    else:
        assert fraction is not None
        groups = find_groups(model, example_inputs, exclude, include, scope, unit)
        masks = unit_masks(params, groups, fraction=fraction, align=align, shares=shares or "layer")
        reach = unit_reach(params, groups, fraction=fraction, shares=shares or "layer")
    if str(reach):
        asked = f"keep_per_filter = {keep_per_filter}" if fraction is None else f"fraction = {fraction}"
        warnings.warn(f"{asked}: {reach}", stacklevel=3)  # the caller of what is `checked`
    apply_masks(model, masks)
    return masks


@checked
def shrink(model: nn.Module, example_inputs: ExampleInputs, *, align: int = 1) -> Shrunk:
    """Remove every channel that cannot matter; see ``tdcompress.shrinking.exact.shrink``.

    Args:
        model: any module that torch.export accepts, not modified; of one in ``TargetedDropout`` the network, after ``plain()``.
        example_inputs: tensor or tuple of tensors, any batch size.
        align: let some channels stay, so that widths are multiples of this.
    """
    return exact.shrink(_plain(model), example_inputs, align=align)


@checked
def narrow(model: nn.Module, kept: Mapping[str, Any]) -> nn.Module:
    """Build the narrow network of a shrinking again; see ``tdcompress.shrinking.rebuild.narrow``.

    Args:
        model: as its constructor makes it, not modified; of one in ``TargetedDropout`` the network, after ``plain()``.
        kept: ``Shrunk.kept``.
    """
    return rebuild.narrow(_plain(model), kept)


@checked
def freeze(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> Frozen:
    """Keep what is pruned at exactly zero while a network trains on, in any loop and by any ``torch.optim.Optimizer``.

    The entries are zero in every forward pass and after every step: momentum, weight decay and noise included. Their gradients
    are zero too, so that clipping by norm counts only what trains. The network's names, types and state_dict stay as they are.
    A deep copy is frozen likewise; ``tdc.freeze(copy).remove()`` lets it go. What ``tdc.shrink`` returns is not frozen: where it
    says that dead units stay, freeze it anew.

    Limits: an update that no ``torch.optim.Optimizer`` makes is undone when the layer runs next, not at once. Under
    torch.compile the layers do not look, and the optimizer's steps alone keep the zeros. A weight that other modules compute
    from the parameter, or that ``torch.func.functional_call`` puts in its place, is not seen. FSDP is not supported.

    Args:
        model: any module, or a network in ``TargetedDropout``, DistributedDataParallel or torch.compile.
        masks: what ``tdc.prune`` returned: bool by parameter name, of its shape. True = trained, False = set to zero now and
            kept so. None = what is zero now: in weight matrices every zero; in a bias the zeros of filters that are zero; in a
            normalisation the channels whose scale and shift are both zero. A tensor that is zero as a whole was started so, and
            trains.

    Returns:
        A handle: ``remove()`` lets the entries train again, and so does the end of a ``with`` block. A second call of this
        function takes the place of the first.

    Raises:
        ModelError: masks of another network, or one that was made in ``torch.inference_mode``.
    """
    plain = _plain(model)
    require_layers(plain)
    require_values(plain)
    outer = unwrapped(model)
    # targeted dropout, of the network or of a part, computes weights from the parameters before any layer runs
    return zeros.freeze(plain, masks, entrances=[module for module in outer.modules() if isinstance(module, SparseNet)])


@checked
def narrow_state(optimizer: torch.optim.Optimizer, before: nn.Module, after: nn.Module, kept: Mapping[str, Any]) -> None:
    """Carry an optimizer over a shrinking; see ``tdcompress.shrinking.optimizer_state.narrow_state``.

    Args:
        optimizer: changed in place: it goes on with the narrow network, its momentum or moments cut as the parameters were.
        before: the network that was shrunk, or the ``TargetedDropout`` around it.
        after: ``Shrunk.model``.
        kept: ``Shrunk.kept``.
    """
    full, narrow = _plain(before), _plain(after)
    require_values(full)
    require_values(narrow)
    optimizer_state.narrow_state(optimizer, full, narrow, kept)


def _plain(model: nn.Module) -> nn.Module:
    """The ordinary network, out of its wrapper."""
    require_module(model)
    model = unwrapped(model)
    return unwrapped(model.plain()) if isinstance(model, SparseNet) else model


@checked
def save_sparse(model: nn.Module, path: StrPath) -> int:
    """Write a network's weights as scipy CSR where that is smaller; ``load_sparse`` reads them without torch.

    bfloat16, which numpy does not have, is written as float32, exactly.

    Returns:
        Bytes on disk.
    """
    model = _plain(model)
    require_values(model)
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return save_arrays({name: _as_array(value, name) for name, value in tensors.items()}, Path(path))


def _as_array(tensor: Tensor, name: str) -> Any:
    tensor = tensor.detach().cpu()
    try:
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise UnsupportedError(f"{name} cannot be stored: {one_line(error)}") from error


@checked
def run(
    recipe: StrPath,
    set: Mapping[str, Any] | None = None,
    *,
    artifacts: StrPath = "artifacts",
    device: str = "auto",
    replace: bool = False,
    wait: bool = False,
) -> Report:
    """Run a recipe to its report, as ``tdcompress run`` does.

    Args:
        recipe: a file, or the name of a shipped recipe.
        set: dotted key -> value, as ``--set`` gives them.
        artifacts: where runs are kept: a folder, or "s3://bucket/prefix".
        device: "auto", "cpu" or "cuda".
        replace: whether a finished run of this name by another recipe may be replaced.
        wait: for what another process has or makes; without it that is an error.

    Raises:
        UserError: a recipe, a key of ``set`` or another argument that is wrong, or a run that another process has.
        TdcompressError: the run failed otherwise; see ``tdcompress.errors``.
    """
    loaded = load_changed(find_recipe(Path(recipe)), set)
    try:
        with StageConsole(make_console()) as watcher:
            execution = Execution(
                root=artifacts, device=find_device(device), watcher=watcher, waiting=watcher.waiting if wait else None
            )
            return run_recipe(loaded, execution, replace=replace).report
    except OSError as error:  # a full disk, a folder that may not be written
        raise of_system(error) from error
