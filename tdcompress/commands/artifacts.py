"""``tdcompress artifacts``: what is there, and how it travels between machines."""

import argparse
import math
import re
import shlex
import sys
from pathlib import Path

from tdcompress.commands.shared import Verbs, add_artifacts, add_set, add_verb, output_name, positive, read_recipes
from tdcompress.errors import TdcompressError, UserError
from tdcompress.lineage.versions import VERSIONS
from tdcompress.runs.parts import TRAINING, require_parts

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def add_parser(verbs: Verbs) -> None:
    """Add ``artifacts`` and the verbs below it."""
    text = "what is in the artifacts folder; pack it for another machine, and take it in there"
    below = verbs.add_parser("artifacts", help=text, description=text).add_subparsers(required=True, metavar="VERB")

    sub = add_verb(below, "list", show, "artefacts and unfinished trainings, with their keys")
    add_artifacts(sub)

    text = "pack artefacts, and unfinished trainings with their newest checkpoint, into numbered files for another machine"
    sub = add_verb(below, "export", export, text)
    sub.add_argument(
        "keys", nargs="*", default=[], metavar="KEY", help="a key, or its beginning; see `tdcompress artifacts list`"
    )
    text = "the stages of a recipe, a folder of recipes or a shipped one"
    sub.add_argument("--recipe", type=Path, action="append", default=[], metavar="RECIPE", help=text)
    add_set(sub, "with --recipe: as it was run")
    text = "of these the ones of one stage, such as train; alone: all of it"
    sub.add_argument("--stage", metavar="STAGE", choices=tuple(VERSIONS), help=text)
    sub.add_argument(
        "--to", type=output_name, default=Path("artifacts"), metavar="NAME", help="writes NAME.000.tdca, NAME.001.tdca, ..."
    )
    sub.add_argument(
        "--part-size", type=parse_size, default=parse_size("16MB"), metavar="16MB", help="the most that one file may have"
    )
    text = "the most files; what comes last does not fit then, unfinished trainings first of all, and is named"
    sub.add_argument("--max-parts", type=positive(int), default=1000, metavar="N", help=text)
    add_artifacts(sub)

    text = "take in what export wrote: all is checked before anything is published"
    sub = add_verb(below, "import", take_in, text)
    sub.add_argument("files", type=Path, nargs="+", metavar="FILE", help="all parts of an export, in any order")
    add_artifacts(sub)


def parse_size(text: str) -> int:
    """Bytes of "16MB" (10^6) or "16MiB" (2^20), in small or large letters.

    Raises:
        argparse.ArgumentTypeError: not a size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", text)
    unit = None if found is None else _UNITS.get(found[2].lower())
    if found is None or unit is None or not math.isfinite(float(found[1]) * unit):
        raise argparse.ArgumentTypeError(f"{text!r} is no size, such as 16MB or 16MiB")
    return int(float(found[1]) * unit)


def show(args: argparse.Namespace) -> None:
    """``tdcompress artifacts list``."""
    from tdcompress.console import make_console
    from tdcompress.report.terminal import render
    from tdcompress.transfer.listing import artifacts_table

    make_console().print(render(artifacts_table(args.artifacts)))


def export(args: argparse.Namespace) -> None:
    """``tdcompress artifacts export``.

    Raises:
        TdcompressError: not all of it fitted; what did is written.
        UserError: nothing is named to export.
    """
    from tdcompress.transfer.export import export_items
    from tdcompress.transfer.items import ItemPlace, named, places
    from tdcompress.transfer.parts import SUFFIX

    if not (args.keys or args.recipe or args.stage):
        raise UserError("name what to export: keys, --recipe RECIPE or --stage STAGE")
    there = places(args.artifacts)
    wanted: list[ItemPlace] = [place for key in args.keys for place in named(there, key)]
    if args.recipe:
        needed = _tasks_of(args)
        wanted += [place for place in there if (place.stage, place.key) in needed]
    if not (args.keys or args.recipe):
        wanted = there
    wanted = [place for place in dict.fromkeys(wanted) if args.stage in (None, place.stage)]
    done = export_items(args.artifacts, wanted, args.to, args.part_size, args.max_parts)
    for path in done.files:
        print(f"wrote {path}: {path.stat().st_size:,} bytes")
    for why in done.of_no_use:
        print(f"left out: {why}", file=sys.stderr)
    count, unfinished = len(done.items), sum(not item.finished for item in done.items)
    files = f"{shlex.quote(str(args.to))}.*{SUFFIX}" if len(done.files) > 1 else shlex.quote(str(done.files[0]))
    said = f"{count} artefact{'s' * (count != 1)}, {unfinished} of them unfinished"
    print(f"{said}; take them in with: tdcompress artifacts import {files}")
    if done.left_out:
        raise TdcompressError(
            f"no room was left for {', '.join(item.title for item in done.left_out)}: export these by key, under another name"
        )


def _tasks_of(args: argparse.Namespace) -> set[tuple[str, str]]:
    """Stage and key of all that recipes need."""
    from tdcompress.stores.folder import FolderStore

    require_parts(*TRAINING)
    from tdcompress.runs.plan import plan_run

    store = FolderStore(args.artifacts)
    plans = (plan_run(recipe, store) for recipe in read_recipes(args.recipe, args.set))
    return {(task.stage.name, task.key) for plan in plans for task in plan.tasks()}


def take_in(args: argparse.Namespace) -> None:
    """``tdcompress artifacts import``."""
    from tdcompress.transfer.intake import import_files

    for done in import_files(args.artifacts, args.files):
        print(f"{done.outcome:<14}{done.item.title}")
        if done.why:
            print(done.why, file=sys.stderr)
    print(f"in {args.artifacts}; run the recipe again to go on from there", file=sys.stderr)
