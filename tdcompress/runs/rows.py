"""The records of a run's stages -> its report: one row per deployed network."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tdcompress.artifacts import Artifact
from tdcompress.codec import encode, shallow
from tdcompress.lineage.measure import count_layers
from tdcompress.lineage.network import load_network, new_network
from tdcompress.lineage.origin import learning_task_of, origin_of
from tdcompress.pipeline import Task
from tdcompress.recipes.experiment import Experiment
from tdcompress.records.latency import RowLatency
from tdcompress.records.report import Report, Row, RowConfig
from tdcompress.records.stages import BenchRecord, ExportRecord, PrunedCount, ShrinkRecord, TrainRecord
from tdcompress.report import text
from tdcompress.report.select import select_row
from tdcompress.report.zeros import STAYS_AT_MOST
from tdcompress.runs.manifest import DENSE_FILE
from tdcompress.runs.plan import RowPlan, RunPlan
from tdcompress.shrinking.count import parameters_and_macs
from tdcompress.sparsity.units import prunable_weights
from tdcompress.steps import STEPS
from tdcompress.tasks.base import LearningTask

PACKAGES = (
    *("tdcompress", "torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "onnx-ir", "numpy", "scipy"),
    *("pillow", "sentencepiece", "sacrebleu"),
)


def make_report(plan: RunPlan, artifacts: Mapping[str, Artifact], shipped_bytes: Mapping[str, int]) -> Report:
    """The run's record: one row per deployed network.

    Args:
        plan: the run.
        artifacts: of all its tasks, by key.
        shipped_bytes: size of each ONNX file in the run's folder, by name.
    """

    def record(task: Task) -> Any:
        return artifacts[task.key].recorded(task.stage.record)

    bench: BenchRecord = record(plan.bench) if plan.bench else BenchRecord(rows={}, hosts={})
    experiment = plan.experiments[0]
    origin = origin_of(artifacts[plan.dense_train.key])
    task = learning_task_of(artifacts[plan.dense_train.key], plan.places)
    macs = dense_macs(artifacts[plan.dense_train.key], task)
    zeros = zeros_as_trained(plan.rows, artifacts, task)
    rows = tuple(
        make_row(
            row,
            record(row.train),
            {name: record(task) for name, task in row.steps.items()},
            record(row.export),
            shipped_bytes=shipped_bytes,
            macs=macs,
            sparsity_trained=zeros[row.id],
            latency=bench.rows.get(row.id, ()),
        )
        for row in plan.rows
    )
    dense: ExportRecord = record(plan.dense)
    select = experiment.export.select
    selected, sentence = select_row(
        rows,
        max_accuracy_drop=select.max_accuracy_drop,
        smallest=select.smallest,
        reference_accuracy=dense.accuracy,
        measure=task.measure,
    )
    return Report(
        run=plan.recipe.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe_key=plan.recipe_key,
        data=origin.data.settings.name,
        model=experiment.model_name,
        model_options=model_options(experiment),
        classes=task.classes,
        test_samples=task.test_samples,
        measure=task.measure,
        rows=rows,
        warning=nothing_learnt(dense.accuracy, task),
        selected=selected,
        notes=(sentence,),
        hosts=bench.hosts,
        versions=versions(),
    )


def nothing_learnt(accuracy: float, task: LearningTask) -> str:
    """What is said where the network that all rows are compared with is no better than one answer to everything; else nothing.

    Args:
        accuracy: of the dense file (0..1).
        task: whose measure that is.
    """
    if accuracy > task.guessing:
        return ""
    measure = task.measure
    return (
        f"The dense network has learnt next to nothing: its {measure.name} is {text.figure(accuracy, measure)}, and one answer "
        f"to everything gets about {text.figure(task.guessing, measure)}. So the rows say nothing about pruning. "
        "Train it longer, or with another learning rate."
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


def dense_macs(trained: Artifact, task: LearningTask) -> int:
    """Multiply-accumulates of one sample in a run's dense network."""
    model = new_network(origin_of(trained), task).eval()
    return parameters_and_macs(model, task.examples())[1]


