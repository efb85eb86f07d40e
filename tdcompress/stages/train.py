"""Stage "train": a fresh network and its method -> trained weights."""

from dataclasses import dataclass, replace
from typing import Self

import torch

from tdcompress.artifacts import SCRATCH
from tdcompress.files import write_text
from tdcompress.lineage.network import METHOD, MODEL, initial_network, load_network, save_tensors, training_targets
from tdcompress.lineage.origin import NamedMethod, Origin
from tdcompress.lineage.versions import RECORDS, VERSIONS
from tdcompress.methods.none import NoneSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.pipeline import Stage, Workspace
from tdcompress.processor import Processor
from tdcompress.records.stages import TrainRecord
from tdcompress.train.distill import DistillSettings, Teacher
from tdcompress.train.distributed import World
from tdcompress.train.loop import TrainingProgress, train
from tdcompress.train.result import TrainResult
from tdcompress.train.settings import TrainSettings
from tdcompress.train.standing import METRICS
from tdcompress.train.together import alone


@dataclass(frozen=True, kw_only=True)
class Settings(Origin):
    """All that a training depends on.

    Attributes:
        train: the [train] table.
        distill: how it learns from its input "teacher"; None = it has no teacher.
    """

    train: TrainSettings
    distill: DistillSettings | None = None

    @property
    def teacher(self) -> Self | None:
        """The untargeted training that this one learns from."""
        if self.distill is None:
            return None
        return replace(self, method=NamedMethod(settings=NoneSettings()), distill=None)


def run(settings: Settings, work: Workspace) -> TrainRecord | None:
    """Train, going on where a killed run stopped; write weights, the method's state, and metrics.

    Returns:
        None in all but the first of several processes.
    """
    with alone(torch.device(work.machine.device)):
        if World.current().size == 1:
            work.stop_if_asked()  # while another training had its turn; several processes stop together, between steps
        return _run(settings, work)


def _run(settings: Settings, work: Workspace) -> TrainRecord | None:
    device = torch.device(work.machine.device)
    task = settings.data.task(work.machine.places, work.inputs)
    method = settings.method.settings
    model = initial_network(settings, task, work.machine.places)
    targets = training_targets(settings, model, task)
    model.to(device)
    net = SparseNet(model, method.build(targets, model, settings.seed), l1=method.l1)
    result = train(
        net,
        task.train_set(settings.seed),
        task.test_set(),
        settings.train,
        seed=settings.seed,
        device=device,
        folder=work.folder / SCRATCH,
        processor=work.machine.processor,
        cores=work.machine.cores,
        progress=lambda now: work.progress.update(now.step, now.steps, progress_text(now)),
        should_stop=work.should_stop,
        teacher=None if settings.distill is None else Teacher(load_network(work.inputs["teacher"], task), settings.distill),
    )
    if not World.current().first:
        return None
    save_tensors(net.model.state_dict(), work.folder / MODEL)
    save_tensors(net.method.state_dict(), work.folder / METHOD)
    keep_metrics(work)
    return TrainRecord(
        method=method.name,
        options=method.options,
        granularity=method.granularity,
        epochs=result.epochs,
        measure=task.measure,
        accuracy=task.measured(net.plain(), device),
        seconds=round(result.seconds, 3),
        throughput=round(result.throughput, 1),
        unit=result.unit,
        device=device_name(device, work.machine.processor, result),
        precision=result.precision,
        threads=result.threads,
        notes=(*result.notes, *task.remarks),
        path=result.path,
        path_reason=result.path_reason,
    )


def keep_metrics(work: Workspace) -> None:
    """Take the epochs' lines out of the scratch folder; none were written where no epoch was trained."""
    written = work.folder / SCRATCH / METRICS
    if written.exists():
        written.replace(work.folder / METRICS)
    else:
        write_text(work.folder / METRICS, "")


def progress_text(now: TrainingProgress) -> str:
    """What stands beside the bar of a training; speed first, since a narrow terminal cuts the end."""
    loss = "" if now.loss is None else f"  loss {now.loss:.3f}"
    return f"{now.throughput:,.0f} {now.unit}/s  epoch {now.epoch}/{now.epochs}{loss}  {now.precision}"


def device_name(device: torch.device, processor: Processor, result: TrainResult) -> str:
    """What a person calls it: the GPU's name, or the processor's with the threads that were used; processes, bfloat16.

    Args:
        device: where it trained.
        processor: of this machine.
        result: the training.
    """
    threads = f"{result.threads} thread{'s' * (result.threads != 1)}"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{processor.name}, {threads}"
    if (size := World.current().size) > 1:
        name = f"{size} processes, {name}"
    return f"{name}, {result.precision}" if result.precision != "float32" else name


STAGE = Stage(name="train", version=VERSIONS["train"], settings=Settings, run=run, record=RECORDS["train"], joint=True)
