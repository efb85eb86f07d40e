"""What can be known to fail before anything is trained: keys the task lacks, runtimes, threads, disk, names, units, ranking."""

import errno
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from tdcompress.bench.deployed import check_can_time
from tdcompress.errors import TdcompressError, UserError
from tdcompress.lineage.network import new_network, training_targets
from tdcompress.lineage.units import units_of
from tdcompress.methods.base import MethodSettings
from tdcompress.pipeline import Runner, Task
from tdcompress.recipes.source import Recipe
from tdcompress.runs.plan import RowPlan, RunPlan, prepared_inputs
from tdcompress.runs.workers import HERE, Workers
from tdcompress.stages import bench, prune, train
from tdcompress.stores.store import Store
from tdcompress.tasks.base import ANY
from tdcompress.tasks.registry import TASKS

NAME_BYTES = 255  # of a file name, on all usual file systems
TEMPORARY_BYTES = len("..12345678.tmp")  # what a file's name is longer by while it is written


def check_plan(plan: RunPlan, runner: Runner, workers: Workers = HERE) -> None:
    """Refuse a run that would train for hours and then fail; what is made already is not asked for again.

    Args:
        plan: the run.
        runner: makes its tasks; what is prepared of data is made here already where a check needs it.
        workers: know the machine that benchmarks run on.

    Raises:
        RecipeError: what `check_trainings` refuses; or a backend, provider or number of threads that that machine does not have.
        TdcompressError: a folder that cannot be written.
    """
    check_writable(runner.store.root)
    _check_keys(plan)
    _check_units(plan, [row.pruned for row in plan.rows], runner)
    _check_ranking(plan, runner)
    if plan.bench is not None and not _there(runner.store, plan.bench):
        problem = workers.bench_problem(plan.bench.settings)
        if problem is not None:
            key, why = problem
            raise plan.recipe.source.error(key, f"{key}: {why}")


def check_trainings(plan: RunPlan, runner: Runner) -> None:
    """Refuse a run whose trainings alone are made here, and the rest elsewhere, for what would fail on every machine.

    Args:
        plan: the run.
        runner: as of `check_plan`.

    Raises:
        RecipeError: values of keys that the data's task does not have; a backend that is unknown, or cannot run such networks;
            names too long for files; a network whose units cannot be pruned as asked; or layers that cannot be ranked together.
    """
    _check_keys(plan)
    _check_units(plan, [row.train for row in plan.rows], runner)
    _check_ranking(plan, runner)


def _check_keys(plan: RunPlan) -> None:
    _check_names(plan.recipe, plan.rows)
    _check_task(plan.recipe, plan.rows)
    if plan.bench is not None:
        _check_backends(plan.recipe, plan.bench.settings, plan.dense_train.settings.data.settings.task)


def check_writable(root: Path) -> None:
    """Write a file, and remove it, wherever a run of this folder will write.

    Raises:
        TdcompressError: one cannot be written; says which and why.
    """
    for folder in (root, root / "stages"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(1 << 16))
        except OSError as error:
            advice = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another with --artifacts"
            raise TdcompressError(f"{folder}: cannot be written ({error.strerror or error}); {advice}") from None


def _there(store: Store, task: Task) -> bool:
    return store.exists(task.stage.name, task.key)


def _check_names(recipe: Recipe, rows: Sequence[RowPlan]) -> None:
    longest = max((f"{row.id}.onnx" for row in rows), key=lambda name: len(name.encode()))
    if len(longest.encode()) + TEMPORARY_BYTES > NAME_BYTES:
        said = f"{longest[:60]}... would be a file name of {len(longest.encode())} bytes, too long; sweep over fewer keys at once"
        raise recipe.source.error("sweep", f"sweep: {said}")


def _check_task(recipe: Recipe, rows: Sequence[RowPlan]) -> None:
    for row in rows:
        training: train.Settings = row.train.settings
        tables = {"train": training.train, "prune": row.pruned.settings, "export": row.export.settings}
        for (key, refused), reason in TASKS[training.data.settings.task].refused.items():
            table, _, name = key.partition(".")
            value = getattr(tables[table], name)
            if value == refused or (refused is ANY and value is not None):
                raise recipe.source.error(key, f"{key}: {reason}")


def _check_backends(recipe: Recipe, settings: bench.Settings, task: str) -> None:
    """Refuse a backend that no machine can time such networks with."""
    for backend in settings.backend:
        try:
            check_can_time(backend, task)
        except UserError as error:
            raise recipe.source.error("bench.backend", f"bench.backend: {error}") from None


def _check_units(plan: RunPlan, made: Sequence[Task], runner: Runner) -> None:
    """Find the units of each pruning and of its training, before the first training rather than at the last one's beginning.

    Args:
        plan: the run.
        made: of each row the task that, where it is there already, says that its units were found.
        runner: makes what is prepared of the data.
    """
    asked: dict[str, tuple[Task, prune.Settings | MethodSettings, prune.PruneTable | None]] = {}
    experiments = [experiment for experiment in plan.experiments for _ in experiment.export.values]
    for row, task, experiment in zip(plan.rows, made, experiments, strict=True):
        if _there(runner.store, task):
            continue
        training: train.Settings = row.train.settings
        for units, written in ((experiment.method, None), (row.pruned.settings, experiment.prune)):
            if units.granularity == "unit":
                what = (training.model, training.data, units.scope, units.unit, units.exclude, units.include)
                asked.setdefault(repr(what), (row.train, units, written))
    for trained, units, written in asked.values():
        training = trained.settings
        prepared = {role: runner.ensure(needed) for role, needed in prepared_inputs(trained).items()}
        learning = training.data.task(runner.machine.places, prepared)
        model = new_network(training, learning)
        try:
            units_of(training, units, model, learning)
        except UserError as error:
            said = str(error).split(" = ")[0]
            key = said if said in ("exclude", "include") else "granularity"
            taken_over = written is None or getattr(written, key) is None
            key = f"{'sparsity' if taken_over else 'prune'}.{key}"
            raise plan.recipe.source.error(key, f"{key}: {error}") from None


def _check_ranking(plan: RunPlan, runner: Runner) -> None:
    """Refuse prunings that would rank some layers by the method's importance, and others together with them by magnitude."""
    for row in plan.rows:
        settings, training = row.pruned.settings, row.train.settings
        method = training.method.settings
        alike = all(getattr(settings, key) == getattr(method, key) for key in ("exclude", "include", "scope", "unit"))
        if alike or not method.own_scale or settings.shares != "global" or _there(runner.store, row.pruned):
            continue
        prepared = {role: runner.ensure(needed) for role, needed in prepared_inputs(row.train).items()}
        learning = training.data.task(runner.machine.places, prepared)
        model = new_network(training, learning)
        built = method.build(training_targets(training, model, learning), model)
        try:
            with warnings.catch_warnings(action="ignore"):  # told where it is pruned
                prune.make_masks(settings, training, model, built.scores(dict(model.named_parameters())), learning)
        except UserError as error:
            raise plan.recipe.source.error("prune.shares", str(error)) from None
