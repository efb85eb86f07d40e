"""BatchNorm statistics estimated again: what pruning does to a layer's inputs, its running mean and variance do not know."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tdcompress.arguments import checked, given
from tdcompress.errors import ModelError, one_line
from tdcompress.functional import evaluating
from tdcompress.sparsity.units import require_changeable, require_layers, require_values
from tdcompress.train.evaluate import full_float32
from tdcompress.train.forwards import forward_replaced

Batch = Tensor | tuple[Tensor, ...]
"""What a model takes: a tensor (B, ...), or one for each argument."""

_log = logging.getLogger(__name__)


def layers_with_statistics(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers that normalise by running statistics, by name."""
    return {name: module for name, module in model.named_modules() if _has_statistics(module)}


@checked
@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Batch] | Callable[[], Iterable[Batch]]) -> tuple[str, ...]:
    """Give every BatchNorm layer the mean and variance of its inputs over all images, in place; weights stay as they are.

    Layer by layer, in the order of the forward pass: the statistics of a layer are pooled over all images, computed with the
    pooled statistics of the layers before it. So neither the size of the batches nor their order matters, but for rounding. In
    the network as it is evaluated, each layer's statistics are those of its input. A pass in training mode with all images in one
    batch gives the same, but normalises by the biased variance. The price is a pass that finds the layers' order, and one for
    each BatchNorm layer, ended at that layer: about half as many whole passes over the images as there are layers. To average
    the statistics of batches in one pass is cheaper, but depends on their size: each batch is then normalised by its own.

    Args:
        model: any module; its BatchNorm layers with running statistics are changed, its modes are not. A layer that only some
            batches use is given the statistics of those. One that is never called keeps its own, which is said in the log. What
            is compiled runs as it is written.
        batches: what the model takes, on its device: (B, ...), or a tuple of such. They are held in memory. Or a function that
            makes the same batches anew, called for each pass, where together they are too large for that. Changed at random as
            in the training they can serve better than as they are (docs/log.md, new statistics).

    Returns:
        The names of the layers that were changed, in their order; none where the model has no such layer, which is said in the
        log.

    Raises:
        ModelError: no batches, or such that the model does not take; a network without values, or one made in
            ``torch.inference_mode``; statistics that are not finite, fewer than two values of a channel, a layer that one forward
            pass uses several times, layers that share their statistics, or that batches use in different orders. Names the layer,
            and leaves the model as it was.
        UnsupportedError: a TorchScript program, whose layers cannot be seen.
    """
    require_layers(model)
    require_values(model)
    require_changeable(model)
    norms = layers_with_statistics(model)
    if not norms:
        _log.warning("no BatchNorm layer with running statistics in this %s: nothing to re-estimate", type(model).__name__)
        return ()
    passes = _passes(batches)
    device = next(model.buffers()).device
    # compiled code would not look at the layers anew
    with torch.compiler.set_stance("force_eager"), evaluating(model), full_float32(device), _restored_on_error(norms):
        try:
            order = _order_of_use(model, norms, passes())
            for name in order:
                _pool(model, name, norms[name], passes())
        except ModelError:
            raise
        except Exception as error:  # user code raises anything
            raise ModelError(f"{type(model).__name__} does not take the batches: {one_line(error)}") from error
    if silent := [name for name in norms if name not in order]:
        never = "a layer that the forward pass never calls keeps its statistics"
        _log.warning("BatchNorm of %s: %s: %s", type(model).__name__, ", ".join(silent), never)
    return order


def _passes(batches: Iterable[Batch] | Callable[[], Iterable[Batch]]) -> Callable[[], Iterator[tuple[Tensor, ...]]]:
    """What gives the inputs of each forward pass, as often as it is asked.

    Raises:
        ModelError: one tensor, whose images would be taken for batches; or, by what is returned, something else than tensors.
    """
    if isinstance(batches, Iterable):
        held = list(_several(batches))
        return lambda: _checked(held)
    first: list[torch.Size] = []

    def made() -> Iterator[tuple[Tensor, ...]]:
        shapes = []
        for inputs in _checked(_several(batches())):
            shapes.append(inputs[0].shape)
            yield inputs
        first[:] = first or shapes
        if shapes != first:
            raise ModelError(
                f"batches: the function made {_told(first)} for one pass and {_told(shapes)} for another; it has to make the "
                "same ones each time: return a list, or begin a new iterator"
            )

    return made


