"""The combinations of a recipe: its [sweep] lists and [[sweep.case]] tables, crossed. Knows no stage, no network and no torch."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from tdcompress.recipes.positions import Source
from tdcompress.recipes.source import Recipe, assign, check_top, nearest
from tdcompress.steps import step_tables


def swept() -> tuple[str, ...]:
    """What rows may differ in. They share one network, one data set and one benchmark, which all of them are compared by."""
    before = ("seed", "data.crop_padding", "data.flip", "data.cutout", "model.init", "sparsity", "train", "distill")
    return (*before, *step_tables(), "export.values", "export.pack", "export.prefer")


def expand_sweep(recipe: Recipe) -> list[Recipe]:
    """Every combination of the recipe's [sweep] lists and [[sweep.case]] tables, in the order written; cases vary slowest.

    Raises:
        RecipeError: a sweep over something that is not a key of a section, an empty list, or two equal combinations.
    """
    sweep = recipe.section("sweep")
    cases = sweep.pop("case", [{}])
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases) or not cases:
        raise recipe.source.error("sweep.case", "sweep.case: write each case as a [[sweep.case]] table")
    for path, options in sweep.items():
        if not isinstance(options, list) or not options:
            raise recipe.source.error(
                f"sweep.{path}", f"sweep.{path!r}: a list with at least one value is needed, such as [0.5, 0.9]"
            )
        if any(option == other for option, other in itertools.combinations(options, 2)):
            raise recipe.source.error(f"sweep.{path}", f"sweep.{path!r}: a value comes twice in {options}")
    variants, free = list[Recipe](), swept()
    for number, case in enumerate(cases):
        for chosen in itertools.product(*sweep.values()):
            assigned = {f"sweep.case.{number}.{path}": (path, value) for path, value in case.items()}
            assigned |= {f"sweep.{path}": (path, value) for path, value in zip(sweep, chosen, strict=True)}
            variant = _with(recipe, assigned, free)
            if any(variant.values == earlier.values for earlier in variants):
                same = ", ".join(f"{path} = {value!r}" for path, value in assigned.values())
                raise recipe.source.error(f"sweep.case.{number}", f"sweep: the combination {same} comes twice")
            variants.append(variant)
    return variants


def _with(recipe: Recipe, assigned: Mapping[str, tuple[str, Any]], free: Sequence[str]) -> Recipe:
    """The recipe without its sweep; ``assigned`` is where a value is written -> its key, one of ``free``, and the value."""
    values = {key: _copy(value) for key, value in recipe.values.items() if key != "sweep"}
    lines = dict(recipe.source.lines)
    source = Source(file=recipe.source.file, lines=lines)
    for written, (path, value) in assigned.items():
        if not any(path == each or path.startswith(f"{each}.") for each in free):
            hint = nearest(path.split(".")[0], free)
            raise recipe.source.error(written, f"sweep: {path!r} is not a key that rows may differ in{hint}")
        assign(values, path, value, source)
        lines[path] = lines.get(written, lines.get("sweep", 0))
    check_top(values, source)
    return Recipe(values=values, source=source, bound=recipe.bound)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return list(value) if isinstance(value, list) else value
