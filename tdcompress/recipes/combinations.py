"""The combinations of a recipe: each key has an effect in one of them, and no two make the same row."""

import json
import tomllib
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, fields, replace
from typing import Any

from tdcompress.codec import encode
from tdcompress.errors import RecipeError
from tdcompress.methods.base import MethodSettings
from tdcompress.methods.none import NoneSettings
from tdcompress.methods.registry import METHODS
from tdcompress.recipes.experiment import Experiment, resolve
from tdcompress.recipes.idle import idle_keys, without_keys
from tdcompress.recipes.source import Recipe, parse_recipe
from tdcompress.recipes.sweep import expand_sweep
from tdcompress.train.optim import schedule_keys


@dataclass(frozen=True, kw_only=True)
class Combinations:
    """A recipe of which every key has an effect, and its combinations, no two alike.

    Attributes:
        recipe: without what is passed over.
        variants: its combinations as written.
        experiments: resolved.
        idle: what has no effect in each; see ``idle_keys``.
    """

    recipe: Recipe
    variants: tuple[Recipe, ...]
    experiments: tuple[Experiment, ...]
    idle: tuple[Mapping[str, str], ...]


def combinations(recipe: Recipe) -> Combinations:
    """Every combination of a recipe, without what ``--set`` turned off; what else has no effect in all of them is refused.

    A key of the base, of a list or of a case has to have one in some combination that takes it from there. So a key that only
    some combinations use may stand where all of them have it. Two kinds of keys are passed over, and their defaults taken: one
    of the file that has an effect as the file is, without ``--set``; and one of a ``--set`` that is for other recipes too.

    Raises:
        RecipeError: anything that is not right. Of a key without effect: what it would need, and other such keys. Of a
            combination that makes a row which another one makes too: what both say.
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
    _refuse_equal_rows(found)
    return found


def idle_changes(recipe: Recipe) -> set[str]:
    """What ``--set`` says to no effect in a recipe: dotted keys."""
    return _changes(_without_effect(_expanded(recipe)))


def _expanded(recipe: Recipe) -> Combinations:
    of_set = {key for key, line in recipe.source.lines.items() if line == 0}
    recipe = _without_left_behind(recipe, of_set, tomllib.loads(recipe.text))
    variants = tuple(_without_left_behind(variant, variant.chosen.keys(), recipe.values) for variant in expand_sweep(recipe))
    experiments = tuple(resolve(variant) for variant in variants)
    return Combinations(recipe=recipe, variants=variants, experiments=experiments, idle=tuple(map(idle_keys, experiments)))


def _without_effect(found: Combinations) -> dict[str, tuple[Recipe, str, str]]:
    """Key without effect wherever it comes from one place -> a combination that has it, what is written, what it would need."""
    lost: dict[tuple[str, int | None], tuple[Recipe, str, str]] = {}
    used = set[tuple[str, int | None]]()
    for key in dict.fromkeys(key for keys in found.idle for key in keys):
        for variant, keys in zip(found.variants, found.idle, strict=True):
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


def _method_keys(name: Any) -> Set[str]:
    return {field.name for field in fields(METHODS[name])} if isinstance(name, str) and name in METHODS else set()


# What --set or a combination turns off by a word: the key, that word, and which further keys of its table a word owns.
_OFF: Mapping[str, tuple[str, Callable[[Any], Set[str]]]] = {
    "sparsity.method": (NoneSettings.name, _method_keys),
    "train.lr_schedule.name": ("constant", schedule_keys),
    "finetune.lr_schedule.name": ("constant", schedule_keys),
}


def _without_left_behind(recipe: Recipe, changes: Set[str], before: Mapping[str, Any]) -> Recipe:
    """Without the keys that its method or schedule had before some changes, and that nothing has since these turned it off."""
    left = set[str]()
    for key, (off, owned) in _OFF.items():
        if key in changes and _value(recipe.values, key) == off:
            table = key.rpartition(".")[0]
            left |= {f"{table}.{each}" for each in owned(_value(before, key)) - owned(off)} - changes
    return replace(recipe, values=without_keys(recipe.values, left)) if left else recipe


def _value(values: Mapping[str, Any], key: str) -> Any:
    """What a dotted key is; None where it is not written."""
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _refuse_equal_rows(found: Combinations) -> None:
    """Refuse a row that comes twice, whatever differs in how it is written."""
    methods = [experiment.method.of_training() for experiment in found.experiments]
    files = [[each.export.of(values) for values in each.export.values] for each in found.experiments]
    tables = encode([_besides_export(*pair) for pair in zip(found.experiments, methods, strict=True)])
    seen: dict[str, Recipe] = {}
    for variant, own, made, idle in zip(found.variants, tables, encode(files), found.idle, strict=True):
        for file in made:
            row = json.dumps(without_keys(own | {"export": file}, idle.keys()), sort_keys=True)
            if (earlier := seen.setdefault(row, variant)) is not variant:
                raise _twice(earlier.chosen, variant)


def _besides_export(experiment: Experiment, method: MethodSettings) -> dict[str, Any]:
    """What a row depends on and a sweep can change, by table; but for [export], of which its own file takes a part."""
    own = {"seed": experiment.seed, "data": experiment.data, "init": experiment.init, "method": method.name, "sparsity": method}
    return {**own, "train": experiment.train, "distill": experiment.distill, **experiment.steps}


def _twice(earlier: Mapping[str, Any], variant: Recipe) -> RecipeError:
    """What two combinations say that make the same row; the line is that of the later one."""
    said, before = (", ".join(f"{key} = {value!r}" for key, value in each.items()) for each in (variant.chosen, earlier))
    differ = [key for key, value in variant.chosen.items() if key not in earlier or earlier[key] != value]
    why = f": it makes the row of {before or 'the recipe without these keys'} again; write cases of what makes a difference"
    place = next(iter([*differ, *variant.chosen]), "sweep")
    return variant.source.error(place, f"sweep: the combination {said or '{}'} comes twice{why if said != before else ''}")
