"""Stage "shrink": a unit-pruned network -> a physically smaller one, with a certificate that nothing changed."""

import json

import torch

from tdcompress.files import write_text
from tdcompress.pipeline import Workspace
from tdcompress.records import DeadUnits, LayerUnits, ShrinkRecord
from tdcompress.shrink.shrink import shrink
from tdcompress.stages.experiment import Experiment
from tdcompress.stages.network import KEPT, MODEL, dense_network, example_inputs, measured_accuracy, save_tensors

VERSION = 5


def run(experiment: Experiment, device: torch.device, work: Workspace) -> ShrinkRecord:
    """Remove dead units, keep what is needed to rebuild the narrow network, measure it."""
    model = dense_network(experiment, work.inputs["network"])
    shrunk = shrink(model, example_inputs(experiment), align=experiment.shrink.align)
    write_text(work.folder / KEPT, json.dumps(shrunk.kept, sort_keys=True))
    save_tensors(shrunk.model.state_dict(), work.folder / MODEL)
    report = shrunk.report
    return ShrinkRecord(
        layers=tuple(LayerUnits(name=layer.name, before=layer.units_before, after=layer.units_after) for layer in report.layers),
        parameters_before=report.parameters_before,
        parameters_after=report.parameters_after,
        macs_before=report.macs_before,
        macs_after=report.macs_after,
        dead_but_kept=tuple(
            DeadUnits(layer=layer.name, count=count, reason=reason) for layer in report.layers for reason, count in layer.reasons
        ),
        max_error=report.max_error,
        max_output=report.max_output,
        notes=report.notes,
        accuracy=measured_accuracy(experiment, shrunk.model, device),
    )
