"""SGD on one vector, with the check that all is finite made on the device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tdcompress.train.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class UpdateRule:
    """The numbers of the update.

    Attributes:
        settings: the recipe's [train]; its optimizer is "sgd".
        decayed: entries of the prefix that L2 and weight decay touch.
    """

    settings: TrainSettings
    decayed: int


def update(
    rule: UpdateRule,
    vector_P: Tensor,
    moment_P: Tensor,
    gradient_P: Tensor,
    loss: Tensor,
    correct: Tensor,
    lr: Tensor,
    sums: Tensor,
) -> None:
    """L2, clipping and SGD's step, in place; a step that is not finite changes nothing and is counted.

    The order is `tdcompress.train.update.Updater`'s: L2 belongs to the loss, so it is clipped; weight decay comes after clipping,
    or, decoupled, shrinks the weights themselves.

    Args:
        rule: the settings.
        vector_P: all parameters, float32 (P,); changed.
        moment_P: their momentum, (P,); changed.
        gradient_P: of the mean loss, (P,).
        loss: a scalar.
        correct: how many samples were right, a scalar.
        lr: the learning rate of this step, a scalar.
        sums: float64 (3,), of losses, right answers, and steps that were not finite; changed.
    """
    settings, l2, clip_norm = rule.settings.optimizer, rule.settings.l2, rule.settings.clip_norm
    momentum = settings.momentum or 0.0
    decayed_P = torch.arange(len(vector_P), device=vector_P.device) < rule.decayed
    gradient_P = torch.where(decayed_P, gradient_P + l2 * vector_P, gradient_P) if l2 else gradient_P
    norm = torch.linalg.vector_norm(gradient_P)
    finite = norm.isfinite() & loss.isfinite()
    if clip_norm is not None:
        gradient_P = gradient_P * torch.where(norm > clip_norm, clip_norm / (norm + 1e-6), torch.ones_like(norm))
    if settings.weight_decay and not settings.decoupled:
        gradient_P = torch.where(decayed_P, gradient_P + settings.weight_decay * vector_P, gradient_P)
    moved_P = momentum * moment_P + gradient_P
    direction_P = gradient_P + momentum * moved_P if settings.nesterov else moved_P
    decayed = 1.0 - lr * settings.weight_decay if settings.weight_decay and settings.decoupled else None
    shrunk_P = vector_P if decayed is None else torch.where(decayed_P, vector_P * decayed, vector_P)
    moment_P.copy_(torch.where(finite, moved_P, moment_P))
    vector_P.copy_(torch.where(finite, shrunk_P - lr * direction_P, vector_P))
    sums.add_(torch.stack([torch.where(finite, loss, torch.zeros_like(loss)).double(), correct.double(), (~finite).double()]))