def zeros_as_trained(rows: Sequence[RowPlan], artifacts: Mapping[str, Artifact], task: LearningTask) -> dict[str, float]:
    """Share of zeros (0..1) among each row's prunable weights before anything is pruned, by the row's id.

    Args:
        rows: their tasks.
        artifacts: of these, by key.
        task: what they were trained for.
    """
    found = {}
    for key in {row.train.key: None for row in rows}:
        model = load_network(artifacts[key], task)
        for row in rows:
            if row.train.key == key:
                layers = count_layers(model, prunable_weights(model, row.pruned.settings.exclude))
                found[row.id] = 1 - sum(layer.kept for layer in layers) / sum(layer.total for layer in layers)
    return found


def make_row(
    row: RowPlan,
    trained: TrainRecord,
    steps: Mapping[str, Any],
    exported: ExportRecord,
    *,
    shipped_bytes: Mapping[str, int],
    macs: int,
    sparsity_trained: float,
    latency: tuple[RowLatency, ...],
) -> Row:
    """One row from the records of its stages.

    Args:
        row: its tasks.
        trained: of the training.
        steps: of what lies between, by their names in `STEPS`, in their order.
        exported: of its file.
        shipped_bytes: see ``make_report``.
        macs: multiply-accumulates of the dense network.
        sparsity_trained: see ``zeros_as_trained``.
        latency: what was measured.
    """
    filled: dict[str, Any] = {"macs": macs}
    for name, record in steps.items():
        filled |= STEPS[name].fills(record)
    file = f"{row.id}.onnx"
    return Row(
        **shallow(row.config),
        **filled,
        id=row.id,
        train_seconds=trained.seconds,
        device=trained.device,
        accuracy_dense=trained.accuracy,
        accuracy_onnx=exported.accuracy,
        parameters_nonzero=exported.parameters_nonzero,
        onnx_file=file,
        onnx_bytes=shipped_bytes[file],
        dense_onnx_bytes=shipped_bytes[DENSE_FILE],
        bound_bytes=exported.bound_bytes,
        why="; ".join(filter(None, (why(row, filled.get("shrunk"), exported), less_than_asked(row.config, filled["pruned"])))),
        latency=latency,
        how=exported.how,
        figures=exported.figures,
        unlike_torch=exported.unlike_torch,
        kept_float32=exported.kept_float32,
        sparsity_trained=sparsity_trained,
    )


def why(row: RowPlan, shrunk: ShrinkRecord | None, exported: ExportRecord) -> str:
    """What can make this file faster than the dense one, or why nothing can (design, rule 7); and what stayed float32.

    Args:
        row: its settings.
        shrunk: what shrinking did, if anything.
        exported: of its file.
    """
    if shrunk is None:
        reason = "onnxruntime multiplies the zeros too"
        packed = row.export.settings.pack
        reason += ": pruned weights make the file smaller, not faster" if packed else ', and pack = "never" stores them all'
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
    if row.config.values == "int8":
        reason += "; int8 arithmetic can be faster where the processor has instructions for it"
    elif exported.as_asked == 0:
        reason += f"; no weight is stored as {row.config.values}"
    elif row.config.values != "float32":
        reason += f"; {row.config.values} values are widened when the file is loaded"
    return "; ".join((reason, *text.by_reason("kept in float32", exported.kept_float32)))


def less_than_asked(config: RowConfig, pruned: PrunedCount | None) -> str:
    """How much was pruned, where a quarter more stays than the fraction that names the row leaves; else nothing.

    Whole numbers of each filter go, so a little more than that always stays.

    Args:
        config: of the row.
        pruned: how much it was.
    """
    if pruned is None or config.fraction is None:
        return ""
    if pruned.total - pruned.gone <= STAYS_AT_MOST * (1 - config.fraction) * pruned.total:
        return ""
    share, asked = (text.short_percent(part) for part in (pruned.gone / pruned.total, config.fraction))
    return (
        f"{pruned.gone:,} of {pruned.total:,} {text.plural(config.granularity)} are pruned, {share} where {asked} were asked for"
    )
