"""What people call from Python with their own network and their own training loop. Needs torch; see ``tdcompress.__init__``."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from tdcompress.console import StageConsole, make_console
from tdcompress.errors import ModelError, UnsupportedError, UserError
from tdcompress.files import StrPath
from tdcompress.methods.base import Granularity, Step
from tdcompress.methods.targeted import Targeted, TargetedSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.recipes.shipped import find_recipe
from tdcompress.recipes.source import load_recipe
from tdcompress.records import Report
from tdcompress.runs.run import find_device, run_recipe
from tdcompress.shrink import rebuild
from tdcompress.shrink import shrink as exact
from tdcompress.shrink.align import check_align
from tdcompress.shrink.groups import find_units
from tdcompress.shrink.shrink import Shrunk
from tdcompress.shrink.trace import ExampleInputs
from tdcompress.sparsity.masks import Masks, apply_masks, unit_masks, weight_masks
from tdcompress.sparsity.patterns import PATTERNS
from tdcompress.sparsity.schedule import Constant, Cubic, Ramp
from tdcompress.sparsity.shares import Shares
from tdcompress.sparsity.units import Targets, UnitGroup, prunable_weights, require_module, require_values, unwrapped
from tdcompress.storage.csr import save_arrays
from tdcompress.train.update import FrozenZeros

Scope = Literal["layer", "group"]
Unit = Literal["whole", "filter"]


class TargetedDropout(SparseNet):
    """Targeted dropout around any module, for any training loop.

    ``net(x); loss.backward(); optimizer.step(); net.step()``. In training mode the network runs with entries dropped, in
    evaluation mode as it is; its own module, ``net.plain()``, stays an ordinary one.

    Args:
        model: the network; held, not copied.
        granularity: what is dropped: see ``prune``.
        gamma: targeting proportion, the share that are candidates; or
        keep_per_filter: Xtreme: candidates are all but this many weights of each filter.
        alpha: drop rate of a candidate.
        schedule: a ``Ramp`` or a ``Cubic``; then each ``step`` has to be told the epoch. None = constant.
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
        ValueError: a value out of range.
        ModelError: nothing to prune, a wrong name in ``exclude``, or no ``example_inputs`` for units.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        granularity: Granularity = "weight",
        gamma: float | None = None,
        keep_per_filter: int | None = None,
        alpha: float = 0.5,
        schedule: Ramp | Cubic | None = None,
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
        _check_granularity(granularity)
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
        weights = prunable_weights(model, exclude)
        if any(parameter.is_inference() for parameter in model.parameters()):
            raise ModelError(f"{type(model).__name__} was made in torch.inference_mode and cannot be trained; build it outside")
        groups = find_groups(model, example_inputs, exclude, include, scope, unit) if granularity == "unit" else ()
        method = settings.build(Targets(weights=weights, groups=groups), model)
        assert isinstance(method, Targeted)
        method.schedule = schedule or method.schedule
        super().__init__(model, method, l1=l1)
        self.seed = seed
        self._index, self._epoch = 0, 0.0
        self._generator: torch.Generator | None = None
        self._draw()

    def step(self, epoch: float | None = None, optimizer: torch.optim.Optimizer | None = None) -> None:
        """To be called after each ``optimizer.step()``: draws the next masks, which hold for all micro-batches until then.

        Args:
            epoch: epochs done so far, with fraction; needed with a schedule.
            optimizer: needed with a schedule that freezes the masks: its moments of what is dropped are set to zero then.

        Raises:
            UserError: a schedule, and no epoch; or the masks are frozen, and there is no optimizer.
        """
        if epoch is None and not isinstance(getattr(self.method, "schedule", None), Constant):
            raise UserError("step(): a schedule needs to know the epoch; call net.step(epoch + batch / batches)")
        now = self._epoch if epoch is None else epoch
        frozen = self.method.frozen(now)
        if frozen and optimizer is None:
            raise UserError("step(): the masks are frozen now, and the optimizer has moments: call net.step(epoch, optimizer)")
        self.end_step()
        self._index += 1
        self._epoch = now
        self._draw()
        if frozen:  # its making sets them to zero; without moments and gradients they stay so
            FrozenZeros(self.parameters_by_name(), {name: ~each for name, each in self.method.dropped().items()}, optimizer)

    def _draw(self) -> None:
        device = next(self.model.parameters()).device
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device).manual_seed(self.seed + self._index)
        self.begin_step(Step(epoch=self._epoch), self._generator)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._draw()  # masks live where the parameters do
        return moved


