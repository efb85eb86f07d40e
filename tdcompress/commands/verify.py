"""``tdcompress verify``: an ONNX file or a run's folder, checked."""

import argparse
import sys
from pathlib import Path

from tdcompress.commands.shared import Verbs, add_external_data, add_store, add_verb, print_json
from tdcompress.errors import ModelError


def add_parser(verbs: Verbs) -> None:
    """Add ``verify``."""
    text = "check an ONNX file or a run's folder: damage, validity, and its outputs on real samples"
    sub = add_verb(verbs, "verify", run, text)
    sub.add_argument("path", type=Path)
    sub.add_argument("--json", action="store_true")
    add_external_data(sub)
    add_store(sub)


def run(args: argparse.Namespace) -> None:
    """``tdcompress verify``.

    Raises:
        ModelError: no such file or run.
    """
    from tdcompress.runs.verification import verify_path
    from tdcompress.stores.place import open_store

    path = args.path
    if not path.exists():
        store = open_store(args.artifacts)
        if path.name == str(path):  # a run's name
            store.bring_run(path.name)
        path = store.root / path
    if not path.exists():
        raise ModelError(f"{args.path}: no such file or run")
    found = verify_path(path, say=lambda line: print(line, file=sys.stderr), external_data=args.external_data)
    if args.json:
        print_json({name: entry.to_json() for name, entry in found.items()})
        return
    for name, entry in found.items():
        compared = (
            f"{entry.samples} samples, largest difference {entry.max_error:.2g}"
            if entry.samples
            else "no outputs recorded to compare"
        )
        print(f"ok  {name}: valid, loads, {compared}")
        for note in entry.notes:
            print(f"    {note}")
