"""The folder that people read and ship from: files, report, resolved recipe, links to the stages behind them."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tdcompress.artifacts import FORMAT, MANIFEST, Artifact
from tdcompress.codec import decode, encode
from tdcompress.files import published, sha256_file, write_text
from tdcompress.pipeline import Task
from tdcompress.recipe import SECTIONS
from tdcompress.records import AnalysisRecord, Report
from tdcompress.report.dependence import write_dependence
from tdcompress.report.join import keep_joined
from tdcompress.report.write import write_report
from tdcompress.stages.analyse import MATRIX
from tdcompress.stages.experiment import Experiment
from tdcompress.stages.export import ONNX, SAMPLES
from tdcompress.stages.plan import RunPlan
from tdcompress.stages.rows import make_report

RECIPE, STAGES = "recipe.toml", "stages.json"


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
    import tomli_w

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
        row.id: {task.stage: _link(task) for task in (row.train, row.pruned, row.network, row.compact, row.deployed, row.export)}
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
        write_dependence(folder, records, matrices, report)
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
