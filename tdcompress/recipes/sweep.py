"""The combinations of a recipe: its [sweep] lists and [[sweep.case]] tables, crossed. Knows no stage, no network and no torch."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tdcompress.recipes.source import CASE_NAME, Recipe, is_within, leaves, nearest
from tdcompress.steps import step_tables


def swept() -> tuple[str, ...]:
    """What rows may differ in. They share one network, one data set and one benchmark, which all of them are compared by."""
    before = ("seed", "data.crop_padding", "data.flip", "data.cutout", "model.init", "sparsity", "train", "distill")
    return (*before, *step_tables(), "export.values", "export.pack", "export.prefer")


_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._+-]{0,30}[A-Za-z0-9.+])?")  # it begins names of files


class _Entry(NamedTuple):
    """A value of a list or of a case: where it is written ("sweep.case.0.prune.fraction"), its key ("prune.fraction"), and it."""

    written: str
    key: str
    value: Any


def expand_sweep(recipe: Recipe) -> list[Recipe]:
    """Every combination of the recipe's [sweep] lists and [[sweep.case]] tables, in the order written; cases vary slowest.

    Raises:
        RecipeError: a sweep over something that is not a key of a section, an empty list, a list with equal values, a value
            that would be lost, since another one of the same combination takes its place, or a name that no case can have.
    """
    sweep = recipe.section("sweep")
    tables = sweep.pop("case", [{}])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables) or not tables:
        raise recipe.source.error("sweep.case", "sweep.case: write each case as a [[sweep.case]] table")
    names = [_case_name(recipe, number, table) for number, table in enumerate(tables)]
    for key, options in sweep.items():
        _check_list(recipe, key, options)
    lists = [[_Entry(f"sweep.{key}", key, value) for value in options] for key, options in sweep.items()]
    cases = [
        [_Entry(f"sweep.case.{number}.{key}", key, value) for key, value in table.items() if key != CASE_NAME]
        for number, table in enumerate(tables)
    ]
    every = [*itertools.chain(*cases), *itertools.chain(*lists)]
    _check_keys(recipe, every)
    for case in cases:
        _refuse_lost(recipe, [*case, *itertools.chain(*lists)])
    lines = {written: line for written, _, _ in every if (line := recipe.source.line(written)) is not None}
    variants = []
    for (name, case), options in itertools.product(zip(names, cases, strict=True), itertools.product(*lists)):
        entries = [*case, *options]
        chosen = {key: value for _, key, value in entries}
        variants.append(recipe.with_keys(chosen, {key: lines[written] for written, key, _ in entries if written in lines}, name))
    return variants


def _case_name(recipe: Recipe, number: int, table: Mapping[str, Any]) -> str:
    """What a case calls its rows; empty where it leaves that to the settings that tell them apart."""
    name: str = table.get(CASE_NAME, "")
    if CASE_NAME in table and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise recipe.source.error(
            f"sweep.case.{number}.{CASE_NAME}",
            f"sweep.case.name: {name!r} cannot name rows; use at most 32 letters, digits, spaces and . _ + -",
        )
    return name


def _check_list(recipe: Recipe, key: str, options: Any) -> None:
    if not isinstance(options, list) or not options:
        quoted = "".join(f', and its key in quotation marks, "{leaf}"' for leaf in leaves(key, options) if leaf != key)
        raise recipe.source.error(
            f"sweep.{key}", f"sweep.{key!r}: a list with at least one value is needed, such as [0.5, 0.9]{quoted}"
        )
    if any(option == other for option, other in itertools.combinations(options, 2)):
        raise recipe.source.error(f"sweep.{key}", f"sweep.{key!r}: a value comes twice in {options}")


def _check_keys(recipe: Recipe, entries: Sequence[_Entry]) -> None:
    """Refuse keys that rows cannot differ in."""
    free = swept()
    for written, key, _ in entries:
        if not any(is_within(key, each) for each in free):
            hint = nearest(key.split(".")[0], free)
            raise recipe.source.error(written, f"sweep: {key!r} is not a key that rows may differ in{hint}")


def _refuse_lost(recipe: Recipe, entries: Sequence[_Entry]) -> None:
    """A value that a case or list sets, and a later one sets again, would be lost without a word."""
    sets = [leaves(entry.key, entry.value) for entry in entries]
    for (entry, own), (later, again) in itertools.combinations(zip(entries, sets, strict=True), 2):
        if entry.written == later.written:  # values of one list are of different combinations
            continue
        if key := next((leaf for leaf in own if is_within(leaf, later.key) or leaf in again), None):
            by = f", the second time by {later.key!r}" if later.key != key else ""
            raise recipe.source.error(entry.written, f"sweep: {key!r} is set twice in one combination{by}; leave one of them out")
