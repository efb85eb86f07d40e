"""The records of a run's stages -> its report: one row per deployed network."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from tdcompress.artifacts import Artifact
from tdcompress.codec import decode, encode
from tdcompress.pipeline import Task
from tdcompress.records import (
    BenchRecord,
    ExportRecord,
    FinetuneRecord,
    PruneRecord,
    Report,
    Row,
    RowLatency,
    ShrinkRecord,
    StoreRecord,
    TrainRecord,
)
from tdcompress.report.select import select_row
from tdcompress.shrink.count import parameters_and_macs
from tdcompress.stages.experiment import Experiment
from tdcompress.stages.names import pruned_otherwise
from tdcompress.stages.network import example_inputs, fresh_network, load_data
from tdcompress.stages.plan import RowPlan, RunPlan

PACKAGES = ("tdcompress", "torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "onnx-ir", "numpy", "scipy")

T = TypeVar("T")


def make_report(plan: RunPlan, artifacts: Mapping[str, Artifact]) -> Report:
    """The run's record: one row per deployed network."""

    def record(kind: type[T], task: Task) -> T:
        return decode(kind, artifacts[task.key].record, task.stage)

    dense = record(ExportRecord, plan.dense)
    bench = record(BenchRecord, plan.bench) if plan.bench else BenchRecord(rows={}, hosts={})
    macs = dense_macs(plan.experiments)
    rows = tuple(
        make_row(
            row,
            record(TrainRecord, row.train),
            record(PruneRecord, row.pruned),
            record(PruneRecord, row.network),
            record(ShrinkRecord, row.compact) if row.compact.stage == "shrink" else record(StoreRecord, row.compact),
            record(ExportRecord, row.export),
            tuned=record(FinetuneRecord, row.deployed) if row.deployed is not row.compact else None,
            dense=dense,
            macs=macs[row.experiment.model_name],
            latency=bench.rows.get(row.id, ()),
        )
        for row in plan.rows
    )
    experiment = plan.experiments[0]
    select = experiment.export.select
    selected, sentence = select_row(
        rows, max_accuracy_drop=select.max_accuracy_drop, smallest=select.smallest, reference_accuracy=dense.accuracy
    )
    data = load_data(experiment.data)
    return Report(
        run=plan.recipe.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe_key=plan.recipe_key,
        data=data.name,
        model=experiment.model_name,
        model_options=model_options(experiment),
        classes=data.classes,
        test_samples=len(data.test),
        rows=rows,
        selected=selected,
        notes=(sentence,),
        hosts=bench.hosts,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Versions of Python and of what takes part."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def model_options(experiment: Experiment) -> dict[str, Any]:
    """The network's own keys that are not at their defaults."""
    usual = {field.name: field.default for field in fields(experiment.model)}
    return {key: value for key, value in encode(experiment.model).items() if value != encode(usual[key])}


def dense_macs(experiments: Sequence[Experiment]) -> dict[str, int]:
    """Multiply-accumulates of one sample for each dense network of a run."""
    first = {experiment.model_name: experiment for experiment in experiments}
    return {
        name: parameters_and_macs(fresh_network(experiment).eval(), example_inputs(experiment))[1]
        for name, experiment in first.items()
    }


def make_row(
    row: RowPlan,
    trained: TrainRecord,
    pruned: PruneRecord,
    whole: PruneRecord,
    compact: ShrinkRecord | StoreRecord,
    exported: ExportRecord,
    *,
    tuned: FinetuneRecord | None,
    dense: ExportRecord,
    macs: int,
    latency: tuple[RowLatency, ...],
) -> Row:
    """One row from the records of its stages; `whole` is of what was shrunk or stored: pruned, and perhaps fine-tuned."""
    experiment = row.experiment
    shrunk = compact if isinstance(compact, ShrinkRecord) else None
    stored = compact if isinstance(compact, StoreRecord) else None
    finetune = experiment.finetune
    trained_on = tuned or (whole if experiment.trains_on("prune") else None)
    return Row(
        id=row.id,
        method=experiment.method.name,
        options=experiment.options,
        granularity=experiment.granularity,
        fraction=experiment.prune.fraction,
        keep_per_filter=experiment.prune.keep_per_filter,
        scope=experiment.scope,
        seed=experiment.seed,
        epochs=trained.epochs + finetune.epochs,
        train_seconds=trained.seconds,
        device=trained.device,
        accuracy_dense=trained.accuracy,
        accuracy_masked=pruned.accuracy,
        accuracy_before=pruned.accuracy_before,
        accuracy_shrunk=shrunk.accuracy if shrunk else None,
        accuracy_stored=stored.accuracy if stored else None,
        accuracy_onnx=exported.accuracy,
        parameters_total=pruned.parameters_total,
        parameters_nonzero=exported.parameters_nonzero,
        sparsity_prunable=whole.sparsity_prunable,
        sparsity_model=whole.sparsity_model,
        macs=shrunk.macs_after if shrunk else macs,
        values=row.values,
        onnx_file=f"{row.id}.onnx",
        onnx_bytes=exported.onnx_bytes,
        dense_onnx_bytes=dense.onnx_bytes,
        bound_bytes=exported.bound_bytes,
        stored_bytes=stored.stored_bytes if stored else None,
        selectable=True,
        why=why(row, shrunk, exported),
        latency=latency,
        trained_granularity=None if experiment.method.granularity == experiment.granularity else experiment.method.granularity,
        unit=experiment.prune.unit or experiment.method.unit,
        shares=experiment.shares if pruned_otherwise(experiment) else None,
        evaluation=experiment.prune.evaluation,
        layers=whole.layers,
        shrunk=shrunk,
        accuracy_finetuned=trained_on.accuracy if trained_on else None,
        finetune_epochs=finetune.epochs,
        finetune_after=finetune.after if finetune.epochs else None,
        differs=dict(row.differs),
    )


def why(row: RowPlan, shrunk: ShrinkRecord | None, exported: ExportRecord) -> str:
    """What can make this file faster than the dense one, or why nothing can (design, rule 7)."""
    if shrunk is None:
        reason = "onnxruntime multiplies the zeros too: pruned weights make the file smaller, not faster"
    elif shrunk.macs_after == shrunk.macs_before:
        reason = "no unit was removed, so the network computes as much as the dense one"
    else:
        share = shrunk.macs_after / shrunk.macs_before
        reason = f"removed units leave {share:.0%} of the multiply-accumulates"
    if shrunk and shrunk.dead_but_kept:
        count = sum(dead.count for dead in shrunk.dead_but_kept)
        most = max(shrunk.dead_but_kept, key=lambda dead: dead.count)
        reason += f"; {count} dead units stay, most of them in {most.layer} ({most.reason})"
    if shrunk and shrunk.notes:
        reason += f"; {'; '.join(shrunk.notes)}"
    if row.values == "int8":
        reason += "; int8 arithmetic can be faster where the processor has instructions for it"
    if row.values == "float16":
        reason += "; float16 values are widened when the file is loaded"
    return reason
