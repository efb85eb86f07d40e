"""What a training tells: while it runs, and when it is done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tdcompress.train.evaluate import Precision


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """Where a training stands, after every step.

    Attributes:
        step: optimizer steps done.
        steps: of the whole training.
        epoch: the epoch that runs, from 1.
        epochs: of the whole training.
        loss: of this step, with the method's penalty; None where only the device knows it.
        precision: what the network computes in.
        throughput: units a second, over the epoch so far.
        unit: what is counted, "images".
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float | None
    precision: Precision
    throughput: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training was.

    Attributes:
        epochs: done.
        steps: optimizer steps done.
        seconds: in training steps, over all resumed parts.
        throughput: units a second, over all of them.
        unit: what is counted, "images".
        loss: mean of the last epoch; None where there was none.
        train_accuracy: share of the last epoch's units that were answered rightly, while the weights changed and of augmented
            samples; None where there was none.
        test_accuracy: likewise of the test set, after the last epoch, in float32, with the method's deployed parameters.
        resumed_from_step: steps that an earlier process had done; 0 = none.
        precision: what the network computed in.
        threads: of a training on a CPU.
        notes: what to know about how it was trained: why in this precision, and what changed since it began.
        path: "fast" or "reference" (`tdcompress.train.paths`).
        path_reason: why that one.
        history: the lines of metrics.jsonl.
    """

    epochs: int
    steps: int
    seconds: float
    throughput: float
    unit: str
    loss: float | None
    train_accuracy: float | None
    test_accuracy: float
    resumed_from_step: int
    precision: Precision
    threads: int
    notes: tuple[str, ...]
    path: str
    path_reason: str
    history: tuple[Mapping[str, Any], ...]


@dataclass(kw_only=True)
class Counters:
    """What changes from step to step beside tensors; a checkpoint's header holds it as it is.

    Attributes:
        step: optimizer steps done.
        loss_sum: over the steps of the epoch that runs.
        correct: units of that epoch that were answered rightly.
        epoch_seconds: in steps of that epoch.
        seconds: in steps of all epochs.
        history: a line for each epoch that is done.
    """

    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
