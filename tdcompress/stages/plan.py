"""A recipe -> the tasks that make its report: which stage, with what settings, from what inputs."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tdcompress.artifacts import HashMemory, content_key
from tdcompress.bench.host import read_host
from tdcompress.codec import encode
from tdcompress.data.base import DataSettings
from tdcompress.errors import ModelError
from tdcompress.models.initialise import DIRAC
from tdcompress.pipeline import Task, Workspace
from tdcompress.recipe import Recipe, expand_sweep
from tdcompress.sparsity.units import prunable_weights
from tdcompress.stages import analyse, bench, export, finetune, prune, shrink, store, train
from tdcompress.stages.experiment import Experiment, Values, resolve
from tdcompress.stages.names import differences, method_label, row_ids, share_label
from tdcompress.stages.network import fresh_network

_WHERE_NOT_WHAT = ("root", "download")  # keys that say where data lies; the content's hash says what it is


@dataclass(frozen=True, kw_only=True)
class RowPlan:
    """The tasks behind one row of the report.

    Attributes:
        id: short and unique in the run.
        pruned: the pruning alone.
        network: the last task whose network has its full shape: prune, or finetune.
        compact: shrink, or store.
        differs: see ``Row``.
        deployed: what is exported: ``compact``, or finetune after shrink.
    """

    id: str
    experiment: Experiment
    values: Values
    train: Task
    pruned: Task
    network: Task
    compact: Task
    deployed: Task
    export: Task
    differs: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """All tasks of a run.

    Attributes:
        recipe_key: hash of every resolved combination.
        dense: export of the unpruned network that every row is compared with.
        dense_train: its training.
        rows: one per combination and number format.
        bench: None where the recipe measures nothing.
        analyses: one per row where the recipe has an [analyse] table.
    """

    recipe: Recipe
    recipe_key: str
    experiments: tuple[Experiment, ...]
    dense: Task
    dense_train: Task
    rows: tuple[RowPlan, ...]
    bench: Task | None
    analyses: tuple[Task, ...] = ()


def plan_run(recipe: Recipe, device: torch.device, hashes: HashMemory) -> RunPlan:
    """Resolve every combination of a recipe and lay out its tasks.

    Args:
        recipe: with its sweep.
        device: where networks train and are measured.
        hashes: remembers the hashes of data files.

    Raises:
        RecipeError: anything wrong in the recipe, before anything runs.
        DataError: data that is missing or damaged.
    """
    variants = expand_sweep(recipe)
    experiments = tuple(resolve(variant) for variant in variants)
    for variant, experiment in zip(variants, experiments, strict=True):
        _check_excluded(variant, experiment)
    data_keys = {settings: settings.content_hash(hashes.sha256) for settings in {e.data for e in experiments}}
    recipe_key = content_key([describe(experiment, data_keys[experiment.data]) for experiment in experiments])
    tasks = [_Tasks(experiment, device, data_keys[experiment.data]) for experiment in experiments]
    baseline = next((task for task in tasks if task.experiment.method.name == "none"), tasks[0])
    rows = tuple(
        task.row(name if len(task.experiment.export.values) == 1 else f"{name}-{values}", values, differs)
        for name, task, differs in zip(row_ids(experiments), tasks, differences(experiments), strict=True)
        for values in task.experiment.export.values
    )
    dense = baseline.dense()
    return RunPlan(
        recipe=recipe,
        recipe_key=recipe_key,
        experiments=experiments,
        dense=dense,
        dense_train=baseline.train(),
        rows=rows,
        bench=_bench_task(experiments[0], dense, rows),
        analyses=tuple(task.analysis() for task in tasks if task.experiment.analyse),
    )


def _check_excluded(recipe: Recipe, experiment: Experiment) -> None:
    """Refuse a layer in prune.exclude that the network does not have, before it is trained."""
    if experiment.prune.exclude is None:
        return
    model = fresh_network(experiment)
    try:
        prunable_weights(model, experiment.prune.exclude)
    except ModelError as error:
        raise recipe.source.error("prune.exclude", f"prune.exclude: {error}") from None


def describe(experiment: Experiment, data_key: str) -> dict[str, Any]:
    """Everything that a row depends on, as JSON: settings with defaults, names, the data's hash."""
    return {
        "seed": experiment.seed,
        "data": _data(experiment.data, data_key),
        "model": _model(experiment),
        "method": {"name": experiment.method.name, **encode(experiment.method)},
        **{key: encode(getattr(experiment, key)) for key in ("train", "prune", "finetune", "shrink", "export", "bench")},
        **{key: encode(table) for key in ("analyse", "distill") if (table := getattr(experiment, key))},
    }


def _data(settings: DataSettings, data_key: str) -> dict[str, Any]:
    kept = {key: value for key, value in encode(settings).items() if key not in _WHERE_NOT_WHAT}
    return {"name": settings.name, "content": data_key, **kept}


