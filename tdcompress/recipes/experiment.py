"""One resolved combination of a recipe: every section as the settings dataclass that owns its keys."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from tdcompress.data.base import DataSettings
from tdcompress.data.registry import DATASETS
from tdcompress.errors import UserError, did_you_mean
from tdcompress.methods.base import MethodSettings
from tdcompress.methods.none import NoneSettings
from tdcompress.methods.registry import METHODS
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.models.base import ModelSettings
from tdcompress.models.initialise import DIRAC
from tdcompress.models.registry import MODELS, settings_type
from tdcompress.recipes.source import OPTIONAL, Recipe
from tdcompress.sparsity.patterns import check_fraction
from tdcompress.sparsity.shares import Shares
from tdcompress.stages import STAGES
from tdcompress.stages.analyse import AnalyseTable
from tdcompress.stages.bench import BenchTable
from tdcompress.stages.export import ExportTable
from tdcompress.stages.finetune import Settings as FinetuneTable
from tdcompress.stages.prune import PruneTable
from tdcompress.stages.prune import Settings as Pruning
from tdcompress.steps import STEPS, NetworkStep
from tdcompress.train.distill import DistillSettings
from tdcompress.train.settings import TrainSettings

_LEFT_OPEN: Mapping[str, type] = {"prune": PruneTable}  # what it leaves open, the training says


_OF_NO_STEP: Mapping[str, type] = {
    "train": TrainSettings,
    "export": ExportTable,
    "bench": BenchTable,
    "distill": DistillSettings,
    "analyse": AnalyseTable,
}


def table_types() -> dict[str, type]:
    """The recipe's tables that one dataclass owns, by name; a step's is its stage's own."""
    tables = [step.stage for step in STEPS.values() if step.table]
    return {**_OF_NO_STEP, **{name: _LEFT_OPEN.get(name, STAGES[name].settings) for name in tables}}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One combination of a recipe, resolved: nothing in it is left open.

    Attributes:
        case: what the recipe calls it; empty where it has no name.
        model_name: as written; "torchvision/resnet18" is a name too.
        init: a file of weights that the training starts from (`tdcompress.models.weights`), or "dirac".
        sparsity: the [sparsity] table as written.
        method: it, fitted to the length of the training.
        prune: the [prune] table as written; ``pruning`` has what it leaves open as in the training.
        usual_shares: how [prune] splits where it leaves that open.
        steps: settings of the stages between training and file that have a table, by name.
        taken: the steps that are taken, by their names in `STEPS`.
        distill: None also where there is nothing to learn from: in the untargeted training itself.
    """

    seed: int
    data: DataSettings
    model_name: str
    model: ModelSettings
    init: str | None
    sparsity: MethodSettings
    method: MethodSettings
    train: TrainSettings
    prune: PruneTable
    usual_shares: Shares
    steps: Mapping[str, Any] = field(hash=False)  # a mapping has none, and combinations are remembered by theirs
    taken: Mapping[str, NetworkStep] = field(hash=False)
    export: ExportTable
    bench: BenchTable
    distill: DistillSettings | None = None
    analyse: AnalyseTable | None = None
    case: str = ""

    @cached_property
    def pruning(self) -> Pruning:
        """What is pruned."""
        settings: Pruning = self.steps["prune"]
        return settings

    @cached_property
    def finetune(self) -> FinetuneTable:
        """The [finetune] table."""
        settings: FinetuneTable = self.steps["finetune"]
        return settings

    def tables(self) -> dict[str, Any]:
        """The tables that one dataclass owns, by name, as far as they are in force."""
        own = {name: getattr(self, name) for name in _OF_NO_STEP} | {**self.steps, "prune": self.prune}
        return {name: table for name, table in own.items() if table is not None}


def resolve(recipe: Recipe) -> Experiment:
    """Bind every section to its owner, with defaults.

    Raises:
        RecipeError: anything that is not right, with file, line and key.
    """
    data_type, data_values = recipe.choose(DATASETS, "data", "name")
    method_type, method_values = recipe.choose(METHODS, "sparsity", "method")
    model_name, model_type, model_values, init = _model(recipe)

    def elsewhere(registry: Mapping[str, type], chooser: str, name: str) -> Callable[[str], str]:
        return lambda key: owners_hint(registry, chooser, name, key)

    given = {name: kind for name, kind in table_types().items() if name not in OPTIONAL or name in recipe.values}
    tables: dict[str, Any] = {name: recipe.bind(kind, name) for name, kind in given.items()}
    sparsity = recipe.bind(method_type, "sparsity", method_values, elsewhere(METHODS, "method", method_type.name))
    try:
        method = sparsity.for_training(tables["train"].epochs)
    except ValueError as error:
        key = str(error).split(":")[0]
        raise recipe.source.error(f"sparsity.{key}", f"sparsity.{error}") from None
    if method.name == NoneSettings.name:
        tables["distill"] = None
    steps = {name: tables.pop(name) for name in given if name not in _OF_NO_STEP}
    prune: PruneTable = steps["prune"]
    steps["prune"] = prune.after(method)
    experiment = Experiment(
        seed=recipe.seed,
        data=recipe.bind(data_type, "data", data_values, elsewhere(DATASETS, "name", data_type.name)),
        model_name=model_name,
        model=recipe.bind(model_type, "model", model_values, elsewhere(MODELS, "name", model_name)),
        init=init,
        sparsity=sparsity,
        method=method,
        prune=prune,
        usual_shares=prune.usual_shares(method),
        steps=steps,
        taken={name: step for name, step in STEPS.items() if step.taken(steps)},
        case=recipe.case,
        **tables,
    )
    for key, problem in _contradictions(experiment):
        raise recipe.source.error(key, problem)
    return experiment


def owners_hint(registry: Mapping[str, type], chooser: str, name: str, key: str) -> str:
    """Whose key it is, where another name of the table has it: "; it belongs to method = "targeted", and this is "none"".

    Of a key that no name has, and that is near none of the chosen one's: the nearest of the others'.

    Args:
        registry: the names, with the settings that own their keys.
        chooser: the key that chooses among them.
        name: the chosen one.
        key: below the table; unknown to the chosen one.
    """
    first = key.split(".")[0]
    keys = {other: [field.name for field in fields(kind)] for other, kind in registry.items()}
    owners = [other for other, own in keys.items() if first in own]
    if name in owners:  # it is unknown below a key of the chosen one
        return ""
    if not owners:
        everyones = dict.fromkeys(each for own in keys.values() for each in own)
        own, hint = keys.get(name, []), did_you_mean(first, everyones)
        return f"{hint} (valid: {', '.join(own)})" if hint and not did_you_mean(first, own) else ""
    listed = " or ".join(f'"{owner}"' for owner in owners[:4])
    return f'; it belongs to {chooser} = {listed}, and this is "{name}"'


def _contradictions(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Tables that are right by themselves and do not go together: the key to change, and why."""
    pruning, finetune = experiment.pruning, experiment.finetune
    units = pruning.granularity == "unit"
    if experiment.analyse is not None and pruning.fraction is None:
        yield "prune", "prune.fraction: [analyse] needs the share that is pruned"
    if experiment.analyse is not None and units:
        yield "prune.granularity", 'prune.granularity: [analyse] is of single weights; set "weight"'
    if units and pruning.keep_per_filter is not None:
        counted = 'it counts weights of a filter; with granularity = "unit" give fraction'
        yield "prune.keep_per_filter", f"prune.keep_per_filter: {counted}"
    if units and pruning.shares == "filter":
        split = '"filter" is a share of the weights of each filter; units have "layer", "erk" or "global"'
        yield "prune.shares", f"prune.shares: {split}"
    if pruning.include and not units:
        yield "prune.include", 'prune.include: it names layers whose units are pruned; with granularity = "unit" only'
    if pruning.granularity == "2:4":
        yield from _unlike_two_of_four(experiment.prune)
    if not units and finetune.epochs and finetune.after == "shrink":
        only = 'weights are pruned here, and only units are shrunk; "prune" trains on with the zeros frozen'
        yield "finetune.after", f"finetune.after: {only}"
    if pruning.evaluation == "released" and (reason := _no_candidates(experiment)):
        yield "prune.evaluation", f'prune.evaluation: "released" prunes {reason}; take "plain"'


