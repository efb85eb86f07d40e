"""Keys of a recipe that do nothing, since another key chose otherwise: what is written has an effect, or is refused."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from tdcompress.errors import RecipeError
from tdcompress.methods.none import NoneSettings
from tdcompress.recipes.experiment import Experiment, resolve
from tdcompress.recipes.source import Recipe, parse_recipe
from tdcompress.recipes.sweep import expand_sweep


@dataclass(frozen=True, kw_only=True)
class Combinations:
    """A recipe of which every key has an effect, and its combinations as written and resolved, in the same order."""

    recipe: Recipe
    variants: tuple[Recipe, ...]
    experiments: tuple[Experiment, ...]


def combinations(recipe: Recipe) -> Combinations:
    """Every combination of a recipe, without what ``--set`` turned off; what else has no effect in all of them is refused.

    A key of the base, of a list or of a case has to have one in some combination that takes it from there. So a key that only
    some combinations use may stand where all of them have it. Two kinds of keys are passed over, and their defaults taken: one
    of the file that has an effect as the file is, without ``--set``; and one of a ``--set`` that is for other recipes too.

    Raises:
        RecipeError: anything that is not right. Of a key without effect: what it would need, and other such keys.
    """
    found = _expanded(recipe)
    idle = _without_effect(found)
    if passed := _passed_over(recipe, idle):
        found = _expanded(replace(recipe, values=without_keys(recipe.values, passed)))
        idle = _without_effect(found)
    for key, (variant, written, needed) in idle.items():
        others = ", ".join(other for other in idle if other != key)
        likewise = f" (likewise {others})" if others else ""
        raise variant.source.error(
            written, f"{written}: it does nothing without {needed}; set that, or leave {key} out{likewise}"
        )
    return found


def idle_changes(recipe: Recipe) -> set[str]:
    """What ``--set`` says to no effect in a recipe: dotted keys."""
    return _changes(_without_effect(_expanded(recipe)))


def _expanded(recipe: Recipe) -> Combinations:
    variants = tuple(expand_sweep(recipe))
    return Combinations(recipe=recipe, variants=variants, experiments=tuple(resolve(variant) for variant in variants))


def _without_effect(found: Combinations) -> dict[str, tuple[Recipe, str, str]]:
    """Key without effect wherever it comes from one place -> a combination that has it, what is written, what it would need."""
    lost: dict[tuple[str, int | None], tuple[Recipe, str, str]] = {}
    used = set[tuple[str, int | None]]()
    idle = [idle_keys(experiment) for experiment in found.experiments]
    for key in dict.fromkeys(key for keys in idle for key in keys):
        for variant, keys in zip(found.variants, idle, strict=True):
            written = _first_written(variant.values, key)
            if written is None:
                continue
            place = key, variant.source.line(written)
            if key in keys:
                lost.setdefault(place, (variant, written, keys[key]))
            else:
                used.add(place)
    return {place[0]: each for place, each in lost.items() if place not in used}


def _changes(idle: Mapping[str, tuple[Recipe, str, str]]) -> set[str]:
    return {key for key, (variant, written, _) in idle.items() if variant.source.line(written) == 0}


def _passed_over(recipe: Recipe, idle: Mapping[str, tuple[Recipe, str, str]]) -> set[str]:
    """Of the keys without effect those that are not refused. From the sweep nothing is taken: its combinations would be equal."""
    if not idle:
        return set()
    changes = _changes(idle)
    try:
        of_file = {*_without_effect(_expanded(parse_recipe(recipe.text, recipe.source.file)))}
    except RecipeError:  # it is no recipe without --set, so that nothing can be said of it
        of_file = {*idle}
    return (idle.keys() - changes - of_file) | (changes if recipe.shared else set())


def without_keys(values: Mapping[str, Any], keys: Set[str], table: str = "") -> dict[str, Any]:
    """The values of a table, without those that are None, and without some keys.

    Args:
        values: nested.
        keys: dotted.
        table: what the values are below, with a dot at the end.
    """
    said = {key: value for key, value in values.items() if value is not None and f"{table}{key}" not in keys}
    return {key: without_keys(value, keys, f"{table}{key}.") if isinstance(value, dict) else value for key, value in said.items()}


def idle_keys(experiment: Experiment) -> dict[str, str]:
    """What has no effect in a combination, whether it is written or not.

    Returns:
        Dotted key, or table -> what it would need, in the words of a recipe.
    """
    return dict((*_of_method(experiment), *_of_units(experiment), *_of_training(experiment), *_of_export(experiment)))


def _of_method(experiment: Experiment) -> Iterator[tuple[str, str]]:
    method, prune = experiment.method, experiment.prune
    for key, needed in method.idle.items():
        yield f"sparsity.{key}", f"sparsity.{needed}"
    same = experiment.pruning.granularity == method.granularity
    if not method.splits and not (same and prune.shares is None and prune.keep_per_filter is None):
        yield "sparsity.shares", "a method that drops by shares, or a [prune] that leaves them open"
    if method.name == NoneSettings.name:
        yield "distill", f'another sparsity.method than "{method.name}"'


def _of_units(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Weights have no scope, are no units, and leave nothing to align."""
    pruned = experiment.pruning.granularity == "unit"
    for key in ("scope", "unit"):
        taken_over = pruned and getattr(experiment.prune, key) is None
        if experiment.method.granularity != "unit" and not taken_over:
            yield f"sparsity.{key}", 'sparsity.granularity = "unit"'
    if not pruned:
        for key in ("prune.scope", "prune.unit", "prune.align", "shrink.align"):
            yield key, 'prune.granularity = "unit"'


def _of_training(experiment: Experiment) -> Iterator[tuple[str, str]]:
    train, finetune = experiment.train, experiment.finetune
    if train.average == "none":
        yield "train.average_share", 'train.average = "ema" or "last"'
    if train.average != "ema":
        yield "train.average_decay", 'train.average = "ema"'
    if not finetune.epochs:
        for key in ("lr", "lr_schedule", "after"):
            yield f"finetune.{key}", "finetune.epochs above 0"
    for table, schedule in (("train", train.lr_schedule), ("finetune", finetune.lr_schedule if finetune.epochs else None)):
        if schedule is not None and schedule.name != "piecewise":
            yield f"{table}.lr_schedule.unit", f'{table}.lr_schedule.name = "piecewise"'


def _of_export(experiment: Experiment) -> Iterator[tuple[str, str]]:
    if "int8" not in experiment.export.values:
        yield "export.int8_range", '"int8" among export.values'
    if experiment.export.pack == "never":
        yield "export.prefer", 'export.pack = "auto"'


def _first_written(values: Mapping[str, Any], key: str) -> str | None:
    """The dotted key itself, or the first one below it, as far as the recipe has any."""
    found: Any = values
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    while isinstance(found, Mapping) and found:
        below = next(iter(found))
        key, found = f"{key}.{below}", found[below]
    return key
