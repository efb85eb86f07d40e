"""Accuracy and logits of anything that maps a batch of preprocessed images to logits."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from tdcompress.errors import VerificationError
from tdcompress.train.samples import TrainData

Precision = Literal["float32", "bfloat16"]


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Mixed precision: bfloat16 where torch holds that safe, or nothing at all."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def accuracy(
    model: Callable[[Tensor], Tensor],
    data: TrainData,
    batch_size: int,
    device: torch.device,
    precision: Precision = "float32",
    between: Callable[[], None] | None = None,
) -> float:
    """Share of samples, 0..1, whose largest logit is their label's.

    Args:
        model: (B, C, H, W) float32 -> (B, classes). A module is put in eval mode meanwhile.
        data: the samples; their ``augment`` is not used.
        batch_size: samples at a time; it changes speed and memory only.
        device: where the model runs.
        precision: float32, or bfloat16 autocast.
        between: called before each batch; may raise to leave early.

    Raises:
        VerificationError: a logit that is not finite, seen at the end.
    """
    return count_correct(model, data, batch_size, device, precision, between) / len(data)


def count_correct(
    model: Callable[[Tensor], Tensor],
    data: TrainData,
    batch_size: int,
    device: torch.device,
    precision: Precision = "float32",
    between: Callable[[], None] | None = None,
) -> int:
    """How many samples `accuracy` calls right; arguments and errors as there.

    Args:
        model: as for `accuracy`.
        data: the samples.
        batch_size: at a time.
        device: where the model runs.
        precision: of the network.
        between: called before each batch.
    """
    correct = torch.zeros((), dtype=torch.int64, device=device)  # read once, so that a GPU does not wait after every batch
    for start, scores in _batches(model, data, batch_size, device, precision, between):
        labels = data.labels[start : start + batch_size].to(device)
        correct += (scores.argmax(1) == labels).sum()
    return int(correct)


def _batches(
    model: Callable[[Tensor], Tensor],
    data: TrainData,
    batch_size: int,
    device: torch.device,
    precision: Precision,
    between: Callable[[], None] | None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first sample, float32 logits) of each batch in order."""
    if not len(data):
        raise ValueError("data: no samples to evaluate")
    preprocess = copy.deepcopy(data.preprocess).to(device)
    finite: list[Tensor] = []
    for start in range(0, len(data), batch_size):
        if between is not None:
            between()
        # The mode and the inference context are set batch by batch: a generator must not hold them while it is paused.
        with _evaluating(model), torch.inference_mode(), full_float32(device), autocast(device, precision):
            scores = model(preprocess(data.pixels[start : start + batch_size].to(device))).float()
            finite.append(scores.isfinite().all())
        yield start, scores
    for batch, good in enumerate(torch.stack(finite).tolist()):
        if not good:
            first = batch * batch_size
            raise VerificationError(f"logits of samples {first}..{min(first + batch_size, len(data)) - 1} are not finite")


def full_float32(device: torch.device) -> AbstractContextManager[None]:
    """Convolutions in float32 as such: cuDNN otherwise rounds their inputs to TF32, and the figure would be the GPU's."""
    if device.type != "cuda":
        return nullcontext()
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=torch.backends.cudnn.benchmark, deterministic=False, allow_tf32=False
    )
    return flags


@contextmanager
def _evaluating(model: Callable[[Tensor], Tensor]) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    if isinstance(model, nn.Module):
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
