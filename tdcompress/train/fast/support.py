"""What the fast path can train, and the vector that it makes of a network."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from tdcompress.methods.wrapper import SparseNet
from tdcompress.train.data import Loader
from tdcompress.train.evaluate import on_trial
from tdcompress.train.fast.drop import Unsupported, dropping_of
from tdcompress.train.fast.layout import VectorLayout
from tdcompress.train.optim import PREFIX, decayed_parameters
from tdcompress.train.settings import TrainSettings

# Keys of [train] that the fast path follows, or that are followed outside of a step. It refuses any other one that is set.
FOLLOWED = frozenset(
    (
        *("epochs", "batch_size", "batch_tokens", "accumulate", "optimizer", "lr_schedule", "l2", "label_smoothing", "clip_norm"),
        *("average", "average_share", "average_decay", "precision", "threads", "channels_last", "compile", "sync_batchnorm"),
        "evaluate_every",
    )
)
SGD_FOLLOWED = frozenset(("name", "lr", "weight_decay", "momentum", "nesterov", "decoupled"))


def why_not(net: SparseNet, settings: TrainSettings) -> str | None:
    """Why the fast path cannot make this training, or None where it can, if its network does not draw either (`draws`).

    Args:
        net: the network and its method.
        settings: the recipe's [train].
    """
    unknown = [*_set_beside(settings, FOLLOWED, ""), *_set_beside(settings.optimizer, SGD_FOLLOWED, "optimizer.")]
    params = net.parameters_by_name()
    axes = {slot.axis for slot in net.method.targets.weights}
    cumulative = [m for m in net.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.momentum is None]
    for holds, reason in (
        (settings.optimizer.name != "sgd", f"the optimizer is {settings.optimizer.name}, not sgd"),
        (unknown, f"it does not know train.{(unknown or [''])[0]}"),
        (settings.accumulate > 1, "the batch comes in micro-batches"),
        (net.l1 > 0, "there is an L1 penalty"),
        (axes - {0}, "a transposed convolution's filters are not rows"),
        (cumulative, "a BatchNorm averages over all batches"),
        (any(not p.requires_grad for p in params.values()), "some parameters are not trained"),
        (any(p.dtype != torch.float32 for p in params.values()), "some parameters are not float32"),
    ):
        if holds:
            return reason
    found = dropping_of(net.method, layout_of(net), torch.device("cpu"))
    return found.reason if isinstance(found, Unsupported) else None


def draws(model: nn.Module, loader: Loader, device: torch.device) -> bool:
    """Whether a network draws from a global generator of torch as it trains, by dropout for example; tried on one batch.

    Args:
        model: on ``device``; stays as it is.
        loader: of the training's batches.
        device: where it trains.
    """

    def states() -> list[Tensor]:
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else ())]

    batch = loader.step(0, 0, torch.Generator(device))[0]
    with torch.no_grad(), on_trial(model, device, "float32") as network:
        before = states()
        batch.loss(network, None)
        return not all(map(torch.equal, before, states()))


def _set_beside(settings: Any, followed: frozenset[str], prefix: str) -> list[str]:
    """Keys that are not at their defaults, besides those that are followed."""
    usual = type(settings)()
    names = (field.name for field in fields(settings) if field.name not in followed)
    return [f"{prefix}{name}" for name in names if getattr(settings, name) != getattr(usual, name)]


def layout_of(net: SparseNet) -> VectorLayout:
    """The vector of a network's parameters."""
    shapes = {name: parameter.shape for name, parameter in net.model.named_parameters()}
    prunable = [slot.parameter for slot in net.method.targets.weights]
    decayed = [name.removeprefix(PREFIX) for name in decayed_parameters(net)]
    return VectorLayout.of(shapes, prunable, decayed)
