"""Recipes: TOML text -> tables that know their lines -> frozen dataclasses. Knows no stage, no network and no torch.

A table is bound to the settings dataclass of the component that owns it (``bind``). An unknown key, a wrong type or a value
out of range is a ``RecipeError`` that says file, line, key and, for a misspelt key, the nearest valid one.
"""

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tdcompress.codec import UnknownKeyError, decode
from tdcompress.errors import RecipeError, did_you_mean, one_line
from tdcompress.recipes.numbers import plain_numbers
from tdcompress.recipes.positions import Source, key_lines
from tdcompress.steps import step_tables

T = TypeVar("T")


class UnknownTableError(RecipeError):
    """A key at the top of a recipe that is none of a recipe's.

    Args:
        message: as of any ``RecipeError``.
        key: the key.
    """

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


TomlTable = dict[str, Any]

OPTIONAL = ("distill", "analyse")  # tables that do nothing where a recipe lacks them
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
RESERVED_NAMES = ("stages", "reference")
CASE_NAME = "name"
"""The key of a [[sweep.case]] table that sets nothing: what its rows are called."""


def required_tables() -> tuple[str, ...]:
    """Tables that every recipe has, if only by their defaults."""
    return ("data", "model", "sparsity", "train", *step_tables(), "export", "bench")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe as written, with ``--set`` applied.

    Attributes:
        values: nested.
        source: where each came from.
        text: of the file, without ``--set``.
        shared: whether ``--set`` is for other recipes too, so that a key of it may do nothing in this one.
        chosen: of one combination, what its sweep sets: dotted key -> value.
        case: of one combination, the name of its case; empty where that has none.
        bound: tables that were read already; the combinations of a sweep share most of theirs.
    """

    values: TomlTable
    source: Source
    text: str = field(default="", compare=False, repr=False)
    shared: bool = False
    chosen: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    case: str = ""
    bound: dict[tuple[type, str, str], Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The run's folder name."""
        return str(self.values["name"])

    @property
    def seed(self) -> int:
        """The seed of every random generator of the run."""
        return int(self.values.get("seed", 0))

    def section(self, name: str) -> TomlTable:
        """The values of one table; empty where the recipe has none.

        Raises:
            RecipeError: it is no table.
        """
        table = self.values.get(name, {})
        if not isinstance(table, dict):
            raise self.source.error(name, f"{name} has to be a table: [{name}]")
        return dict(table)

    def with_keys(self, chosen: Mapping[str, Any], lines: Mapping[str, int], case: str = "") -> "Recipe":
        """One combination: the recipe without its sweep, and with what is chosen of it.

        Args:
            chosen: dotted key -> value.
            lines: dotted key -> where it is written, as far as that is known.
            case: what the combination is called.

        Raises:
            RecipeError: not a dotted key, a value where a table is needed, or a seed that no run can have.
        """
        values = {key: _copy(value) for key, value in self.values.items() if key != "sweep"}
        source = Source(file=self.source.file, lines={**self.source.lines, **lines})
        for key, value in chosen.items():
            _assign(values, key, _copy(value), source)
        _check_top(values, source)
        return Recipe(values=values, source=source, chosen=chosen, case=case, bound=self.bound)

    def bind(self, kind: type[T], section: str, values: TomlTable | None = None, hint: Callable[[str], str] | None = None) -> T:
        """Read one table into the dataclass that owns its keys.

        Args:
            kind: a settings dataclass.
            section: the table's name.
            values: the table's values where they are not all of it.
            hint: unknown key -> what else is known of it, or nothing; None = nothing.

        Raises:
            RecipeError: an unknown, missing or wrong key, with its line.
        """
        given = self.section(section) if values is None else values
        written = (kind, section, json.dumps(given, sort_keys=True, default=repr))
        if written in self.bound:
            earlier: T = self.bound[written]
            return earlier
        try:
            self.bound[written] = bound = decode(kind, given, section)
            return bound
        except UnknownKeyError as error:
            known = (hint and hint(error.path.removeprefix(f"{section}."))) or nearest(error.path, error.known)
            raise self.source.error(error.path, f"{error.path}: unknown key{known}") from None
        except ValueError as error:
            problem = str(error)
            raise self.source.error(problem.split(":")[0].split("[")[0], problem) from None

    def choose(self, registry: Mapping[str, type[T]], section: str, key: str) -> tuple[type[T], TomlTable]:
        """The registered dataclass that a table names, and the table's further keys.

        Args:
            registry: name -> dataclass.
            section: the table.
            key: that holds the name.

        Raises:
            RecipeError: no name, or one that is not registered.
        """
        values = self.section(section)
        path = f"{section}.{key}"
        if key not in values:
            raise self.source.error(section, f"{path} is missing: one of {', '.join(registry)}")
        name = values.pop(key)
        if not isinstance(name, str) or name not in registry:
            raise self.source.error(path, f"{path}: unknown name {name!r}{nearest(str(name), tuple(registry))}")
        return registry[name], values


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return list(value) if isinstance(value, list) else value


