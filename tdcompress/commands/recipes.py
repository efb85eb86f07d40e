"""``tdcompress recipes``: the shipped recipes, and what a recipe can say."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from tdcompress.commands.shared import Verbs, add_verb, output_file
from tdcompress.runs.parts import TRAINING, require_parts


def add_parser(verbs: Verbs) -> None:
    """Add ``recipes``."""
    sub = add_verb(verbs, "recipes", run, "the shipped recipes, and what a recipe can say")
    chosen = sub.add_mutually_exclusive_group()
    chosen.add_argument("--copy", metavar="NAME", help="copy one into this folder")
    chosen.add_argument("--keys", action="store_true", help="every key with its values, default and meaning")
    chosen.add_argument("--write-keys", type=output_file, metavar="FILE.md", help="the same as markdown")


def run(args: argparse.Namespace) -> None:
    """``tdcompress recipes``: list the shipped recipes, copy one, or say what a recipe can say."""
    from tdcompress.recipes.shipped import copy_recipe, shipped_recipes

    if args.keys or args.write_keys:
        _say_keys(args.write_keys)
        return
    if args.copy:
        print(f"wrote {copy_recipe(args.copy, Path.cwd())}")
        return
    _list(shipped_recipes())


def _list(known: Mapping[str, str]) -> None:
    """Names and what they are, folded into the width that there is."""
    from tdcompress.console import make_console
    from tdcompress.report.tables import Table, text_columns
    from tdcompress.report.terminal import render

    make_console().print(render(Table(title="", columns=text_columns("recipe", "what"), rows=tuple(known.items()))))


def _say_keys(target: Path | None) -> None:
    from tdcompress.console import make_console
    from tdcompress.files import write_text
    from tdcompress.report import markdown, terminal

    require_parts(*TRAINING)  # which own most of the keys
    from tdcompress.recipes.keys import keys_document

    if target is None:
        make_console().print(terminal.render_document(keys_document()))
        return
    write_text(target, markdown.render_document(keys_document()))
    print(f"wrote {target}")
