"""A recipe -> the tasks that make its report: which stage, with what settings, from what inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tdcompress.artifacts import HashMemory, content_key
from tdcompress.codec import encode, shallow
from tdcompress.errors import ModelError
from tdcompress.lineage.network import initial_network, new_network
from tdcompress.lineage.origin import KnownData, NamedMethod, NamedModel
from tdcompress.models.initialise import DIRAC
from tdcompress.pipeline import Task
from tdcompress.recipes.combinations import combinations
from tdcompress.recipes.experiment import Experiment
from tdcompress.recipes.names import differences, method_label, row_config, row_ids, share_label
from tdcompress.recipes.source import Recipe
from tdcompress.records.report import RowConfig
from tdcompress.runs.prepared import prepared_tasks
from tdcompress.runs.workers import HERE, Workers
from tdcompress.sparsity.patterns import check_pattern
from tdcompress.sparsity.units import prunable_weights
from tdcompress.stages import STAGES, analyse, bench, export, train
from tdcompress.stores.store import Store

Places = Mapping[str, Path]


def prepared_inputs(training: Task) -> dict[str, Task]:
    """Of a training's inputs those that stages prepare of its data, by role: all but a teacher, which is a training too."""
    return {role: task for role, task in training.inputs.items() if task.stage is not training.stage}


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The tasks of one combination, up to what is exported.

    Attributes:
        train: the training.
        steps: those of `STEPS` that are taken, by their names there, in their order.
    """

    train: Task
    steps: Mapping[str, Task]

    @property
    def pruned(self) -> Task:
        """The pruning alone."""
        return self.steps["prune"]

    @property
    def deployed(self) -> Task:
        """What is exported."""
        *_, last = self.steps.values()
        return last

    def tasks(self) -> tuple[Task, ...]:
        """Inputs first."""
        return (*prepared_inputs(self.train).values(), self.train, *self.steps.values())


@dataclass(frozen=True, kw_only=True)
class RowPlan(Chain):
    """The tasks behind one row of the report.

    Attributes:
        id: short and unique in the run.
        config: what tells it apart.
        export: its file.
    """

    id: str
    config: RowConfig
    export: Task

    def tasks(self) -> tuple[Task, ...]:
        """Inputs first."""
        return (*super().tasks(), self.export)


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """All tasks of a run.

    Attributes:
        recipe: without what has no effect; see `tdcompress.recipes.combinations`.
        recipe_key: hash of every resolved combination.
        dense: export of the unpruned network that every row is compared with.
        dense_train: its training.
        rows: one per combination and number format.
        bench: None where the recipe measures nothing.
        analyses: one per combination that has an [analyse] table.
        places: where lies what keys know by content; see ``Machine``.
    """

    recipe: Recipe
    recipe_key: str
    experiments: tuple[Experiment, ...]
    dense: Task
    dense_train: Task
    rows: tuple[RowPlan, ...]
    bench: Task | None
    analyses: tuple[Task, ...]
    places: Places

    def tasks(self) -> tuple[Task, ...]:
        """Every task whose result the report needs, each once, trainings first."""
        tasks = [*(row.train for row in self.rows), self.dense_train, self.dense]
        tasks += [task for row in self.rows for task in row.tasks()]
        tasks += [*self.analyses, *([self.bench] if self.bench else [])]
        return tuple({task.key: task for task in tasks}.values())


def plan_run(recipe: Recipe, store: Store, workers: Workers = HERE) -> RunPlan:
    """Resolve every combination of a recipe and lay out its tasks.

    Args:
        recipe: with its sweep.
        store: of its artefacts: remembers the hashes of data files, and has what may be prepared of data already.
        workers: know the machine that benchmarks run on; asked where the recipe has any.

    Raises:
        RecipeError: anything wrong in the recipe, before anything runs.
        DataError: data that is missing or damaged.
        UserError: a library is not installed that prepares the data.
    """
    found = combinations(recipe)
    variants, experiments = found.variants, found.experiments
    trainings, places = _trainings(experiments, store.hashes)
    for variant, experiment, training in zip(variants, experiments, trainings, strict=True):
        _check_excluded(variant, experiment, training, places)
        _check_patterns(variant, experiment, training, places)
    trained = _train_tasks(trainings, store, places)
    for variant, task in zip(variants, trained, strict=True):
        if task.settings.model.init is not None and not store.exists(task.stage.name, task.key):
            _check_init(variant, task.settings, places)
    chains = [_chain(*pair) for pair in zip(experiments, trained, strict=True)]
    rows = tuple(
        _row(name, experiment, row_config(experiment, values, differs), chain)
        for name, experiment, differs, chain in zip(
            row_ids(experiments), experiments, differences(experiments), chains, strict=True
        )
        for values in experiment.export.values
    )
    plain = next((place for place, experiment in enumerate(experiments) if experiment.method.name == "none"), 0)
    dense = Task(
        stage=export.STAGE,
        settings=experiments[plain].export.of("float32", pack=False),
        inputs={"network": trained[plain]},
        title=f"export dense {experiments[plain].model_name}",
    )
    return RunPlan(
        recipe=found.recipe,
        recipe_key=content_key([describe(*pair) for pair in zip(experiments, trainings, strict=True)]),
        experiments=experiments,
        dense=dense,
        dense_train=trained[plain],
        rows=rows,
        bench=_bench_task(experiments[0], dense, rows, workers),
        analyses=tuple(
            _analysis(experiment, experiment.analyse, task)
            for experiment, task in zip(experiments, trained, strict=True)
            if experiment.analyse
        ),
        places=places,
    )


def describe(experiment: Experiment, training: train.Settings) -> dict[str, Any]:
    """Everything that a combination depends on, as JSON: settings with defaults, names, the data's hash."""
    whole = replace(training, method=NamedMethod(settings=experiment.method))  # [prune] takes more of it than the training
    return {**encode(experiment.tables()), **encode(whole)}


