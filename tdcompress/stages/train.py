"""Stage "train": a fresh network and its method -> trained weights."""

import torch

from tdcompress.artifacts import SCRATCH
from tdcompress.files import write_text
from tdcompress.methods.wrapper import SparseNet
from tdcompress.pipeline import Workspace
from tdcompress.processor import read_processor
from tdcompress.records import TrainRecord
from tdcompress.stages.experiment import Experiment
from tdcompress.stages.network import (
    METHOD,
    MODEL,
    deployed_network,
    find_targets,
    fresh_network,
    measured_accuracy,
    save_tensors,
    test_samples,
    train_samples,
)
from tdcompress.train.distill import Teacher
from tdcompress.train.loop import METRICS, Progress, train
from tdcompress.train.result import TrainResult
from tdcompress.train.together import alone

VERSION = 2


def run(experiment: Experiment, device: torch.device, work: Workspace) -> TrainRecord:
    """Train, going on where a killed run stopped; write weights, the method's state, and metrics.

    Args:
        experiment: the resolved recipe.
        device: where to train.
        work: see ``Workspace``.
    """
    with alone(device):
        work.stop_if_asked()  # while another training had its turn
        return _run(experiment, device, work)


def _run(experiment: Experiment, device: torch.device, work: Workspace) -> TrainRecord:
    model = fresh_network(experiment)
    settings = experiment.method
    targets = find_targets(experiment, model, settings, units=settings.granularity == "unit")
    model.to(device)
    net = SparseNet(model, settings.build(targets, model, experiment.seed), l1=settings.l1)
    scratch = work.folder / SCRATCH
    result = train(
        net,
        train_samples(experiment),
        test_samples(experiment),
        experiment.train,
        seed=experiment.seed,
        device=device,
        folder=scratch,
        progress=lambda now: work.progress.update(now.step, now.steps, progress_text(now)),
        should_stop=work.should_stop,
        teacher=_teacher(experiment, work),
    )
    save_tensors(net.model.state_dict(), work.folder / MODEL)
    save_tensors(net.method.state_dict(), work.folder / METHOD)
    keep_metrics(work)
    return TrainRecord(
        method=settings.name,
        options=experiment.options,
        granularity=settings.granularity,
        epochs=result.epochs,
        accuracy=measured_accuracy(experiment, net, device),
        seconds=round(result.seconds, 3),
        images_per_second=round(result.images_per_second, 1),
        device=device_name(device, result),
        precision=result.precision,
        threads=result.threads,
        notes=result.notes,
        path=result.path,
        path_reason=result.path_reason,
    )


def _teacher(experiment: Experiment, work: Workspace) -> Teacher | None:
    """The untargeted training, where the recipe distils."""
    if experiment.distill is None:
        return None
    return Teacher(deployed_network(experiment.teacher, work.inputs["teacher"]), experiment.distill)


def keep_metrics(work: Workspace) -> None:
    """Take the epochs' lines out of the scratch folder; none were written where no epoch was trained."""
    written = work.folder / SCRATCH / METRICS
    if written.exists():
        written.replace(work.folder / METRICS)
    else:
        write_text(work.folder / METRICS, "")


def progress_text(now: Progress) -> str:
    """What stands beside the bar of a training."""
    loss = "" if now.loss is None else f"  loss {now.loss:.3f}"
    return f"epoch {now.epoch}/{now.epochs}{loss}  {now.images_per_second:,.0f} images/s  {now.precision}"


def device_name(device: torch.device, result: TrainResult) -> str:
    """What a person calls the device: the GPU's name, or the processor's with the threads that were used; and bfloat16."""
    threads = f"{result.threads} thread{'s' * (result.threads != 1)}"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{read_processor().name}, {threads}"
    return f"{name}, {result.precision}" if result.precision != "float32" else name
