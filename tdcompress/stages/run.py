"""A whole run: plan a recipe, make its tasks, and lay out the folder that people read and ship from."""

import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tomli_w
import torch

from tdcompress.artifacts import FORMAT, MANIFEST, Artifact, Store, hold
from tdcompress.errors import UnsupportedError, UserError
from tdcompress.files import published, sha256_file, write_text
from tdcompress.pipeline import Runner, Task, Watcher
from tdcompress.recipe import SECTIONS, Recipe
from tdcompress.records import (
    AnalysisRecord,
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
    decode,
    encode,
)
from tdcompress.report.dependence import write_dependence
from tdcompress.report.join import keep_joined
from tdcompress.report.select import select_row
from tdcompress.report.write import write_report
from tdcompress.shrink.count import parameters_and_macs
from tdcompress.stages.analyse import MATRIX
from tdcompress.stages.experiment import Experiment
from tdcompress.stages.export import ONNX, SAMPLES
from tdcompress.stages.folder import earlier_report, finished_report, refuse_another_recipe, renewed
from tdcompress.stages.network import example_inputs, fresh_network, load_data
from tdcompress.stages.plan import RowPlan, RunPlan, plan_run
from tdcompress.unfinished import announced, run_lock

RECIPE, STAGES = "recipe.toml", "stages.json"
PACKAGES = ("tdcompress", "torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "onnx-ir", "numpy", "scipy")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run that is done: its report, its folder, and how many stages had to be made for it."""

    report: Report
    folder: Path
    made: int


def find_device(name: str) -> torch.device:
    """The device of ``--device``: "auto" takes a GPU where there is one.

    Raises:
        UnsupportedError: a GPU is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError("--device cuda: torch finds no GPU here; use --device cpu, or install a CUDA build of torch")
    if name not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: it is one of auto, cpu, cuda")
    # the accuracy of one network is the same everywhere only if float32 means float32
    torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)


def run_recipe(
    recipe: Recipe,
    *,
    root: Path,
    device: torch.device,
    watcher: Watcher,
    should_stop: Callable[[], int | None] = lambda: None,
    replace: bool = False,
    command: str = "run its recipe again",
) -> Finished:
    """Run a recipe to its report; what is done already is not done again.

    Args:
        recipe: as ``load_recipe`` gives it.
        root: the artifacts folder.
        device: see ``find_device``.
        watcher: told about each stage.
        should_stop: the number of a signal that asks the process to end, or None.
        replace: whether a run folder of another recipe with this name may be replaced.
        command: what starts this run again, for ``tdcompress status``.

    Raises:
        UserError: the folder holds another recipe's run, and ``replace`` is false; or several processes run this.
        BusyError: another process works in the run's folder.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "started as several processes (torchrun), but a recipe runs in one: start tdcompress itself; "
            "for several GPUs call train inside `joined` (tdcompress.train.distributed) in a script of your own"
        )
    store = Store(root)
    folder = root / recipe.name
    with hold(run_lock(root, recipe.name), f"the run {recipe.name}"):
        plan = plan_run(recipe, device, store.hashes)
        store.hashes.save()
        refuse_another_recipe(folder, plan.recipe_key, replace)
        runner = Runner(store=store, watcher=watcher, facts=facts(), should_stop=should_stop)
        tasks = all_tasks(plan)
        with announced(root, recipe.name, tasks, command):
            artifacts = {task.key: runner.ensure(task) for task in tasks}
            store.hashes.save()
            finished = None if runner.made or replace else finished_report(folder, plan.recipe_key)
            if finished is None:
                earlier = earlier_report(folder, plan.recipe_key)
                with renewed(folder) as new:
                    finished = lay_out(plan, artifacts, new, earlier)
        return Finished(report=finished, folder=folder, made=runner.made)


def facts() -> dict[str, Any]:
    """Versions and host, for manifests."""
    return {"versions": versions(), "host": {"system": platform.platform(), "machine": platform.machine()}}


