"""Stage "finetune": a pruned network trains on with its masks frozen; zeros stay zeros."""

from dataclasses import replace

import torch
from safetensors.torch import load_file

from tdcompress.artifacts import SCRATCH
from tdcompress.methods.base import Method
from tdcompress.methods.wrapper import SparseNet
from tdcompress.pipeline import Workspace
from tdcompress.records import PruneRecord
from tdcompress.sparsity.units import Targets, prunable_weights
from tdcompress.stages.experiment import Experiment
from tdcompress.stages.network import MASKS, MODEL, dense_network, save_tensors, test_samples, train_samples
from tdcompress.stages.prune import pruned_record
from tdcompress.stages.train import keep_metrics, progress_text
from tdcompress.train.loop import train
from tdcompress.train.optim import LrSchedule

VERSION = 1


def run(experiment: Experiment, device: torch.device, work: Workspace) -> PruneRecord:
    """Train without any dropout, with a constant learning rate, pruned entries held at zero."""
    pruned = work.inputs["network"]
    model = dense_network(experiment, pruned).to(device)
    targets = Targets(weights=prunable_weights(model, experiment.method.exclude))
    base, finetune = experiment.train, experiment.finetune
    optimizer = replace(base.optimizer, lr=finetune.lr or base.optimizer.lr)
    scratch = work.folder / SCRATCH
    net = SparseNet(model, Method(targets))
    train(
        net,
        train_samples(experiment),
        test_samples(experiment),
        replace(base, epochs=finetune.epochs, optimizer=optimizer, lr_schedule=LrSchedule()),
        seed=experiment.seed,
        device=device,
        folder=scratch,
        progress=lambda now: work.progress.update(now.step, now.steps, progress_text(now)),
        should_stop=work.should_stop,
        keep=load_file(pruned.file(MASKS)),
    )
    save_tensors(net.model.state_dict(), work.folder / MODEL)
    keep_metrics(work)
    return pruned_record(experiment, net.model, targets, device)