def _told(shapes: Sequence[torch.Size]) -> str:
    return f"{sum(shape[0] for shape in shapes if shape):,} images (batches: {len(shapes)})"


def _several(batches: object) -> Iterable[Batch]:
    """The batches, if they are not one tensor, whose images would be taken for batches."""
    if isinstance(batches, Tensor | str | Mapping | nn.Module) or not isinstance(batches, Iterable):
        raise ModelError(f"batches has to be a list of what the model takes, [x1, x2, ...], and is {given(batches)}")
    return batches


def _checked(batches: Iterable[Batch]) -> Iterator[tuple[Tensor, ...]]:
    for index, batch in enumerate(batches):
        inputs = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
        for each in inputs:
            if not isinstance(each, Tensor):
                raise ModelError(f"batches[{index}] has to be a tensor or a tuple of tensors, and has {given(each)}")
        yield inputs


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


@contextmanager
def _watching(norms: Iterable[_BatchNorm], look: Callable[[_BatchNorm, Tensor], None]) -> Iterator[None]:
    """Inside, ``look`` is given each of these layers and its input before it runs."""

    def forward(norm: _BatchNorm, own: Callable[..., Tensor], *inputs: Any, **keywords: Any) -> Tensor:
        look(norm, (*inputs, *keywords.values())[0])
        return own(*inputs, **keywords)

    with forward_replaced(norms, forward):
        yield


def _pool(model: nn.Module, name: str, norm: _BatchNorm, inputs: Iterable[tuple[Tensor, ...]]) -> None:
    """Set one layer's statistics; those of the layers before it are set already."""
    moments = _Moments()

    def look(_: _BatchNorm, values: Tensor) -> None:
        moments.add(values)
        raise _Reached

    with _watching([norm], look):
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


def _order_of_use(model: nn.Module, norms: Mapping[str, _BatchNorm], inputs: Iterable[tuple[Tensor, ...]]) -> tuple[str, ...]:
    """The layers that forward passes use, each behind all that any of them uses before it."""
    used: list[str] = []
    before: dict[str, dict[str, None]] = {}  # by layer, in the order in which they were first seen
    batches = 0
    names = {norm: name for name, norm in norms.items()}
    with _watching(norms.values(), lambda norm, _: used.append(names[norm])):
        for batch in inputs:
            batches += 1
            model(*batch)
            for place, name in enumerate(used):
                if used.count(name) > 1:
                    raise ModelError(
                        f"{name}: one forward pass uses it {used.count(name)} times, so its inputs depend on its own statistics"
                    )
                before.setdefault(name, {}).update(dict.fromkeys(used[:place]))
            used.clear()
    if not batches:
        raise ModelError(f"{next(iter(norms))}: no batches to estimate its statistics from")
    _refuse_shared({name: norms[name] for name in before})
    return _sorted(before)


def _sorted(before: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Each layer behind those that are before it; of a choice the one that was seen first."""
    try:
        return tuple(TopologicalSorter(before).static_order())
    except CycleError as error:
        names = ", ".join(dict.fromkeys(error.args[1]))
        raise ModelError(
            f"{names}: batches use these layers in different orders, so their inputs depend on one another"
        ) from None


def _refuse_shared(norms: Mapping[str, _BatchNorm]) -> None:
    """Two layers that have one buffer would get the statistics of the later one's inputs."""
    owners: dict[int, str] = {}
    for name, norm in norms.items():
        for buffer in (norm.running_mean, norm.running_var):
            assert buffer is not None
            owner = owners.setdefault(buffer.data_ptr(), name)
            if owner != name:
                raise ModelError(f"{name}: it shares its statistics with {owner}, and their inputs differ; give each its own")


def _has_statistics(module: nn.Module) -> TypeGuard[_BatchNorm]:
    return isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None


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
