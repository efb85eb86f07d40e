"""Which number format a training computes in: settled once when it starts, by what the device can do.

A recipe's key holds what was asked for. The checkpoint and the record hold what it became, so a training begun on one machine
keeps its format on another.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from tdcompress.processor import Processor
from tdcompress.train.data import Forward, TrainBatch
from tdcompress.train.evaluate import AskedPrecision, Precision, on_trial

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
SLOWER = 1.5
PROBE_STEPS = 3
PROBE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What a training computes in.

    Attributes:
        precision: float32, or bfloat16 autocast around the network.
        reason: for people.
        warning: whether the reason is one to think about before going on.
    """

    precision: Precision
    reason: str
    warning: bool = False


def settle_precision(
    asked: AskedPrecision,
    begun: Precision | None,
    *,
    device: torch.device,
    processor: Processor,
    seconds: Callable[[Precision], float],
) -> Settled:
    """Decide for a training that starts or goes on.

    Args:
        asked: "auto" takes bfloat16 where the device computes in it, unless that turns out more than 1.5 times slower here.
        begun: what the training began with, None at its start; it stays.
        device: where to train.
        processor: of this machine.
        seconds: measures a step in a precision; called only where the answer matters.
    """
    native, why = native_bfloat16(device, processor)

    def emulated(said: str, advice: str) -> Settled:
        times = _times(seconds("float32"), seconds("bfloat16"))
        return Settled(precision="bfloat16", reason=f"bfloat16, {said}, but {why}: {times}; {advice}", warning=True)

    if begun is not None:
        if begun == "bfloat16" and not native:
            return emulated("as the training began", "go on where it began, or remove its checkpoints to train anew")
        return Settled(precision=begun, reason=f"{begun}, as the training began")
    if asked == "float32":  # named, or the default
        faster = f'; "auto" would take bfloat16, since {why}' if native else ""
        return Settled(precision="float32", reason=f"float32, the value of train.precision{faster}")
    if asked == "bfloat16":
        if not native:
            return emulated("as asked", 'train.precision = "auto" takes what is faster')
        return Settled(precision="bfloat16", reason="bfloat16, the value of train.precision")
    if not native:
        return Settled(precision="float32", reason=f"float32: {why}")
    wide, narrow = seconds("float32"), seconds("bfloat16")
    if narrow > SLOWER * wide:
        return Settled(precision="float32", reason=f"float32: {why}, but {_times(wide, narrow)}")
    return Settled(precision="bfloat16", reason=f"bfloat16: {why}")


def _times(wide: float, narrow: float) -> str:
    return f"a step takes {narrow:.3g} s in bfloat16 and {wide:.3g} s in float32"


def native_bfloat16(device: torch.device, processor: Processor) -> tuple[bool, str]:
    """Whether a device multiplies in bfloat16, and the words for it. torch emulates it, slowly, where it does not."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return native, f"this GPU has {'' if native else 'no '}bfloat16 arithmetic"
    found = sorted({"amx_bf16", "avx512_bf16"} & set(processor.flags)) if processor.is_x86 else []
    if found:
        return True, f"this processor has {found[0]}"
    return False, "this processor has no bfloat16 instructions (amx_bf16, avx512_bf16)"


def step_seconds(model: nn.Module, batch: TrainBatch, *, device: torch.device, precision: Precision) -> float:
    """Seconds that a forward and backward pass takes: the fastest of up to three, after one to warm up.

    The network stays as it is: its buffers are copies, and no gradient is kept.

    Args:
        model: the network, on ``device``.
        batch: of the training, there too.
        device: of both.
        precision: what to compute in.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def step(network: Forward) -> float:
        start = time.perf_counter()
        torch.autograd.grad(batch.loss(network, None)[0], parameters, allow_unused=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    with on_trial(model, device, precision) as network:
        spent = fastest = step(network)
        for _ in range(PROBE_STEPS):
            taken = step(network)
            spent, fastest = spent + taken, min(fastest, taken)
            if spent > PROBE_SECONDS:
                break
    return fastest
