"""Distillation: a network learns from what another one says of the same samples, and not from their targets alone."""

import hashlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdcompress.train.evaluate import Precision, autocast


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """The [distill] table: where a recipe has it, the other methods' trainings learn from the run's own untargeted one.

    That is the training with method "none" and the same model, seed, data and [train]. Fine-tuning does not learn from it.

    Attributes:
        temperature: what both networks' logits are divided by, 0.001 to 10,000; the higher, the more the wrong classes count.
        weight: the teacher's share of the loss, above 0 to 1; the labels have the rest.
    """

    temperature: float = 4.0
    weight: float = 0.7

    def __post_init__(self) -> None:
        if not 1e-3 <= self.temperature <= 1e4:
            raise ValueError(
                f"temperature: {self.temperature} is out of range, 0.001 to 10000: beyond that float32 cannot tell classes apart"
            )
        if not 0.0 < self.weight <= 1.0:
            raise ValueError(f"weight: {self.weight} is out of range, above 0 to 1; without [distill] nothing is distilled")


def distillation_loss(logits_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """The mean of T^2 KL(teacher || student), both softened by the temperature T.

    Hinton, Vinyals and Dean (2015), section 2: T^2 makes up for gradients that shrink with 1/T^2. They write the cross-entropy
    with the soft targets; the divergence differs from it by their entropy, which has no gradient, and is 0 where both agree.

    Args:
        logits_BC: of the student, float (B, classes).
        teacher_BC: of the teacher, of the same shape.
        temperature: T, above 0.

    Returns:
        A scalar, in nats.
    """
    soft = F.log_softmax(logits_BC / temperature, 1)
    target = F.log_softmax(teacher_BC / temperature, 1)
    return F.kl_div(soft, target, reduction="batchmean", log_target=True) * temperature**2


class Teacher(nn.Module):
    """A trained network that is asked and does not learn.

    Args:
        model: on the training's device; put in eval mode, its parameters frozen.
        settings: how much it counts.
    """

    def __init__(self, model: nn.Module, settings: DistillSettings) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.settings = settings

    def outputs(self, inputs: tuple[Tensor, ...], precision: Precision) -> Tensor:
        """What the teacher says, float32.

        Args:
            inputs: as the student saw them, (B, ...) each.
            precision: what the teacher computes in.

        Returns:
            (B, classes), or as the student's logits are otherwise; without a gradient.
        """
        with torch.no_grad(), autocast(inputs[0].device, precision):
            said: Tensor = self.model(*inputs).float()
        return said

    def mixed(self, hard: Tensor, logits_NC: Tensor, taught_NC: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            hard: the loss by the labels, a scalar in nats.
            logits_NC: of the student, float32 (N, classes).
            taught_NC: of the teacher, for the same rows, of the same shape.
        """
        share = self.settings.weight
        return (1.0 - share) * hard + share * distillation_loss(logits_NC, taught_NC, self.settings.temperature)

    def digest(self) -> str:
        """A hash of the settings and of every tensor: another teacher, another training."""
        digest = hashlib.sha256(repr(self.settings).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A teacher as batches ask it in a training.

    Attributes:
        teacher: on the training's device.
        precision: what the training computes in, and so the teacher.
    """

    teacher: Teacher
    precision: Precision

    def outputs(self, *inputs: Tensor) -> Tensor:
        """See `Teacher.outputs`."""
        return self.teacher.outputs(inputs, self.precision)

    def mixed(self, hard: Tensor, logits_NC: Tensor, taught_NC: Tensor) -> Tensor:
        """See `Teacher.mixed`."""
        return self.teacher.mixed(hard, logits_NC, taught_NC)
