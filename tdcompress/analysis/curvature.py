"""Loss, gradient and Hessian-vector products over a whole data set."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

Batches = Sequence[tuple[Tensor, ...]]
"""Inputs of a network, (B, ...) each, and last of all their targets, (B, ...)."""

SummedLoss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> the loss of a batch, summed; with classes the cross-entropy."""


def cross_entropy(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """The papers' loss, summed over a batch: float (B, classes) logits and int64 (B,) labels -> a scalar, in nats."""
    return F.cross_entropy(logits_BC, labels_B, reduction="sum")


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """The mean loss over a data set, and its first two derivatives at the network's weights.

    Attributes:
        loss: E.
        gradient: (N,).
        products: H v for each vector, (V, N).
    """

    loss: float
    gradient: Tensor
    products: Tensor


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one after another as one vector, (N,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def curvature(
    model: nn.Module,
    batches: Batches,
    names: Sequence[str],
    vectors: Tensor,
    *,
    loss: SummedLoss = cross_entropy,
    at_once: int = 32,
    progress: Callable[[int], None] = lambda done: None,
) -> Curvature:
    """Gradient and Hessian-vector products of the mean loss, exact up to rounding.

    ReLU networks have no second derivative at a kink; as everywhere in automatic differentiation the kink counts as flat.

    Attention is computed step by step: torch's fused kernels have one derivative only.

    Args:
        model: in eval mode; its dtype is what is computed in (float64 is worth its time here).
        batches: all of the data set.
        names: parameters that are derived by, N entries together; the others are constants.
        vectors: (V, N).
        loss: of a batch.
        at_once: vectors per backward pass.
        progress: called after each batch with the number of batches done.
    """
    params = dict(model.named_parameters())
    weights = [params[name] for name in names]
    samples = sum(len(targets) for *_, targets in batches)
    mean = torch.zeros((), dtype=torch.float64)
    gradient = torch.zeros_like(vectors[0])
    products = torch.zeros_like(vectors)
    for done, (*inputs, targets) in enumerate(batches, start=1):
        with sdpa_kernel(SDPBackend.MATH):
            batch_loss = loss(model(*inputs), targets) / samples
        slopes = torch.autograd.grad(batch_loss, weights, create_graph=True, materialize_grads=True)
        mean += batch_loss.detach().double().cpu()
        gradient += flat([slope.detach() for slope in slopes])
        for start in range(0, len(vectors), at_once):
            products[start : start + at_once] += _bend(slopes, weights, vectors[start : start + at_once])
        progress(done)
    return Curvature(loss=float(mean), gradient=gradient, products=products)


def _bend(slopes: Sequence[Tensor], weights: Sequence[Tensor], vectors: Tensor) -> Tensor:
    """H v for each vector, (V, N), by deriving the slopes once more."""
    ends = list(itertools.accumulate(weight.numel() for weight in weights))
    pieces = [
        vectors[:, end - weight.numel() : end].reshape(-1, *weight.shape) for weight, end in zip(weights, ends, strict=True)
    ]
    # a weight without influence has a constant slope, and a weight that no slope depends on no derivative: both are zero
    varying = [(slope, piece) for slope, piece in zip(slopes, pieces, strict=True) if slope.requires_grad]
    if not varying:
        return torch.zeros_like(vectors)
    outputs, directions = zip(*varying, strict=True)
    bends = torch.autograd.grad(outputs, weights, directions, is_grads_batched=True, retain_graph=True, allow_unused=True)
    flattened = [
        piece.new_zeros(len(vectors), weight.numel()) if bend is None else bend.reshape(len(vectors), -1)
        for bend, piece, weight in zip(bends, pieces, weights, strict=True)
    ]
    return torch.cat(flattened, dim=1)


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Batches, loss: SummedLoss = cross_entropy) -> float:
    """E: the mean loss over a data set.

    Args:
        model: the network, in eval mode.
        batches: (inputs, targets) of all samples.
        loss: (outputs, targets) -> the loss summed over a batch, a scalar.
    """
    samples = sum(len(targets) for *_, targets in batches)
    return sum(float(loss(model(*inputs), targets)) for *inputs, targets in batches) / samples