def _model(experiment: Experiment) -> dict[str, Any]:
    init = experiment.init
    if init is not None and init != DIRAC:
        init = hashlib.sha256(Path(init).read_bytes()).hexdigest()
    return {"name": experiment.model_name, "init": init, **encode(experiment.model)}


class _Tasks:
    """The tasks of one experiment."""

    def __init__(self, experiment: Experiment, device: torch.device, data_key: str) -> None:
        self.experiment = experiment
        self.device = device
        self.data_key = data_key
        self.described = describe(experiment, data_key)

    def train(self) -> Task:
        experiment = self.experiment
        keys = ("seed", "data", "model", "method", "train", *(["distill"] if experiment.distill else []))
        teacher = _Tasks(experiment.teacher, self.device, self.data_key).train if experiment.distill else None
        return Task(
            stage="train",
            version=train.VERSION,
            settings={key: self.described[key] for key in keys},
            inputs={"teacher": teacher()} if teacher else {},
            work=partial(train.run, experiment, self.device),
            title=f"train {experiment.model_name} {method_label(experiment)}",
        )

    def pruned(self) -> Task:
        experiment = self.experiment
        return Task(
            stage="prune",
            version=prune.VERSION,
            settings=self.pruning(),
            inputs={"train": self.train()},
            work=partial(prune.run, experiment, self.device),
            title=f"prune {method_label(experiment)} {share_label(experiment)}",
        )

    def network(self) -> Task:
        pruned = self.pruned()
        return self.finetune(pruned, finetune.run) if self.experiment.trains_on("prune") else pruned

    def finetune(self, network: Task, run: Callable[[Experiment, torch.device, Workspace], Any]) -> Task:
        return Task(
            stage="finetune",
            version=finetune.VERSION,
            settings=self.described["finetune"],
            inputs={"network": network},
            work=partial(run, self.experiment, self.device),
            title=f"fine-tune {method_label(self.experiment)} {share_label(self.experiment)}",
        )

    def pruning(self) -> dict[str, Any]:
        """What is pruned, with what [prune] takes over from the training."""
        experiment = self.experiment
        resolved = {key: getattr(experiment, key) for key in ("granularity", "scope", "shares", "exclude")}
        return {**self.described["prune"], **resolved, "unit": experiment.prune.unit or experiment.method.unit}

    def analysis(self) -> Task:
        return Task(
            stage="analyse",
            version=analyse.VERSION,
            settings={**self.described["analyse"], "prune": self.pruning()},
            inputs={"train": self.train()},
            work=partial(analyse.run, self.experiment, self.device),
            title=f"analyse {method_label(self.experiment)} {share_label(self.experiment)}",
        )

    def compact(self) -> Task:
        stage = shrink if self.experiment.granularity == "unit" else store
        name = "shrink" if self.experiment.granularity == "unit" else "store"
        return Task(
            stage=name,
            version=stage.VERSION,
            settings=self.described["shrink"] if name == "shrink" else {},
            inputs={"network": self.network()},
            work=partial(stage.run, self.experiment, self.device),
            title=f"{name} {method_label(self.experiment)} {share_label(self.experiment)}",
        )

    def export(self, network: Task, values: Values, pack: bool, title: str) -> Task:
        settings = {key: value for key, value in self.described["export"].items() if key not in ("select", "values")}
        return Task(
            stage="export",
            version=export.VERSION,
            settings={**settings, "values": values, "pack": pack},
            inputs={"network": network},
            work=partial(export.run, self.experiment, values, pack, network.key),
            title=title,
        )

    def dense(self) -> Task:
        return self.export(self.train(), "float32", False, f"export dense {self.experiment.model_name}")

    def row(self, name: str, values: Values, differs: Mapping[str, Any]) -> RowPlan:
        compact = self.compact()
        deployed = self.finetune(compact, finetune.run_narrow) if self.experiment.trains_on("shrink") else compact
        pack = self.experiment.export.pack == "auto"
        return RowPlan(
            id=name,
            experiment=self.experiment,
            values=values,
            train=self.train(),
            pruned=self.pruned(),
            network=self.network(),
            compact=compact,
            deployed=deployed,
            export=self.export(deployed, values, pack, f"export {name}"),
            differs=differs,
        )


def _bench_task(experiment: Experiment, dense: Task, rows: Sequence[RowPlan]) -> Task | None:
    settings = experiment.bench
    if settings.budget == "none":
        return None
    here = read_host()  # latencies of another host, or of other versions, are of no use here
    return Task(
        stage="bench",
        version=bench.VERSION,
        settings={**encode(settings), "host": here.id, "versions": here.versions, "seed": experiment.seed},
        inputs={"dense": dense, **{row.id: row.export for row in rows}},
        work=partial(bench.run, settings, experiment.seed),
        title=f"bench {len(rows)} files",
    )
