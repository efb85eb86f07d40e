"""``tdcompress data``: data sets packed without loss for a slow connection."""

import argparse
import sys
from pathlib import Path

from tdcompress.commands.shared import Verbs, add_verb, output_folder


def add_parser(verbs: Verbs) -> None:
    """Add ``data`` and the verbs below it."""
    text = "pack a data set without loss for a slow connection, and unpack it there"
    below = verbs.add_parser("data", help=text, description=text).add_subparsers(required=True, metavar="VERB")

    text = "pack the published files of a data set, without loss, into pieces of up to 10,000 images"
    sub = add_verb(below, "pack", pack, text)
    sub.add_argument("name", choices=["cifar10", "cifar100"])
    sub.add_argument("--root", type=Path, default=Path("data"), metavar="DATA", help="the data root, as in a recipe")
    sub.add_argument("--out", type=output_folder, required=True, metavar="FOLDER", help="where the pieces go")

    text = "write the files of which the folder holds all pieces, byte for byte as they were published"
    sub = add_verb(below, "unpack", unpack, text)
    sub.add_argument("folder", type=Path, metavar="FOLDER")
    sub.add_argument("--root", type=output_folder, default=Path("data"), metavar="DATA", help="the data root, as in a recipe")


def pack(args: argparse.Namespace) -> None:
    """``tdcompress data pack``."""
    from tdcompress.data.packed import pack_data

    for path in pack_data(args.name, args.root, args.out, _say):
        print(f"wrote {path}: {path.stat().st_size:,} bytes")


def unpack(args: argparse.Namespace) -> None:
    """``tdcompress data unpack``."""
    from tdcompress.data.packed import unpack_data

    done = unpack_data(args.folder, args.root, _say)
    for path in done.written:
        print(f"wrote {path}")
    for path in done.there:
        print(f"there {path}")
    for path in done.missing:
        print(f"missing {path}: not all of its pieces are in {args.folder}; unpack these too")


def _say(line: str) -> None:
    print(line, file=sys.stderr)
