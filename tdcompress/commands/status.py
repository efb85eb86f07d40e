"""``tdcompress status``: what runs there are, and how far they are."""

import argparse

from tdcompress.commands.shared import Verbs, add_store, add_verb


def add_parser(verbs: Verbs) -> None:
    """Add ``status``."""
    sub = add_verb(verbs, "status", run, "what runs there are, and how far they are")
    sub.add_argument("run", nargs="?", help="one run")
    add_store(sub)


def run(args: argparse.Namespace) -> None:
    """``tdcompress status``: runs with their state, unfinished ones with what goes on with them, and stages."""
    from tdcompress.console import make_console
    from tdcompress.report.terminal import render
    from tdcompress.runs.status import status_tables
    from tdcompress.stores.place import open_store

    console, store = make_console(), open_store(args.artifacts)
    for name in store.runs():
        store.bring_run(name)
    for table in status_tables(store.root, args.run, args.artifacts):
        console.print(render(table))
