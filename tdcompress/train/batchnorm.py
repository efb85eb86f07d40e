"""BatchNorm over the batch of several processes: the statistics, and the result, of one process with the joint batch.

torch's own SyncBatchNorm runs on GPUs alone. Here each process adds its mean, variance and count to one exchange. The parts are
pooled as in Chan, Golub and LeVeque (1979), without a difference of large numbers. So float32 is as good as in one process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tdcompress.errors import TrainingError
from tdcompress.train.distributed import World
from tdcompress.train.forwards import forward_replaced
from tdcompress.train.settings import TrainSettings


class _Gathered(torch.autograd.Function):
    """What every process gives, (size, ...); differentiable, since each process's loss depends on all parts."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, size: int, rank: int) -> Tensor:
        ctx.rank = rank
        parts = [torch.empty_like(given) for _ in range(size)]
        dist.all_gather(parts, given.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        own: Tensor = total[ctx.rank]
        return own, None, None


@contextmanager
def synchronised(net: nn.Module, world: World) -> Iterator[None]:
    """Inside, every BatchNorm of a network in train mode uses the batch of all processes; modules and names stay as they are.

    Args:
        net: the network; its forward methods are given back at the end.
        world: the processes; all of them call the network at the same time.
    """
    layers = [module for module in net.modules() if isinstance(module, _BatchNorm)] if world.size > 1 else []

    def forward(layer: _BatchNorm, own: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return _normalise(layer, x, world) if layer.training else own(x)

    with forward_replaced(layers, forward):
        yield


@contextmanager
def named_size_errors(settings: TrainSettings, world: World) -> Iterator[None]:
    """Say what to do where torch refuses the variance of one value in the block.

    Args:
        settings: the recipe's [train].
        world: the processes that share each batch.

    Raises:
        TrainingError: a forward pass gave a BatchNorm one value of each channel.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        key = "batch_size" if settings.batch_tokens is None else "batch_tokens"
        parts = settings.accumulate * world.size
        split = f", in {parts} parts (train.accumulate = {settings.accumulate})" if parts > 1 else ""
        lower = "lower accumulate or " if settings.accumulate > 1 else ""
        raise TrainingError(
            f"train.{key} = {getattr(settings, key)}{split} leaves a BatchNorm one value of each channel, which it cannot "
            f"normalise by: {lower}raise {key}"
        ) from error


def _normalise(layer: _BatchNorm, x: Tensor, world: World) -> Tensor:
    """The layer in train mode on a part (B, C, ...) of the batch; running statistics are updated with the whole batch's."""
    layer._check_input_dim(x)  # type: ignore[no-untyped-call]
    values = x if x.dtype == torch.float64 else x.float()
    others = [axis for axis in range(x.dim()) if axis != 1]
    variance, mean = torch.var_mean(values, others, correction=0)
    count = values.new_full((1,), x.numel() // x.shape[1])
    parts = _Gathered.apply(torch.cat([mean, variance, count]), world.size, world.rank)
    means, variances, counts = parts.split([x.shape[1], x.shape[1], 1], 1)
    size = counts.sum()
    mean = (counts * means).sum(0) / size
    variance = (counts * (variances + (means - mean).square())).sum(0) / size
    _keep_running(layer, mean.detach(), variance.detach() * size / (size - 1))
    shape = [1, -1, *[1] * (x.dim() - 2)]
    result: Tensor = (values - mean.view(shape)) * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        result = result * layer.weight.view(shape) + layer.bias.view(shape)
    return result.to(x.dtype)


@torch.no_grad()
def _keep_running(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Update the running statistics as torch does: the variance unbiased, by the layer's momentum or as a plain mean."""
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked.add_(1)
    momentum = 1 / int(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), momentum)
    layer.running_var.lerp_(variance.to(layer.running_var.dtype), momentum)
