"""Train a network: on which device, in which manner, from which checkpoint. The loop itself is `training.Training`."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from tdcompress.limits import available_cores
from tdcompress.methods.wrapper import SparseNet
from tdcompress.processor import Processor, read_processor
from tdcompress.train.allocation import keeping_freed_memory
from tdcompress.train.batchnorm import named_size_errors, synchronised
from tdcompress.train.data import TestSet, TrainSet
from tdcompress.train.distill import Teacher
from tdcompress.train.distributed import World
from tdcompress.train.manner import settle
from tdcompress.train.memory import named_memory_errors
from tdcompress.train.paths import Asked
from tdcompress.train.result import TrainingProgress, TrainResult
from tdcompress.train.settings import TrainSettings
from tdcompress.train.standing import newest
from tdcompress.train.threads import computing_with
from tdcompress.train.together import alone
from tdcompress.train.training import Training

__all__ = ["TrainResult", "TrainSettings", "TrainingProgress", "train"]


def train(
    net: SparseNet,
    data: TrainSet,
    test: TestSet,
    settings: TrainSettings,
    *,
    seed: int,
    device: torch.device,
    folder: Path,
    processor: Processor | None = None,
    cores: int | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], int | None] = lambda: None,
    keep: Mapping[str, Tensor] | None = None,
    path: Asked = "auto",
    teacher: Teacher | None = None,
    checkpoint_seconds: float = 30.0,
) -> TrainResult:
    """Train a network in place, going on from the newest checkpoint in ``folder`` if there is one.

    On a CPU a training that was killed and started again ends with the same bits as one that was not. Two numbers of the metrics
    tell of time and so differ: seconds and <unit>_per_second. Under torchrun every process calls this (see `distributed`).
    Of several threads one trains at a time, unless its step draws from generators of its own (see `together`).

    Args:
        net: the network with its method; moved to ``device``, and left in eval mode.
        data: training samples, and how batches are made of them.
        test: samples whose right answers the metrics report.
        settings: the recipe's [train].
        seed: of the order of samples, augmentation, the method's draws and the network's own dropout.
        device: where to train.
        folder: gets ``metrics.jsonl`` (a line for each epoch) and ``checkpoints/``.
        processor: of this machine; None = it is read.
        cores: of this process and its container, which bound its threads on a CPU; None = they are read.
        progress: called after each step or, on the fast path, after some, in the first process.
        should_stop: called before each step and each batch of an evaluation; a signal number stops the training, in several
            processes all of them after the same step.
        keep: by parameter name of the network, bool, of its shape, True = trained; the other entries are zero from now on
            (finetuning).
        path: how the steps are made (`tdcompress.train.paths`).
        teacher: a network that this one also learns from; moved to ``device``.
        checkpoint_seconds: time between checkpoints; one more is written at the end, and one when stopped.

    Returns:
        Counts, times and the metrics of every epoch.

    Raises:
        InterruptedRun: ``should_stop`` gave a signal; the state is saved.
        TrainingError: a loss or gradient that is not finite (before the update), a parameter or buffer that is not (before it is
            saved or measured), no memory, or a BatchNorm that gets one value of each channel.
        UserError: batches that the data cannot give as asked; or the fast path was asked for and cannot make this training.
        ArtifactError: the checkpoint in ``folder`` is of another training.
    """
    world = World.current()
    data.loader(settings, seed=seed, world=world)  # refused before anything is moved or read
    found = newest(folder, world)
    begun = found.header.manner if found else None
    with alone(device), named_memory_errors(settings), named_size_errors(settings, world):
        net, data, test = net.to(device), data.to(device), test.to(device)
        manner = settle(
            settings,
            begun,
            net.model,
            data,
            device=device,
            processor=processor or read_processor(),
            cores=cores or available_cores(),
            world=world,
        )
        with computing_with(manner.threads, device), keeping_freed_memory(device):
            run = Training(
                net,
                data,
                test,
                settings,
                seed=seed,
                device=device,
                folder=folder,
                keep=keep,
                world=world,
                path=path,
                found=found,
                manner=manner,
                should_stop=should_stop,
                teacher=teacher,
            )
            with synchronised(net, world) if settings.sync_batchnorm else nullcontext():
                return run.loop(progress, checkpoint_seconds)
