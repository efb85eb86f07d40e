"""``tdcompress verify``: an ONNX file or a run's folder, checked."""

import argparse
import sys
from pathlib import Path

from tdcompress.commands.shared import Verbs, add_external_data, add_store, add_verb, find_run, print_json


def add_parser(verbs: Verbs) -> None:
    """Add ``verify``."""
    text = "check an ONNX file or a run's folder: damage, validity, and its outputs on real samples"
    sub = add_verb(verbs, "verify", run, text)
    sub.add_argument("path", type=Path)
    sub.add_argument("--json", action="store_true")
    add_external_data(sub)
    add_store(sub)


def run(args: argparse.Namespace) -> None:
    """``tdcompress verify``."""
    from tdcompress.runs.verification import verify_path

    path = find_run(args.path, args.artifacts)
    found = verify_path(path, say=lambda line: print(line, file=sys.stderr), external_data=args.external_data)
    if args.json:
        print_json({name: entry.to_json() for name, entry in found.items()})
        return
    for name, entry in found.items():
        print(f"ok  {name}: {entry.summary}")
        for note in entry.notes:
            print(f"    {note}")
