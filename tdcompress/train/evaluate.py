"""How a network is run to be measured: in which precision, in eval mode or for trial."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from tdcompress.functional import evaluating, functional_call

Precision = Literal["float32", "bfloat16"]
AskedPrecision = Literal["auto", "float32", "bfloat16"]
"""What a recipe may ask for; "auto" is settled when the training starts (`tdcompress.train.precision`)."""


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Mixed precision: bfloat16 where torch holds that safe, or nothing at all."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def full_float32(device: torch.device) -> AbstractContextManager[None]:
    """Convolutions in float32 as such: cuDNN otherwise rounds their inputs to TF32, and the figure would be the GPU's."""
    if device.type != "cuda":
        return nullcontext()
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=torch.backends.cudnn.benchmark, deterministic=False, allow_tf32=False
    )
    return flags


@contextmanager
def on_trial(model: nn.Module, device: torch.device, precision: Precision) -> Iterator[Callable[..., Tensor]]:
    """The network as it trains, to be run without a trace: its buffers are copies, and each of its modules gets its mode back.

    Args:
        model: on ``device``.
        device: of its inputs too.
        precision: what it computes in; its outputs are float32.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def network(*inputs: Tensor) -> Tensor:
        with autocast(device, precision):
            outputs: Tensor = functional_call(model, buffers, inputs).float()
        return outputs

    with evaluating(model):
        model.train()
        yield network
