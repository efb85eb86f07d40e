"""What verbs have in common: how they are added, options that several take, the packages they need, JSON."""

import argparse
import itertools
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tdcompress.errors import ModelError, RecipeError, UserError
from tdcompress.files import in_the_way
from tdcompress.runs.parts import TRAINING, require_parts
from tdcompress.stores.place import is_url

if TYPE_CHECKING:
    from rich.console import Console

    from tdcompress.recipes.source import Recipe
    from tdcompress.records.report import Report
    from tdcompress.report.tables import Table

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a verb adds its parser."""


class VerbParser(argparse.ArgumentParser):
    """Takes words behind options too, for a last argument of any number: ``translate RUN --row dense "A dog runs."``.

    argparse gives that argument what stands before the first option behind the other arguments, and refuses the rest.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, with that argument whole."""
        known, rest = super().parse_known_args(args, namespace)
        last = self._get_positional_actions()[-1:]
        if last and rest and last[0].nargs in ("*", "+") and not any(word.startswith("-") for word in rest):
            setattr(known, last[0].dest, [*getattr(known, last[0].dest), *self._get_values(last[0], rest)])
            rest = []
        return known, rest


def add_verb(verbs: Verbs, name: str, function: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
    """Add a verb.

    Args:
        verbs: where to.
        name: what is typed.
        function: does it; what goes wrong it raises as a ``TdcompressError``, which knows its exit code.
        text: what it is for.

    Returns:
        Its parser, still without arguments.
    """
    parser = verbs.add_parser(name, help=text, description=text)
    parser.set_defaults(verb=function)
    return parser


def add_artifacts(parser: argparse.ArgumentParser) -> None:
    """Add ``--artifacts``."""
    parser.add_argument("--artifacts", type=_folder, default=Path("artifacts"), metavar="DIR", help="where runs are kept")


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add ``--artifacts`` where it may also be object storage; it is a path, or the URL as a string."""
    text = "where runs are kept: a folder, or s3://bucket/prefix"
    parser.add_argument("--artifacts", type=_place, default=Path("artifacts"), metavar="DIR", help=text)


def _place(text: str) -> Path | str:
    return text if is_url(text) else _folder(text)


def _folder(text: str) -> Path:
    if is_url(text):
        raise argparse.ArgumentTypeError(
            f"{text}: this verb needs a folder; run, status, report, verify and translate take object storage"
        )
    return output_folder(text)


def output_file(text: str) -> Path:
    """A file that a verb is told to write; folders on the way to it are made, if they can be: told before any work.

    Raises:
        argparse.ArgumentTypeError: the path is a folder, a device, a pipe or a socket, or leads through a file, or into a folder
            where nothing can be written.
    """
    if taken := in_the_way(Path(text)):
        raise argparse.ArgumentTypeError(f"{text}: {taken}")
    return output_name(text)


def output_name(text: str) -> Path:
    """What a verb is told to begin the names of its files with; otherwise as ``output_file``."""
    path = Path(text)
    folder = output_folder(str(path.parent))
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: cannot be written, since nothing can be in the folder {there}")
    return path


def output_folder(text: str) -> Path:
    """A folder that a verb is told to write into; it is made, and those on the way to it.

    Raises:
        argparse.ArgumentTypeError: the path leads through a file.
    """
    path = Path(text)
    for place in (path, *path.parents):
        if place.is_file():
            raise argparse.ArgumentTypeError(f"{place}: a file, not a folder")
    return path


def find_run(given: Path, artifacts: Path | str) -> Path:
    """A file, a folder, or a run by its name, which object storage is asked for.

    Args:
        given: what was typed.
        artifacts: where runs are kept, of ``add_store``.

    Raises:
        ModelError: no such file or run.
    """
    from tdcompress.stores.place import open_store

    if given.exists():
        return given
    store = open_store(artifacts)
    if given.name == str(given):  # a run's name
        store.bring_run(given.name)
    path = store.root / given
    if not path.exists():
        raise ModelError(f"{given}: no such file or run" + (f" in {artifacts}" if is_url(artifacts) else ""))
    return path