def find_groups(
    model: nn.Module,
    example_inputs: ExampleInputs | None,
    exclude: Sequence[str],
    include: Sequence[str],
    scope: Scope,
    unit: Unit,
) -> tuple[UnitGroup, ...]:
    """The units of a network; warns of the layers that are left whole since no unit of theirs could leave.

    Raises:
        ModelError: no example inputs.
    """
    if example_inputs is None:
        raise ModelError("units: give example_inputs (a batch as the network takes it), so that the network can be traced")
    units = find_units(model, example_inputs, prunable_weights(model, exclude), scope=scope, unit=unit, include=include)
    if units.fixed:
        warnings.warn(str(units), stacklevel=3)
    return units.groups


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
        fraction: pruned share; exactly floor(fraction * n) of the decimal as written.
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
        ValueError: granularity, fraction, keep_per_filter, shares or align out of range, or two of them that exclude each other.
        ModelError: no module, nothing to prune, or no ``example_inputs`` for units.
    """
    _check_granularity(granularity)
    check_align(align)
    model = _plain(model)
    require_values(model)
    params = {name: value.detach() for name, value in model.named_parameters()}
    if granularity != "unit":
        weights, pattern = prunable_weights(model, exclude), None if granularity == "weight" else granularity
        masks = weight_masks(
            params, weights, fraction=fraction, keep_per_filter=keep_per_filter, shares=shares or "filter", pattern=pattern
        )
    else:
        if fraction is None or keep_per_filter is not None:
            raise ValueError("units are pruned by fraction; keep_per_filter counts weights")
        groups = find_groups(model, example_inputs, exclude, include, scope, unit)
        masks = unit_masks(params, groups, fraction=fraction, align=align, shares=shares or "layer")
    apply_masks(model, masks)
    return masks


def shrink(model: nn.Module, example_inputs: ExampleInputs, *, align: int = 1) -> Shrunk:
    """Remove every channel that cannot matter; see ``tdcompress.shrink.shrink.shrink``.

    Args:
        model: any module that torch.export accepts, not modified; of one in ``TargetedDropout`` the network, after ``plain()``.
        example_inputs: tensor or tuple of tensors, any batch size.
        align: let some channels stay, so that widths are multiples of this.
    """
    return exact.shrink(_plain(model), example_inputs, align=align)


def narrow(model: nn.Module, kept: Mapping[str, Any]) -> nn.Module:
    """Build the narrow network of a shrinking again; see ``tdcompress.shrink.rebuild.narrow``.

    Args:
        model: as its constructor makes it, not modified; of one in ``TargetedDropout`` the network, after ``plain()``.
        kept: ``Shrunk.kept``.
    """
    return rebuild.narrow(_plain(model), kept)


def _plain(model: nn.Module) -> nn.Module:
    """The ordinary network, out of its wrapper."""
    require_module(model)
    model = unwrapped(model)
    return unwrapped(model.plain()) if isinstance(model, SparseNet) else model


def _check_granularity(granularity: str) -> None:
    """Refuse a misspelt one, which would else choose the other silently."""
    if granularity not in ("weight", "unit", *PATTERNS):
        raise ValueError(f"granularity is 'weight', 'unit', '2:4' or '1x4', not {granularity!r}")


def save_sparse(model: nn.Module, path: StrPath) -> int:
    """Write a network's weights as scipy CSR where that is smaller; ``load_sparse`` reads them without torch.

    bfloat16, which numpy does not have, is written as float32, exactly.

    Returns:
        Bytes on disk.
    """
    tensors = _plain(model).state_dict()
    return save_arrays({name: _as_array(value, name) for name, value in tensors.items()}, Path(path))


def _as_array(tensor: Tensor, name: str) -> Any:
    tensor = tensor.detach().cpu()
    try:
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise UnsupportedError(f"{name} cannot be stored: {str(error).splitlines()[0]}") from error


def run(
    recipe: StrPath,
    set: Mapping[str, Any] | None = None,
    *,
    artifacts: StrPath = "artifacts",
    device: str = "auto",
    replace: bool = False,
) -> Report:
    """Run a recipe to its report, as ``tdcompress run`` does.

    Args:
        recipe: a file, or the name of a shipped recipe.
        set: dotted key -> value, as ``--set`` gives them.
        artifacts: where runs are kept.
        device: "auto", "cpu" or "cuda".
        replace: whether a finished run of this name by another recipe may be replaced.
    """
    loaded = load_recipe(find_recipe(Path(recipe)), set)
    with StageConsole(make_console()) as watcher:
        return run_recipe(loaded, root=Path(artifacts), device=find_device(device), watcher=watcher, replace=replace).report