def _trainings(experiments: tuple[Experiment, ...], hashes: HashMemory) -> tuple[list[train.Settings], dict[str, Path]]:
    """What each combination's training depends on, and where lies what it knows by content."""
    places: dict[str, Path] = {}
    known: dict[Any, KnownData] = {}
    trainings = []
    methods = [experiment.method.of_training() for experiment in experiments]
    for experiment, method in zip(experiments, methods, strict=True):
        if experiment.data not in known:
            data = known[experiment.data] = KnownData.of(experiment.data, hashes.sha256)
            if root := getattr(experiment.data, "root", None):
                places[data.content] = Path(root).expanduser()  # told to other processes, which resolve it
        init = experiment.init
        if init is not None and init != DIRAC:
            path = Path(init)
            init = hashes.sha256(path)
            places[init] = path
        trainings.append(
            train.Settings(
                seed=experiment.seed,
                data=known[experiment.data],
                model=NamedModel(name=experiment.model_name, init=init, settings=experiment.model),
                method=NamedMethod(settings=method),
                train=experiment.train,
                distill=experiment.distill,
            )
        )
    return trainings, places


def _check_excluded(recipe: Recipe, experiment: Experiment, training: train.Settings, places: Places) -> None:
    """Refuse layers to exclude that the network does not have, and all of them, before anything is trained."""
    for section, exclude in (("sparsity", experiment.method.exclude), ("prune", experiment.prune.exclude)):
        if not exclude:
            continue
        try:
            prunable_weights(new_network(training, training.data.task(places)), exclude)
        except ModelError as error:
            raise recipe.source.error(f"{section}.exclude", f"{section}.exclude: {error}") from None


