"""The folder that people read and ship from: files, report, resolved recipe, links to the stages behind them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tdcompress.artifacts import Artifact
from tdcompress.codec import encode
from tdcompress.errors import ArtifactError
from tdcompress.files import published, sha256_file, write_text
from tdcompress.npz import write_npz
from tdcompress.onnxfile.load import load_model, save_model
from tdcompress.onnxfile.metadata import RECIPE_KEY, set_metadata
from tdcompress.pipeline import Task
from tdcompress.recipes.experiment import Experiment
from tdcompress.recipes.idle import idle_keys, without_keys
from tdcompress.recipes.source import OPTIONAL, Recipe, required_tables
from tdcompress.records.report import Report
from tdcompress.records.stages import AnalysisRecord
from tdcompress.report.dependence import write_dependence
from tdcompress.report.join import keep_joined
from tdcompress.report.write import write_report
from tdcompress.runs.manifest import DENSE_FILE, RECIPE, SAMPLES, SELECTED_FILE, Links, save_links, write_manifest
from tdcompress.runs.plan import RunPlan
from tdcompress.runs.rows import make_report
from tdcompress.stages.analyse import MATRIX
from tdcompress.stages.export import ONNX


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

    exported = {DENSE_FILE: artifacts[plan.dense.key], **{f"{row.id}.onnx": artifacts[row.export.key] for row in plan.rows}}
    sizes = {name: ship(artifact, plan.recipe_key, folder / name) for name, artifact in exported.items()}
    report = make_report(plan, artifacts, sizes)
    if report.selected is not None:
        exported[SELECTED_FILE] = exported[f"{report.selected}.onnx"]
        ship(exported[SELECTED_FILE], plan.recipe_key, folder / SELECTED_FILE)
    if earlier is not None:
        before, digests = earlier
        report = keep_joined(report, before, [name for name in exported if sha256_file(folder / name) == digests.get(name)])
    gather_samples(folder / SAMPLES, exported)
    write_text(folder / RECIPE, tomli_w.dumps(resolved_values(plan.recipe, plan.experiments)))
    save_links(folder, links(plan))
    write_report(report, folder)
    if plan.analyses:
        analyses = [artifacts[task.key] for task in plan.analyses]
        records = [artifact.recorded(AnalysisRecord) for artifact in analyses]
        matrices = [np.load(artifact.file(MATRIX), allow_pickle=False) for artifact in analyses]
        write_dependence(folder, records, matrices, report)
    write_manifest(folder, plan.recipe.name, plan.recipe_key)
    return report


def ship(exported: Artifact, recipe_key: str, path: Path) -> int:
    """Copy what an export needs into a run's folder: "x.onnx" also gets "x.decoder_step.onnx", and all rows one vocabulary.

    Its ONNX files are stamped with the recipe that they are shipped by, since recipes can share an export.

    Args:
        exported: the export.
        recipe_key: of the run.
        path: of its first file in the run's folder.

    Returns:
        Bytes of all of them.

    Raises:
        ArtifactError: two rows need different files of one name.
    """
    names = [name for name in exported.files if name != SAMPLES]
    return sum(_ship_file(exported, name, recipe_key, path.with_name(shipped_name(path.name, name))) for name in names)


def _ship_file(exported: Artifact, name: str, recipe_key: str, target: Path) -> int:
    if name.endswith(".onnx"):
        model = load_model(exported.file(name))
        set_metadata(model, {RECIPE_KEY: recipe_key})
        return save_model(model, target)
    if target.exists() and sha256_file(target) != exported.files[name]:
        raise ArtifactError(f"{target}: rows of this run need different files of this name; give each a recipe of its own")
    with published(target) as temporary:
        shutil.copyfile(exported.file(name), temporary)
    return target.stat().st_size


def shipped_name(first: str, name: str) -> str:
    """What a file of an export is called in a run's folder.

    Args:
        first: the export's first file there, "x.onnx".
        name: of the file in the export.
    """
    if name == ONNX:
        return first
    return f"{Path(first).stem}.{name}" if name.endswith(".onnx") else name


def links(plan: RunPlan) -> Links:
    """Row -> stage -> the stage's folder, from the run's; every stage that the report tells of is among them."""
    found = {row.id: {task.stage.name: _link(task) for task in row.tasks()} for row in plan.rows}
    found["dense"] = {"train": _link(plan.dense_train), "export": _link(plan.dense)}
    if plan.bench:
        found["bench"] = {"bench": _link(plan.bench)}
    if plan.analyses:
        found["analyse"] = {f"analyse-{number}": _link(task) for number, task in enumerate(plan.analyses, 1)}
    return found


def _link(task: Task) -> str:
    return f"../stages/{task.stage.name}/{task.key}"


def gather_samples(path: Path, shipped: Mapping[str, Artifact]) -> None:
    """Real inputs, and what each file has to give for them, for ``verify`` on the deployment machine; see ``stages.export``.

    Files with one input share it, as ``input``, and "x.onnx" has its output as ``output/x.onnx``. Others have arrays of their
    own, ``x.decoder_step.onnx/token``.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, artifact in shipped.items():
        graph = load_model(artifact.file(ONNX)).graph
        with np.load(artifact.file(SAMPLES), allow_pickle=False) as archive:
            if graph.input[0].name in archive:
                arrays["input"] = archive[graph.input[0].name]
                arrays[f"output/{name}"] = archive[graph.output[0].name]
            for within in archive.files:
                file, _, value = within.partition("/")
                if file in artifact.files:
                    arrays[f"{shipped_name(name, file)}/{value}"] = archive[within]
    write_npz(path, arrays)


def resolved_values(recipe: Recipe, experiments: Sequence[Experiment]) -> dict[str, Any]:
    """The recipe with every default written out, except in sections that the sweep changes, so that it can be run again.

    These stay as written: a table that only cases have is not all others' too.
    A table that a recipe may lack is written where it is in force in some combination, and a key where it has an effect in one.

    Args:
        recipe: as it was run.
        experiments: each of its combinations, resolved.
    """
    values, changed = dict(recipe.values), _changed_sections(recipe)
    if "seed" not in changed:
        values.setdefault("seed", 0)
    for section in (*required_tables(), *OPTIONAL):
        resolved = [_section(experiment, section) for experiment in experiments]
        resolved = [table for table in resolved if table is not None]
        if section not in changed and resolved and all(item == resolved[0] for item in resolved):
            values[section] = resolved[0]
    idle = set.intersection(*({*idle_keys(experiment)} for experiment in experiments))
    return without_keys(values, idle)


def _changed_sections(recipe: Recipe) -> set[str]:
    """Sections that some list or case of the sweep has a key of."""
    sweep = recipe.section("sweep")
    return {path.split(".")[0] for keys in (sweep, *sweep.pop("case", ())) for path in keys}


def _section(experiment: Experiment, section: str) -> dict[str, Any] | None:
    """A table as a recipe says it; None where it is not in force."""
    if section == "sparsity":
        return {"method": experiment.sparsity.name, **encode(experiment.sparsity)}
    if section == "model":
        return {"name": experiment.model_name, "init": experiment.init, **encode(experiment.model)}
    if section == "data":
        return {"name": experiment.data.name, **encode(experiment.data)}
    table: dict[str, Any] | None = encode(experiment.tables().get(section))
    return table