def nearest(path: str, known: Sequence[str]) -> str:
    """A hint: the known word nearest to the last part of a path, and all known words where they are few."""
    word = path.rsplit(".", 1)[-1]
    hint = did_you_mean(word, known)
    return f"{hint} (valid: {', '.join(known)})" if len(known) <= 24 else hint


def load_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe file.

    Args:
        path: a TOML file.
        overrides: dotted key -> value, as ``--set`` gives them.

    Raises:
        RecipeError: not readable, or not TOML.
        UnknownTableError: a key at the top that is not one of a recipe's.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(f"{path}: cannot be read as a recipe ({reason}); `tdcompress recipes` lists the shipped ones") from None
    return parse_recipe(text, str(path), overrides)


def parse_recipe(text: str, file: str = "recipe", overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe's text; see ``load_recipe``.

    Args:
        text: TOML.
        file: what messages call it.
        overrides: dotted key -> value, as `--set` gives them.

    Raises:
        RecipeError: not TOML, or values that no recipe has.
        UnknownTableError: a key at the top that no recipe has.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers with thousands of digits, and of deep nesting
        raise RecipeError(f"{file}: not valid TOML: {one_line(error)}") from None
    lines = key_lines(text)
    source = Source(file=file, lines=lines)
    for path, value in (overrides or {}).items():
        lines[path] = 0
        lines.setdefault(path.split(".")[0], 0)
        _assign(values, path, value, source)
    for path, value in (overrides or {}).items():  # now that a sweep that is given too is there
        _refuse_swept(values, path, value)
    for key in values:
        if key not in (known := ("name", "seed", *required_tables(), "sweep", *OPTIONAL)):
            raise UnknownTableError(str(source.error(key, f"{key}: unknown key{nearest(key, known)}")), key)
    _check_top(values, source)
    return Recipe(values=plain_numbers(values, source), source=source, text=text)


def _check_top(values: TomlTable, source: Source) -> None:
    name = values.get("name")
    if not isinstance(name, str) or not _RUN_NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise source.error(
            "name",
            f"name: {name!r} cannot name the run's folder; use letters, digits, - and _, and not {' or '.join(RESERVED_NAMES)}",
        )
    seed = values.get("seed", 0)
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise source.error("seed", f"seed: {seed!r} is not a whole number of 0 or above, and below 2 to the 63rd")


def parse_override(text: str) -> tuple[str, Any]:
    """Read ``key=value`` of ``--set``; the value is TOML (0.5, true, [1, 2], "text"), and else a bare string.

    Raises:
        RecipeError: no ``=``, or an empty key.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {text}: write it as key=value, for example --set train.epochs=1")
    try:
        read = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):  # a word without quotes; a number with thousands of digits; deep nesting
        return key.strip(), value.strip()
    return key.strip(), read["value"] if len(read) == 1 else value


def _refuse_swept(values: TomlTable, path: str, value: Any) -> None:
    """A value given for a key that the sweep sets would be lost without a word."""
    sweep = values.get("sweep")
    if not isinstance(sweep, dict):
        return
    given = {path, *leaves(path, value)}
    if key := next((key for key in sweep if key != "case" and any(is_within(leaf, key) for leaf in given)), None):
        raise RecipeError(f"--set {path}: the recipe sweeps over {_it(path, key)}; set its list: --set 'sweep.{key}=[...]'")
    cases = sweep.get("case")
    in_cases = [key for case in cases if isinstance(case, dict) for key in case] if isinstance(cases, list) else []
    if key := next((key for key in in_cases if key != CASE_NAME and any(is_within(leaf, key) for leaf in given)), None):
        raise RecipeError(
            f"--set {path}: the recipe sweeps over {_it(path, key)}, in [[sweep.case]]; change it in a copy of the recipe"
        )


def _it(path: str, key: str) -> str:
    return "it" if path == key else key


def leaves(path: str, value: Any) -> dict[str, Any]:
    """What a value sets, by dotted key: all that is in its tables, or itself where it is none; an empty table sets nothing."""
    if not isinstance(value, dict):
        return {path: value}
    return {leaf: own for key, item in value.items() for leaf, own in leaves(f"{path}.{key}", item).items()}


def is_within(path: str, key: str) -> bool:
    """Whether a dotted key is another one, or below it."""
    return path == key or path.startswith(f"{key}.")


def _assign(values: TomlTable, path: str, value: Any, source: Source) -> None:
    *parents, last = path.split(".")
    if not all([*parents, last]):
        raise source.error(path, f"{path}: not a dotted key")
    if parents and parents[0] == "sweep":  # its keys are dotted themselves
        parents, last = ["sweep"], path.removeprefix("sweep.")
    table = values
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise source.error(path, f"{path}: {parent} is a value, not a table")
    # TOML makes tables of unquoted keys in a case, people in Python of nested dicts; a sweep is replaced as a whole
    if not parents and isinstance(value, dict) and path != "sweep":
        given = leaves(path, value)
        if lost := ", ".join(leaf for leaf in leaves(path, table.get(path, {})) if leaf not in given and leaf != path):
            single = f'"{next(iter(given), f"{path}.key")}"'
            raise source.error(
                path, f"{path}: the whole table is set, without {lost}, which the recipe has; give single keys: {single}"
            )
    table[last] = value
