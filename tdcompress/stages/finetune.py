"""Stage "finetune": a pruned network trains on with its masks frozen, or a shrunk one with all of its weights."""

import shutil
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from safetensors.torch import load_file

from tdcompress.artifacts import SCRATCH
from tdcompress.codec import shallow
from tdcompress.errors import ArtifactError
from tdcompress.files import published
from tdcompress.lineage.measure import pruned_record
from tdcompress.lineage.network import KEPT, MASKS, MODEL, load_network, save_tensors
from tdcompress.lineage.origin import ancestor, learning_task_of, settings_of, training_of
from tdcompress.lineage.versions import RECORDS, VERSIONS
from tdcompress.methods.base import Method
from tdcompress.methods.wrapper import SparseNet
from tdcompress.pipeline import Stage, Workspace
from tdcompress.records.stages import FinetuneRecord, PruneRecord
from tdcompress.sparsity.units import Targets, prunable_weights
from tdcompress.stages import prune
from tdcompress.stages import train as training
from tdcompress.train.distributed import World
from tdcompress.train.loop import train
from tdcompress.train.optim import LrSchedule
from tdcompress.train.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The [finetune] table: training goes on after pruning or shrinking. What is None is as in [train].

    Attributes:
        epochs: 0 = no fine-tuning.
        lr: learning rate.
        lr_schedule: what it is multiplied by, over the steps of the fine-tuning; [train]'s is of the training.
        after: "prune": the full network with its masks frozen, so that zeros stay zeros and shrinking comes last; or, for units,
            "shrink": every weight of the narrow network; shrinking is certified before that.
    """

    epochs: int = 0
    lr: float | None = None
    lr_schedule: LrSchedule = field(default_factory=LrSchedule)
    after: Literal["prune", "shrink"] = "prune"

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"epochs: {self.epochs} is out of range, 0 or more")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ValueError(f"lr: {self.lr} is out of range, above 0")


def run(settings: Settings, work: Workspace) -> PruneRecord | FinetuneRecord | None:
    """Train on without any dropout, at the fine-tuning's own rate, going on where a killed run stopped.

    The network is pruned: then its zeros stay, by its masks. Or it is shrunk: then what it is made of goes with its weights.

    Returns:
        None in all but the first of several processes.

    Raises:
        ArtifactError: nothing was pruned that could be fine-tuned.
    """
    device = torch.device(work.machine.device)
    network = work.inputs["network"]
    origin = settings_of(training.Settings, training_of(network))
    task = learning_task_of(network, work.machine.places)
    model = load_network(network, task)
    pruned = ancestor(network, "prune")
    if pruned is None:
        raise ArtifactError(f"{network.folder}: nothing was pruned that could be fine-tuned")
    weights = prunable_weights(model, settings_of(prune.Settings, pruned).exclude)
    narrow = KEPT in network.files
    result = train(
        SparseNet(model.to(device), Method(Targets(weights=weights))),
        task.train_set(origin.seed),
        task.test_set(),
        _tuning(settings, origin.train),
        seed=origin.seed,
        device=device,
        folder=work.folder / SCRATCH,
        processor=work.machine.processor,
        cores=work.machine.cores,
        progress=lambda now: work.progress.update(now.step, now.steps, training.progress_text(now)),
        should_stop=work.should_stop,
        keep=None if narrow else load_file(pruned.file(MASKS)),
    )
    if not World.current().first:
        return None
    save_tensors(model.state_dict(), work.folder / MODEL)
    training.keep_metrics(work)
    if not narrow:
        return pruned_record(model, weights, task, device)
    with published(work.folder / KEPT) as temporary:
        shutil.copyfile(network.file(KEPT), temporary)
    return FinetuneRecord(
        epochs=result.epochs,
        measure=task.measure,
        accuracy=task.measured(model, device),
        seconds=round(result.seconds, 3),
        throughput=round(result.throughput, 1),
        unit=result.unit,
    )


@dataclass(frozen=True, kw_only=True)
class _Tuning(TrainSettings):
    """[train] with what [finetune] says instead, and messages that name its keys."""

    lr_key: ClassVar[str] = "finetune.lr"
    lr_schedule_key: ClassVar[str] = "finetune.lr_schedule"


def _tuning(settings: Settings, base: TrainSettings) -> TrainSettings:
    """How the training goes on: as it was, but for its length and its learning rates."""
    optimizer = replace(base.optimizer, lr=settings.lr or base.optimizer.lr)
    own = {"epochs": settings.epochs, "optimizer": optimizer, "lr_schedule": settings.lr_schedule}
    return _Tuning(**(shallow(base) | own))


STAGE = Stage(name="finetune", version=VERSIONS["finetune"], settings=Settings, run=run, record=RECORDS["finetune"], joint=True)
