"""The combinations of a recipe: its [sweep] lists and [[sweep.case]] tables, crossed. Knows no stage, no network and no torch."""

import itertools
from collections.abc import Mapping
from typing import Any

from tdcompress.recipes.positions import Source
from tdcompress.recipes.source import Recipe, assign, check_top, is_within, leaves, nearest
from tdcompress.steps import step_tables


def swept() -> tuple[str, ...]:
    """What rows may differ in. They share one network, one data set and one benchmark, which all of them are compared by."""
    before = ("seed", "data.crop_padding", "data.flip", "data.cutout", "model.init", "sparsity", "train", "distill")
    return (*before, *step_tables(), "export.values", "export.pack", "export.prefer")


def expand_sweep(recipe: Recipe) -> list[Recipe]:
    """Every combination of the recipe's [sweep] lists and [[sweep.case]] tables, in the order written; cases vary slowest.

    Raises:
        RecipeError: a sweep over something that is not a key of a section, an empty list, a value that another one of the same
            combination replaces, or two equal combinations.
    """
    sweep = recipe.section("sweep")
    cases = sweep.pop("case", [{}])
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases) or not cases:
        raise recipe.source.error("sweep.case", "sweep.case: write each case as a [[sweep.case]] table")
    for path, options in sweep.items():
        if not isinstance(options, list) or not options:
            quoted = "".join(f', and its key in quotation marks, "{leaf}"' for leaf in leaves(path, options) if leaf != path)
            raise recipe.source.error(
                f"sweep.{path}", f"sweep.{path!r}: a list with at least one value is needed, such as [0.5, 0.9]{quoted}"
            )
        if any(option == other for option, other in itertools.combinations(options, 2)):
            raise recipe.source.error(f"sweep.{path}", f"sweep.{path!r}: a value comes twice in {options}")
    variants = list[Recipe]()
    for number, case in enumerate(cases):
        for chosen in itertools.product(*sweep.values()):
            assigned = {f"sweep.case.{number}.{path}": (path, value) for path, value in case.items()}
            assigned |= {f"sweep.{path}": (path, value) for path, value in zip(sweep, chosen, strict=True)}
            variant = _with(recipe, assigned)
            if any(variant.values == earlier.values for earlier in variants):
                same = ", ".join(f"{path} = {value!r}" for path, value in assigned.values())
                raise recipe.source.error(f"sweep.case.{number}", f"sweep: the combination {same} comes twice")
            variants.append(variant)
    return variants


def _with(recipe: Recipe, assigned: Mapping[str, tuple[str, Any]]) -> Recipe:
    """The recipe without its sweep; ``assigned`` is where a value is written -> its key and the value."""
    values = {key: _copy(value) for key, value in recipe.values.items() if key != "sweep"}
    lines = dict(recipe.source.lines)
    source, free = Source(file=recipe.source.file, lines=lines), swept()
    for written, (path, value) in assigned.items():
        if not any(is_within(path, each) for each in free):
            hint = nearest(path.split(".")[0], free)
            raise recipe.source.error(written, f"sweep: {path!r} is not a key that rows may differ in{hint}")
        if why := _drops(values, path, value):
            raise recipe.source.error(written, f"sweep: {why}")
        if (line := recipe.source.line(written)) is not None:
            lines[path] = line
        assign(values, path, _copy(value), source)
    _refuse_lost(recipe, assigned)
    check_top(values, source)
    return Recipe(values=values, source=source, bound=recipe.bound)


def _drops(values: Mapping[str, Any], path: str, value: Any) -> str:
    """Why a whole table of the recipe must not be replaced: keys of it would be lost; the empty word where none would."""
    table = values.get(path)
    if not isinstance(table, dict) or not isinstance(value, dict):
        return ""
    given = leaves(path, value)
    lost = ", ".join(leaf for leaf in leaves(path, table) if leaf not in given)
    single = next(iter(given), f"{path}.key")
    return lost and f'{path!r} is set as a whole, without {lost} of the recipe; write single keys, quoted: "{single}" = ...'


def _refuse_lost(recipe: Recipe, assigned: Mapping[str, tuple[str, Any]]) -> None:
    """A value that a case or list sets, and a later one sets again, would be lost without a word."""
    for (written, (path, value)), (_, (later, other)) in itertools.combinations(assigned.items(), 2):
        if key := next((leaf for leaf in leaves(path, value) if is_within(leaf, later) or leaf in leaves(later, other)), None):
            again = f", the second time by {later!r}" if later != key else ""
            raise recipe.source.error(written, f"sweep: {key!r} is set twice in one combination{again}; leave one of them out")


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return list(value) if isinstance(value, list) else value
