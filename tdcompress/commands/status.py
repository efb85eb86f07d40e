"""``tdcompress status``: what runs there are, and how far they are."""

import argparse

from tdcompress.commands.shared import Verbs, add_artifacts, add_verb


def add_parser(verbs: Verbs) -> None:
    """Add ``status``."""
    sub = add_verb(verbs, "status", run, "what runs there are, and how far they are")
    sub.add_argument("run", nargs="?", help="one run")
    add_artifacts(sub)


def run(args: argparse.Namespace) -> None:
    """``tdcompress status``: runs with their state, unfinished ones with what goes on with them, and stages."""
    from tdcompress.console import make_console
    from tdcompress.report.terminal import render
    from tdcompress.runs.status import status_tables

    console = make_console()
    for table in status_tables(args.artifacts, args.run):
        console.print(render(table))
