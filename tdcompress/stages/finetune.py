"""Stage "finetune": a pruned network trains on with its masks frozen, or a shrunk one with all of its weights."""

import shutil
from collections.abc import Mapping
from dataclasses import replace

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tdcompress.artifacts import SCRATCH
from tdcompress.files import published
from tdcompress.methods.base import Method
from tdcompress.methods.wrapper import SparseNet
from tdcompress.pipeline import Workspace
from tdcompress.records import FinetuneRecord, PruneRecord
from tdcompress.sparsity.units import Targets, prunable_weights
from tdcompress.stages.experiment import Experiment
from tdcompress.stages.network import (
    KEPT,
    MASKS,
    MODEL,
    dense_network,
    measured_accuracy,
    narrow_network,
    save_tensors,
    test_samples,
    train_samples,
)
from tdcompress.stages.prune import pruned_record
from tdcompress.stages.train import keep_metrics, progress_text
from tdcompress.train.loop import train
from tdcompress.train.result import TrainResult

VERSION = 1


def run(experiment: Experiment, device: torch.device, work: Workspace) -> PruneRecord:
    """Train a pruned network, its pruned entries held at zero."""
    pruned = work.inputs["network"]
    model = dense_network(experiment, pruned)
    targets = Targets(weights=prunable_weights(model, experiment.exclude))
    _train_on(experiment, model, targets, device, work, keep=load_file(pruned.file(MASKS)))
    return pruned_record(experiment, model, targets, device)


def run_narrow(experiment: Experiment, device: torch.device, work: Workspace) -> FinetuneRecord:
    """Train a shrunk network; what it is made of goes with its weights."""
    shrunk = work.inputs["network"]
    model = narrow_network(experiment, shrunk)
    targets = Targets(weights=prunable_weights(model, experiment.exclude))
    result = _train_on(experiment, model, targets, device, work)
    with published(work.folder / KEPT) as temporary:
        shutil.copyfile(shrunk.file(KEPT), temporary)
    return FinetuneRecord(
        epochs=result.epochs,
        accuracy=measured_accuracy(experiment, model, device),
        seconds=round(result.seconds, 3),
        images_per_second=round(result.images_per_second, 1),
    )


def _train_on(
    experiment: Experiment,
    model: nn.Module,
    targets: Targets,
    device: torch.device,
    work: Workspace,
    keep: Mapping[str, Tensor] | None = None,
) -> TrainResult:
    """Train in place without any dropout, at the fine-tuning's own rate, going on where a killed run stopped; save the weights.

    Args:
        experiment: the resolved recipe.
        model: the network; moved to ``device``, and left in eval mode.
        targets: its prunable weights.
        device: where to train.
        work: see ``Workspace``.
        keep: masks of the entries that train; the others stay zero.
    """
    base, finetune = experiment.train, experiment.finetune
    optimizer = replace(base.optimizer, lr=finetune.lr or base.optimizer.lr)
    result = train(
        SparseNet(model.to(device), Method(targets)),
        train_samples(experiment),
        test_samples(experiment),
        replace(base, epochs=finetune.epochs, optimizer=optimizer, lr_schedule=finetune.lr_schedule),
        seed=experiment.seed,
        device=device,
        folder=work.folder / SCRATCH,
        progress=lambda now: work.progress.update(now.step, now.steps, progress_text(now)),
        should_stop=work.should_stop,
        keep=keep,
    )
    save_tensors(model.state_dict(), work.folder / MODEL)
    keep_metrics(work)
    return result
