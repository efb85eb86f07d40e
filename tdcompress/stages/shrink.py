"""Stage "shrink": a unit-pruned network -> a physically smaller one, with a certificate that nothing changed."""

import json
from dataclasses import dataclass

import torch

from tdcompress.files import write_text
from tdcompress.lineage.network import KEPT, MODEL, load_network, save_tensors
from tdcompress.lineage.origin import learning_task_of
from tdcompress.lineage.versions import RECORDS, VERSIONS
from tdcompress.pipeline import Stage, Workspace
from tdcompress.records.stages import DeadUnits, LayerUnits, ShrinkRecord
from tdcompress.shrinking.exact import shrink


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The [shrink] table: how a network that lost units is made smaller.

    Attributes:
        align: of the channels that could go, so many stay that widths are multiples of this, or what they were; onnxruntime
            computes channels in blocks of 16.
    """

    align: int = 1

    def __post_init__(self) -> None:
        if self.align < 1:
            raise ValueError(f"align: {self.align} is out of range, 1 or more")


def run(settings: Settings, work: Workspace) -> ShrinkRecord:
    """Remove dead units, keep what is needed to rebuild the narrow network, measure it."""
    network = work.inputs["network"]
    task = learning_task_of(network, work.machine.places)
    shrunk = shrink(load_network(network, task), task.examples(), align=settings.align)
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
        measure=task.measure,
        accuracy=task.measured(shrunk.model, torch.device(work.machine.device)),
    )


STAGE = Stage(name="shrink", version=VERSIONS["shrink"], settings=Settings, run=run, record=RECORDS["shrink"])
