"""``tdcompress report``: a finished run's report again, with what other machines measured."""

import argparse
import sys
from pathlib import Path

from tdcompress.commands.shared import Verbs, add_store, add_verb, print_report


def add_parser(verbs: Verbs) -> None:
    """Add ``report``."""
    text = "show a run's report again; compare it with published tables; add other machines' latencies"
    sub = add_verb(verbs, "report", run, text)
    sub.add_argument("run")
    sub.add_argument("--compare", metavar="TABLE", help="a published table, such as workshop-3a")
    sub.add_argument("--bench", type=Path, action="append", default=[], metavar="FILE.json", help="from `bench --json`")
    sub.add_argument("--json", action="store_true", help="print report.json")
    add_store(sub)


def run(args: argparse.Namespace) -> None:
    """``tdcompress report``: a finished run's report, with what other machines measured."""
    from tdcompress.console import make_console
    from tdcompress.report import layers, shrinking
    from tdcompress.report.terminal import render_document
    from tdcompress.runs.finished import compare_with, join_files
    from tdcompress.runs.manifest import REPORT, vouched_report
    from tdcompress.runs.unfinished import claim_run
    from tdcompress.stores.place import open_store

    console, store = make_console(), open_store(args.artifacts)
    folder = store.root / args.run
    if args.bench:
        with claim_run(store, args.run):
            store.bring_run(args.run)  # only now: another machine may have joined others just before
            found = join_files(folder, args.bench, lambda line: print(line, file=sys.stderr))
            store.keep_run(args.run)
    else:
        store.bring_run(args.run)
        found, _ = vouched_report(folder)
    compared = compare_with(folder, found, args.compare) if args.compare else None
    if args.json:
        print((folder / REPORT).read_text(encoding="utf-8"), end="")
        return
    print_report(console, found, (*shrinking.tables(found), *layers.tables(found)))
    if compared:
        console.print(render_document(compared))
