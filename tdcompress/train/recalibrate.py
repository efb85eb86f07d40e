"""BatchNorm statistics estimated again: what pruning does to a layer's inputs, its running mean and variance do not know."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tdcompress.arguments import checked, given
from tdcompress.errors import ModelError, one_line
from tdcompress.sparsity.units import require_changeable, require_values
from tdcompress.train.evaluate import full_float32

Batch = Tensor | tuple[Tensor, ...]
"""What a model takes: a tensor (B, ...), or one for each argument."""

_log = logging.getLogger(__name__)


def layers_with_statistics(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers that normalise by running statistics, by name."""
    return {name: module for name, module in model.named_modules() if _has_statistics(module)}


@checked
@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Batch]) -> tuple[str, ...]:
    """Give every BatchNorm layer the mean and variance of its inputs over all images, in place; weights stay as they are.

    Layer by layer, in the order of the forward pass: the statistics of a layer are pooled over all images, computed with the
    pooled statistics of the layers before it. So neither the size of the batches nor their order matters, but for rounding. In
    the network as it is evaluated, each layer's statistics are those of its input. A pass in training mode with all images in one
    batch gives the same, but normalises by the biased variance. The price is a pass for each BatchNorm layer, ended at that
    layer. Together that is about half as many whole passes over the images as there are layers. To average the statistics of
    batches in one pass is cheaper, but depends on their size: each batch is then normalised by its own.

    Args:
        model: any module; its BatchNorm layers with running statistics are changed, its modes are not. A layer that the forward
            pass leaves out keeps its statistics.
        batches: what the model takes, on its device: (B, ...), or a tuple of such. They are held in memory.

    Returns:
        The names of the layers that were changed; none where the model has no such layer, which is said in the log.

    Raises:
        ModelError: no batches, or such that the model does not take; a network without values, or one made in
            ``torch.inference_mode``; statistics that are not finite,
            fewer than two values of a channel, or a layer that one forward pass uses several times. Names the layer, and leaves
            the model as it was.
    """
    require_values(model)
    require_changeable(model)
    norms = layers_with_statistics(model)
    if not norms:
        _log.warning("no BatchNorm layer with running statistics in this %s: nothing to re-estimate", type(model).__name__)
        return ()
    inputs = _listed(batches)
    if not inputs:
        raise ModelError(f"{next(iter(norms))}: no batches to estimate its statistics from")
    device = next(model.buffers()).device
    with _evaluating(model), full_float32(device), _restored_on_error(norms):
        try:
            order = _order_of_use(model, norms, inputs[0])
            for name in order:
                _pool(model, name, norms[name], inputs)
        except ModelError:
            raise
        except Exception as error:  # user code raises anything
            raise ModelError(f"{type(model).__name__} does not take the batches: {one_line(error)}") from error
    return order


def _listed(batches: Iterable[Batch]) -> list[tuple[Tensor, ...]]:
    """The inputs of each forward pass.

    Raises:
        ModelError: something else than tensors; or one tensor, whose images would be taken for batches.
    """
    if isinstance(batches, Tensor | str | Mapping | nn.Module):
        raise ModelError(f"batches has to be a list of what the model takes, [x1, x2, ...], and is {given(batches)}")
    inputs = [tuple(batch) if isinstance(batch, tuple | list) else (batch,) for batch in batches]
    for index, batch in enumerate(inputs):
        for each in batch:
            if not isinstance(each, Tensor):
                raise ModelError(f"batches[{index}] has to be a tensor or a tuple of tensors, and has {given(each)}")
    return inputs


class _Reached(Exception):
    """The forward pass came to the layer whose input is wanted; the rest of it is not needed."""


@dataclass(kw_only=True)
class _Moments:
    """Count, mean and sum of squared deviations of each channel, float64; batches are merged exactly (Chan et al., 1979)."""

    count: int = 0
    mean_C: Tensor | float = 0.0
    squares_C: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        """Take in a batch (B, C, ...)."""
        values_CN = values.double().transpose(0, 1).flatten(1)
        count = values_CN.shape[1]
        if not count:
            return
        mean_C = values_CN.mean(1)
        total, apart_C = self.count + count, mean_C - self.mean_C
        self.squares_C = (
            self.squares_C + (values_CN - mean_C[:, None]).square_().sum(1) + apart_C**2 * (self.count * count / total)
        )
        self.mean_C = self.mean_C + apart_C * (count / total)
        self.count = total


def _pool(model: nn.Module, name: str, norm: _BatchNorm, inputs: list[tuple[Tensor, ...]]) -> None:
    """Set one layer's statistics; those of the layers before it are set already."""
    moments = _Moments()

    def look(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        moments.add(arguments[0])
        raise _Reached

    with norm.register_forward_pre_hook(look):
        for batch in inputs:
            try:
                model(*batch)
            except _Reached:
                continue
    if moments.count < 2:
        raise ModelError(f"{name}: {moments.count} values of each channel; a variance needs two, so give more images")
    assert norm.running_mean is not None
    assert norm.running_var is not None
    for key, statistic_C, running_C in (
        ("mean", moments.mean_C, norm.running_mean),
        ("variance", moments.squares_C / (moments.count - 1), norm.running_var),  # unbiased, as torch's running variance is
    ):
        assert isinstance(statistic_C, Tensor)
        running_C.copy_(statistic_C)
        if not bool(running_C.isfinite().all()):
            bad = int((~running_C.isfinite()).sum())
            raise ModelError(
                f"{name}: the {key} of {bad} channels is not finite; check the images and the weights before this layer"
            )


def _order_of_use(model: nn.Module, norms: Mapping[str, _BatchNorm], batch: tuple[Tensor, ...]) -> tuple[str, ...]:
    """The layers that a forward pass uses, in its order."""
    used: list[str] = []
    hooks = [norm.register_forward_pre_hook(lambda _, __, name=name: used.append(name)) for name, norm in norms.items()]
    try:
        model(*batch)
    finally:
        for hook in hooks:
            hook.remove()
    for name in used:
        if used.count(name) > 1:
            raise ModelError(
                f"{name}: one forward pass uses it {used.count(name)} times, so its inputs depend on its own statistics"
            )
    return tuple(used)


def _has_statistics(module: nn.Module) -> TypeGuard[_BatchNorm]:
    return isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _restored_on_error(norms: Mapping[str, _BatchNorm]) -> Iterator[None]:
    buffers = [buffer for norm in norms.values() for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    except BaseException:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        raise
