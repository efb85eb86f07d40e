"""Stage "analyse": a trained network -> |delta E| and the dependence matrix (section 5.1)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from tdcompress.analysis.dependence import dependence_matrix
from tdcompress.analysis.loss_change import loss_change
from tdcompress.lineage.network import trained_network
from tdcompress.lineage.origin import learning_task_of, origin_of
from tdcompress.lineage.versions import RECORDS, VERSIONS
from tdcompress.npz import write_npy
from tdcompress.pipeline import Stage, Workspace
from tdcompress.records.stages import AnalysisRecord, TrainRecord
from tdcompress.sparsity.masks import apply_masks
from tdcompress.stages import prune

MATRIX = "matrix.npy"


@dataclass(frozen=True, kw_only=True)
class AnalyseTable:
    """The [analyse] table: where a recipe has it, every row's pruning is also analysed as in section 5.1.

    Attributes:
        bins: rows of the dependence matrix; neighbours in the order of magnitude are summed.
        batch: test samples at once.
    """

    bins: int = 256
    batch: int = 1000

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ValueError(f"bins: {self.bins} is out of range, 2 or more")
        if self.batch < 1:
            raise ValueError(f"batch: {self.batch} is out of range, 1 or more")


@dataclass(frozen=True, kw_only=True)
class Settings(AnalyseTable):
    """What is analysed.

    Attributes:
        prune: the pruning, of single weights by a fraction.
    """

    prune: prune.Settings


def run(settings: Settings, work: Workspace) -> AnalysisRecord:
    """Derive the test loss twice at the trained weights, in float64."""
    trained, device = work.inputs["train"], torch.device(work.machine.device)
    origin, record = origin_of(trained), trained.recorded(TrainRecord)
    fraction = prune.fraction_held(settings.prune, origin.method.settings)
    if fraction is None:
        raise ValueError("prune.fraction: an analysis needs the share that is pruned")
    task = learning_task_of(trained, work.machine.places)
    model, scores = trained_network(trained, task)
    masks, _ = prune.make_masks(settings.prune, origin, model, scores, task)
    unpruned = task.measured(model, device)
    model.double().eval()
    masks = {name: mask.to(device) for name, mask in masks.items()}
    batches = [(*inputs, targets) for inputs, targets in task.loss_batches(settings.batch, device)]
    change = loss_change(model, batches, masks, task.summed_loss)
    matrix = dependence_matrix(
        model, batches, masks, bins=settings.bins, loss=task.summed_loss, progress=_progress(work, len(batches))
    )
    apply_masks(model, masks)
    write_npy(work.folder / MATRIX, matrix.matrix.cpu().numpy())
    return AnalysisRecord(
        method=record.method,
        options=record.options,
        seed=origin.seed,
        epochs=record.epochs,
        device=record.device,
        train_seconds=record.seconds,
        fraction=fraction,
        gradient_term=change.gradient_term,
        curvature_term=change.curvature_term,
        measured=change.measured,
        measure=task.measure,
        accuracy_unpruned=unpruned,
        accuracy_pruned=task.measured(model.float(), device),
        bins=settings.bins,
        kept_bins=matrix.kept_bins,
        samples=sum(len(targets) for *_, targets in batches),
    )


def _progress(work: Workspace, batches: int) -> Callable[[int], None]:
    def report(done: int) -> None:
        work.stop_if_asked()
        work.progress.update(done, batches, f"Hessian-vector products, batch {done} of {batches}")

    return report


STAGE = Stage(name="analyse", version=VERSIONS["analyse"], settings=Settings, run=run, record=RECORDS["analyse"])
