"""The keys of a recipe's [train] table."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, get_args

from tdcompress.train.average import Averaging, Kind
from tdcompress.train.evaluate import AskedPrecision
from tdcompress.train.optim import LrSchedule, OptimizerSettings

USUAL_BATCH = 128  # samples


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a network is trained.

    Attributes:
        lr_key: what messages call the learning rate.
        lr_schedule_key: what they call its schedule.
        epochs: passes over the training samples. Each takes floor(samples / batch_size) full batches of a new permutation; what
            remains is left out of that epoch.
        batch_size: samples of one optimizer step, over all micro-batches and processes; 128 where neither this nor
            ``batch_tokens`` is given.
        batch_tokens: of text, instead of ``batch_size``: pairs of like length make a step, with so many tokens at most on either
            side, padding included. Each epoch then takes every pair once.
        optimizer: the rule of the update and its keys.
        lr_schedule: what the learning rate is multiplied by.
        l2: adds l2 * 0.5 * |w|^2 over kernels and biases to the loss, so before clipping (the papers' weight decay). The losses
            that are reported do not contain it.
        label_smoothing: share of the target spread over all classes.
        clip_norm: the norm of the whole gradient is scaled down to this; None = never.
        average: what is kept at the end instead of the last weights: "ema", an exponential moving average of them, or "last", the
            plain mean of the "last" part of the training; statistics of normalisation layers and the method's own numbers too.
            What is pruned at the end is zero in the average. The epochs' test accuracies are the average's once it has begun.
        average_share: the last share of the steps, over which it is taken.
        average_decay: ema; what a step's weights keep of their part with each further step.
        precision: "float32", or "bfloat16" for autocast around the network; weights and optimizer stay float32. "auto" is
            bfloat16 where the device has instructions for it and a step is not more than 1.5 times slower, else float32.
            A training that is taken up keeps what it began with.
        threads: of a training on a CPU; 0 = what torch takes, but no more than the cores of this process. A training that is
            taken up keeps their number.
        channels_last: activations in NHWC order, usually faster for convolutions.
        compile: run the network through torch.compile (needs a C++ compiler on a CPU).
        accumulate: micro-batches of a step; more of them need less memory. The result is the same but for rounding, unless the
            network has BatchNorm, which takes mean and variance of each micro-batch by itself, or draws (dropout).
        sync_batchnorm: of several processes that share each batch: BatchNorm takes mean and variance of the whole batch, as one
            process does. Each such layer then waits for all processes. Without it each takes those of its own part.
        evaluate_every: epochs between measurements of the test accuracy; the last epoch is always measured.
    """

    lr_key: ClassVar[str] = "train.optimizer.lr"
    lr_schedule_key: ClassVar[str] = "train.lr_schedule"
    epochs: int = 1
    batch_size: int | None = None
    batch_tokens: int | None = None
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    lr_schedule: LrSchedule = field(default_factory=LrSchedule)
    l2: float = 0.0
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    average: Kind = "none"
    average_share: float = 0.2
    average_decay: float = 0.999
    precision: AskedPrecision = "float32"
    threads: int = 0
    channels_last: bool = True
    compile: bool = False
    accumulate: int = 1
    sync_batchnorm: bool = False
    evaluate_every: int = 1

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ValueError(f"threads: {self.threads} is out of range, 0 or more")
        if self.batch_tokens is None and self.batch_size is None:
            object.__setattr__(self, "batch_size", USUAL_BATCH)  # so that keys and resolved recipes have what is in force
        elif self.batch_tokens is not None and self.batch_size is not None:
            raise ValueError("batch_tokens: it counts pieces of text, instead of batch_size, and both are given; leave one out")
        for key in ("batch_size", "batch_tokens", "accumulate", "evaluate_every"):
            if (value := getattr(self, key)) is not None and value < 1:
                raise ValueError(f"{key}: {value} is out of range, 1 or more")
        if self.epochs < 0:
            raise ValueError(f"epochs: {self.epochs} is out of range, 0 or more")
        if not 0.0 <= self.l2 < math.inf:
            raise ValueError(f"l2: {self.l2} is out of range, 0 or more")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing: {self.label_smoothing} is out of range, 0 <= label_smoothing < 1")
        if self.clip_norm is not None and not 0.0 < self.clip_norm < math.inf:
            raise ValueError(f"clip_norm: {self.clip_norm} is out of range, above 0")
        if self.precision not in get_args(AskedPrecision):
            raise ValueError(f"precision: {self.precision!r} is no precision, one of {', '.join(get_args(AskedPrecision))}")
        self.averaging()
        if self.batch_size is not None and self.batch_size % self.accumulate:
            raise ValueError(f"accumulate: {self.accumulate} does not divide batch_size = {self.batch_size}")

    def averaging(self) -> Averaging:
        """The average of the weights that the keys ask for."""
        return Averaging(kind=self.average, share=self.average_share, decay=self.average_decay)