def versions() -> dict[str, str]:
    """Versions of Python and of what takes part."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def all_tasks(plan: RunPlan) -> list[Task]:
    """Every task whose result the report needs, trainings first."""
    rows = plan.rows
    tasks = [*(row.train for row in rows), plan.dense_train, plan.dense]
    tasks += [task for row in rows for task in (row.network, row.compact, row.deployed, row.export)]
    tasks += plan.analyses
    return tasks + ([plan.bench] if plan.bench else [])


def lay_out(
    plan: RunPlan, artifacts: Mapping[str, Artifact], folder: Path, earlier: tuple[Report, Mapping[str, str]] | None = None
) -> Report:
    """Write an empty folder full: files to ship, report, resolved recipe, links; its manifest last.

    Args:
        plan: the run.
        artifacts: of all its tasks, by key.
        folder: empty.
        earlier: the same recipe's report and the sha256 of its files; latencies that were joined to it are kept.
    """
    dense = artifacts[plan.dense.key]
    shipped = {"dense.onnx": dense, **{f"{row.id}.onnx": artifacts[row.export.key] for row in plan.rows}}
    report = make_report(plan, artifacts)
    chosen = next((row for row in plan.rows if row.id == report.selected), None)
    if chosen is not None:
        shipped["model.onnx"] = artifacts[chosen.export.key]
    for name, artifact in shipped.items():
        with published(folder / name) as temporary:
            shutil.copyfile(artifact.file(ONNX), temporary)
    if earlier is not None:
        before, digests = earlier
        report = keep_joined(report, before, [name for name in shipped if sha256_file(folder / name) == digests.get(name)])
    write_samples(folder / SAMPLES, shipped)
    write_text(folder / RECIPE, tomli_w.dumps(resolved_values(plan)))
    links = {
        row.id: {task.stage: _link(task) for task in (row.train, row.network, row.compact, row.deployed, row.export)}
        for row in plan.rows
    }
    links["dense"] = {"train": _link(plan.dense_train), "export": _link(plan.dense)}
    links |= {"bench": {"bench": _link(plan.bench)}} if plan.bench else {}
    write_text(folder / STAGES, json.dumps(links, indent=1))
    write_report(report, folder)
    if plan.analyses:
        analyses = [artifacts[task.key] for task in plan.analyses]
        records = [decode(AnalysisRecord, artifact.record, "analyse") for artifact in analyses]
        matrices = [np.load(artifact.file(MATRIX), allow_pickle=False) for artifact in analyses]
        write_dependence(folder, records, matrices, report.model)
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.is_file()}
    manifest = {"format": FORMAT, "run": plan.recipe.name, "recipe_key": plan.recipe_key, "files": files}
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1))
    return report


def _link(task: Task) -> str:
    return f"../stages/{task.stage}/{task.key}"


def write_samples(path: Path, shipped: Mapping[str, Artifact]) -> None:
    """Real inputs, and what each file has to give for them, for ``verify`` on the deployment machine; see ``stages.export``."""
    arrays: dict[str, np.ndarray] = {}
    for name, artifact in shipped.items():
        with np.load(artifact.file(SAMPLES), allow_pickle=False) as archive:
            arrays["input"] = archive["input"]
            arrays[f"output/{name}"] = archive["output"]
    with published(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def resolved_values(plan: RunPlan) -> dict[str, Any]:
    """The recipe with every default written out, except in sections that the sweep changes."""
    values: dict[str, Any] = dict(plan.recipe.values)
    values.setdefault("seed", 0)
    for section in SECTIONS:
        resolved = [_section(experiment, section) for experiment in plan.experiments]
        if all(item == resolved[0] for item in resolved):
            values[section] = resolved[0]
    return _without_none(values)


def _section(experiment: Experiment, section: str) -> dict[str, Any]:
    if section == "sparsity":
        return {"method": experiment.method.name, **encode(experiment.method)}
    if section == "model":
        return {"name": experiment.model_name, "init": experiment.init, **encode(experiment.model)}
    settings = getattr(experiment, section)
    return {**({"name": settings.name} if section == "data" else {}), **encode(settings)}


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _without_none(value) if isinstance(value, dict) else value for key, value in values.items() if value is not None}


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
        classes=data.classes,
        test_samples=len(data.test),
        rows=rows,
        selected=selected,
        notes=(sentence,),
        hosts=bench.hosts,
        versions=versions(),
    )


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
    compact: ShrinkRecord | StoreRecord,
    exported: ExportRecord,
    *,
    tuned: FinetuneRecord | None,
    dense: ExportRecord,
    macs: int,
    latency: tuple[RowLatency, ...],
) -> Row:
    """One row from the records of its stages."""
    experiment = row.experiment
    shrunk = compact if isinstance(compact, ShrinkRecord) else None
    stored = compact if isinstance(compact, StoreRecord) else None
    finetune = experiment.finetune
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
        accuracy_shrunk=shrunk.accuracy if shrunk else None,
        accuracy_stored=stored.accuracy if stored else None,
        accuracy_onnx=exported.accuracy,
        parameters_total=pruned.parameters_total,
        parameters_nonzero=pruned.parameters_nonzero,
        sparsity_prunable=pruned.sparsity_prunable,
        sparsity_model=pruned.sparsity_model,
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
        evaluation=experiment.prune.evaluation,
        shrunk=shrunk,
        accuracy_finetuned=tuned.accuracy if tuned else None,
        finetune_epochs=finetune.epochs,
        finetune_after=finetune.after if finetune.epochs else None,
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
