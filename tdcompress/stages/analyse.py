"""Stage "analyse": a trained network -> |delta E| and the dependence matrix (section 5.1)."""

from collections.abc import Callable

import numpy as np
import torch

from tdcompress.analysis.curvature import Batches
from tdcompress.analysis.dependence import dependence_matrix
from tdcompress.analysis.loss_change import loss_change
from tdcompress.codec import decode
from tdcompress.files import published
from tdcompress.pipeline import Workspace
from tdcompress.records import AnalysisRecord, TrainRecord
from tdcompress.sparsity.masks import apply_masks
from tdcompress.stages.experiment import Experiment
from tdcompress.stages.network import measured_accuracy, test_samples, trained_network
from tdcompress.stages.prune import make_masks

VERSION = 1
MATRIX = "matrix.npy"


def run(experiment: Experiment, device: torch.device, work: Workspace) -> AnalysisRecord:
    """Derive the test loss twice at the trained weights, in float64."""
    analyse, fraction = experiment.analyse, experiment.prune.fraction
    assert analyse is not None
    assert fraction is not None
    trained = decode(TrainRecord, work.inputs["train"].record, "train")
    model, scores = trained_network(experiment, work.inputs["train"])
    _, masks = make_masks(experiment, model, scores)
    unpruned = measured_accuracy(experiment, model, device)
    model.double().eval()
    masks = {name: mask.to(device) for name, mask in masks.items()}
    batches = float64_batches(experiment, analyse.batch, device)
    change = loss_change(model, batches, masks)
    matrix = dependence_matrix(model, batches, masks, bins=analyse.bins, progress=_progress(work, len(batches)))
    apply_masks(model, masks)
    with published(work.folder / MATRIX) as temporary, temporary.open("wb") as file:
        np.save(file, matrix.matrix.cpu().numpy(), allow_pickle=False)
    return AnalysisRecord(
        method=trained.method,
        options=trained.options,
        seed=experiment.seed,
        epochs=trained.epochs,
        device=trained.device,
        train_seconds=trained.seconds,
        fraction=fraction,
        gradient_term=change.gradient_term,
        curvature_term=change.curvature_term,
        measured=change.measured,
        accuracy_unpruned=unpruned,
        accuracy_pruned=measured_accuracy(experiment, model.float(), device),
        bins=analyse.bins,
        kept_bins=matrix.kept_bins,
        samples=sum(len(labels) for _, labels in batches),
    )


def float64_batches(experiment: Experiment, size: int, device: torch.device) -> Batches:
    """The test set, preprocessed."""
    samples = test_samples(experiment).to(device)
    with torch.no_grad():
        return [
            (samples.preprocess(samples.pixels[start : start + size]).double(), samples.labels[start : start + size])
            for start in range(0, len(samples), size)
        ]


def _progress(work: Workspace, batches: int) -> Callable[[int], None]:
    def report(done: int) -> None:
        work.stop_if_asked()
        work.progress.update(done, batches, f"Hessian-vector products, batch {done} of {batches}")

    return report