def _check_patterns(recipe: Recipe, experiment: Experiment, training: train.Settings, places: Places) -> None:
    """Refuse layers that the patterns of training or pruning do not fit, before anything is trained."""
    for section, settings in (("sparsity", experiment.method), ("prune", experiment.pruning)):
        if settings.granularity != "2:4" and settings.granularity != "1x4":
            continue
        model = new_network(training, training.data.task(places))
        try:
            check_pattern(dict(model.named_parameters()), prunable_weights(model, settings.exclude), settings.granularity)
        except ModelError as error:
            raise recipe.source.error(f"{section}.granularity", f"{section}.granularity: {error}") from None


def _check_init(recipe: Recipe, training: train.Settings, places: Places) -> None:
    """Refuse initial weights that do not fit the network, before anything is trained."""
    try:
        initial_network(training, training.data.task(places), places)
    except ModelError as error:
        raise recipe.source.error("model.init", f"model.init: {str(error).removeprefix('model.init: ')}") from None


def _train_tasks(trainings: Sequence[train.Settings], store: Store, places: dict[str, Path]) -> list[Task]:
    """A task for each training; those on the same data share what is prepared of it, which adds where that lies."""
    prepared: dict[KnownData, dict[str, Task]] = {}
    for data in dict.fromkeys(training.data for training in trainings):
        on_it = [training for training in trainings if training.data == data]
        prepared[data] = prepared_tasks(data, places, store, partial(_from_prepared, on_it))
    return [_train_task(training, prepared[training.data]) for training in trainings]


def _from_prepared(trainings: Sequence[train.Settings], prepared: Mapping[str, Task]) -> list[Task]:
    return [_train_task(training, prepared) for training in trainings]


def _train_task(training: train.Settings, prepared: Mapping[str, Task]) -> Task:
    title = f"train {training.model.name} {method_label(training.method.settings)}"
    taught = {} if training.teacher is None else {"teacher": _train_task(training.teacher, prepared)}
    return Task(stage=train.STAGE, settings=training, inputs={**prepared, **taught}, title=title)


def _chain(experiment: Experiment, trained: Task) -> Chain:
    """What becomes of a training: each step goes on from what the one before it made."""
    steps, network, words = dict[str, Task](), trained, _words(experiment)
    for name, step in experiment.taken.items():
        stage = STAGES[step.stage]
        settings = experiment.steps[step.stage] if step.table else stage.settings()
        network = Task(stage=stage, settings=settings, inputs={step.role: network}, title=f"{step.verb} {words}")
        steps[name] = network
    return Chain(train=trained, steps=steps)


def _words(experiment: Experiment) -> str:
    return f"{method_label(experiment.method)} {share_label(experiment.pruning)}"


def _row(name: str, experiment: Experiment, config: RowConfig, chain: Chain) -> RowPlan:
    name = name if len(experiment.export.values) == 1 else f"{name}-{config.values}"
    settings, inputs = experiment.export.of(config.values), {"network": chain.deployed}
    exported = Task(stage=export.STAGE, settings=settings, inputs=inputs, title=f"export {name}")
    return RowPlan(**shallow(chain), id=name, config=config, export=exported)


def _analysis(experiment: Experiment, table: analyse.AnalyseTable, trained: Task) -> Task:
    settings = analyse.Settings(**shallow(table), prune=experiment.pruning)
    return Task(stage=analyse.STAGE, settings=settings, inputs={"train": trained}, title=f"analyse {_words(experiment)}")


def _bench_task(experiment: Experiment, dense: Task, rows: tuple[RowPlan, ...], workers: Workers) -> Task | None:
    if experiment.bench.budget == "none":
        return None
    host = workers.bench_host()
    settings = bench.Settings(**shallow(experiment.bench), host=host.id, versions=host.versions, seed=experiment.seed)
    inputs = {"dense": dense, **{row.id: row.export for row in rows}}
    return Task(stage=bench.STAGE, settings=settings, inputs=inputs, title=f"bench {len(rows)} files")
