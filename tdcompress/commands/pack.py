"""``tdcompress pack`` and ``unpack``: ONNX files without their zeros, and back."""

import argparse
from pathlib import Path

from tdcompress.commands.shared import Verbs, add_external_data, add_verb, output_file


def add_parser(verbs: Verbs) -> None:
    """Add ``pack`` and ``unpack``."""
    sub = add_verb(verbs, "pack", pack, "write an ONNX file again without its zeros: plain standard operators, as fast as before")
    _add_files(sub)
    text = "float32 keeps every value; the others round matrices, all but float16 only those with packed zeros"
    sub.add_argument(
        "--values", choices=["float32", "float16", "codebook16", "int8-kept", "int4-kept"], default="float32", help=text
    )
    sub.add_argument("--prefer", choices=["speed", "size"], default="speed", help="of loading")
    add_external_data(sub)

    sub = add_verb(verbs, "unpack", unpack, "write a packed ONNX file with dense weights again")
    _add_files(sub)
    add_external_data(sub)


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="IN.onnx")
    parser.add_argument("target", type=output_file, metavar="OUT.onnx")


def pack(args: argparse.Namespace) -> None:
    """``tdcompress pack``."""
    from tdcompress.inspection import packing_lines
    from tdcompress.onnxfile.pack import pack_onnx

    done = pack_onnx(args.source, args.target, values=args.values, prefer=args.prefer, external_data=args.external_data)
    share = done.file_bytes / done.source_bytes
    print(f"wrote {args.target}: {done.file_bytes:,} bytes, x{share:.3f} of the {done.source_bytes:,} of {args.source}")
    for line in packing_lines(done):
        print(line)


def unpack(args: argparse.Namespace) -> None:
    """``tdcompress unpack``."""
    from tdcompress.onnxfile.pack import unpack_onnx

    done = unpack_onnx(args.source, args.target, external_data=args.external_data)
    restored = "1 weight is" if done.restored == 1 else f"{done.restored} weights are"
    print(f"wrote {args.target}: {done.file_bytes:,} bytes, from {done.source_bytes:,}; {restored} dense again")