def shape(text: str) -> tuple[int, ...]:
    """The sizes of "1x3x224x224".

    Raises:
        argparse.ArgumentTypeError: not a shape.
    """
    parts = text.split("x")
    if not all(part.isdecimal() and len(part) < 19 and int(part) > 0 for part in parts):  # below 2^63
        raise argparse.ArgumentTypeError(f"{text!r} is no shape, such as 1x3x224x224")
    return tuple(map(int, parts))


def add_external_data(parser: argparse.ArgumentParser) -> None:
    """Add ``--external-data``."""
    parser.add_argument("--external-data", action="store_true", help="accept weights in files beside the ONNX file")


def add_set(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--set``."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)


def read_recipes(given: Sequence[Path], changes: Sequence[str]) -> "list[Recipe]":
    """The recipes that are named, with ``--set`` applied.

    Args:
        given: files, folders, or names of shipped ones.
        changes: as ``--set`` has them.

    Raises:
        RecipeError: a recipe that cannot be read; a key at the top gets the place where it belongs.
    """
    from tdcompress.recipes.shipped import find_recipes

    paths = [path for each in given for path in find_recipes(each)]
    refuse_idle_changes(paths, changes)
    return [read_recipe(path, changes, shared=len(paths) > 1) for path in paths]


def read_recipe(path: Path, changes: Sequence[str], *, shared: bool) -> "Recipe":
    """One recipe file; see ``read_recipes``.

    Args:
        path: the file.
        changes: as ``--set`` has them.
        shared: whether they are for other recipes too.

    Raises:
        RecipeError: two changes of one key; or as ``read_recipes``.
    """
    from tdcompress.recipes.source import is_within, leaves, parse_override

    require_parts(*TRAINING)  # which own the keys
    from tdcompress.recipes.overrides import load_changed

    parsed = [parse_override(text) for text in changes]
    for (key, value), (later, _) in itertools.combinations(parsed, 2):
        if lost := next((leaf for leaf in (key, *leaves(key, value)) if is_within(leaf, later)), None):
            raise RecipeError(f"--set {later}: takes the place of {lost}, which --set gives too; leave one of them out")
    return replace(load_changed(path, dict(parsed)), shared=shared)


def refuse_idle_changes(paths: Sequence[Path], changes: Sequence[str]) -> None:
    """Refuse a ``--set`` that does nothing in any of several recipes; in some of them it may, and one alone says so itself.

    Raises:
        RecipeError: names its key.
    """
    from tdcompress.recipes.combinations import idle_changes

    if len(paths) < 2 or not changes:
        return
    try:
        idle = set.intersection(*(idle_changes(read_recipe(path, changes, shared=True)) for path in paths))
    except UserError:  # a recipe that is wrong says so in its turn
        return
    for key in sorted(idle):
        raise RecipeError(f"--set {key}: it does nothing in any of these {len(paths)} recipes; leave it out")


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """A parser of numbers above 0."""

    def number(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return number


def print_error(message: str) -> None:
    """Say on stderr what is wrong, in one line; a terminal gets it folded between words, so that all of it can be read."""
    line = f"tdcompress: {message}"
    if sys.stderr.isatty():
        width = max(40, shutil.get_terminal_size().columns)
        line = textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    print(line, file=sys.stderr)


def print_report(console: "Console", report: "Report", tables: "Iterable[Table]") -> None:
    """What makes a report's numbers worthless, its tables, what explains them, whether answers are torch's, the notes.

    Args:
        console: where they go.
        report: of a run.
        tables: besides the summary.
    """
    from tdcompress.report.measures import agreement
    from tdcompress.report.one_network import explanations
    from tdcompress.report.tables import summary
    from tdcompress.report.terminal import render
    from tdcompress.report.unpruned import explanation

    if report.warning:
        console.print(report.warning, style="bold red", highlight=False)
    for table in (summary(report), *tables):
        console.print(render(table))
    for said in filter(None, (*explanations(report), explanation(report), agreement(report))):
        console.print(said, highlight=False)
    for note in report.notes:
        console.print(note, style="bold", highlight=False)


def print_json(value: Any) -> None:
    """What ``--json`` prints."""
    print(json.dumps(value, indent=1))