def _unlike_two_of_four(table: PruneTable) -> Iterator[tuple[str, str]]:
    """What "2:4" cannot be combined with."""
    for key, why in (
        ("keep_per_filter", "it keeps two of every four; give fraction = 0.5"),
        ("shares", "there is nothing to split"),
    ):
        if getattr(table, key) is not None:
            yield f"prune.{key}", f'prune.{key}: not a key of granularity = "2:4": {why}'
    try:
        check_fraction(table.fraction or 0, "2:4")
    except ValueError as error:
        yield "prune.fraction", f"prune.fraction: {error}"


def _no_candidates(experiment: Experiment) -> str | None:
    """Why a training's candidates cannot be pruned as the released code's evaluation does, or None where they can."""
    method = experiment.method
    if not isinstance(method, TargetedSettings) or method.gamma is None:
        return f"the training's candidates, its bottom gamma share, and this {method.name} has no gamma"
    if experiment.prune.fraction is None:
        return "the larger one of fraction and gamma, and keep_per_filter is no share"
    if (pruned := experiment.pruning.granularity) != method.granularity:
        return f'the training\'s candidates, of granularity "{method.granularity}", and here it is "{pruned}"'
    if (shares := experiment.pruning.shares) != method.split:
        return f'the training\'s candidates, split by "{method.split}", and here shares = "{shares}"'
    return None


def _model(recipe: Recipe) -> tuple[str, type[ModelSettings], dict[str, Any], str | None]:
    values = recipe.section("model")
    name, init = values.pop("name", None), values.pop("init", None)
    if not isinstance(name, str):
        raise recipe.source.error("model", "model.name is missing: the name of a network")
    # not Path.is_file, which raises where a name is too long
    if init is not None and init != DIRAC and (not isinstance(init, str) or not os.path.isfile(init)):  # noqa: PTH113
        raise recipe.source.error("model.init", f'model.init: {init!r} is not a file, nor "{DIRAC}"')
    try:
        return name, settings_type(name), values, init
    except UserError as error:
        raise recipe.source.error("model.name", f"model.name: {error}") from None
