"""``tdcompress compile``, ``library`` and ``emit-c``: a model for programs without Python, and the library that runs it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tdcompress.commands.shared import Verbs, add_external_data, add_verb, output_file, output_folder, shape

if TYPE_CHECKING:
    from tdcompress.engine.planfile import Port


def add_parser(verbs: Verbs) -> None:
    """Add ``compile``, ``library`` and ``emit-c``."""
    sub = add_verb(
        verbs,
        "compile",
        _compile,
        "write an ONNX file as a plan for the C library of the engine, alone or as a plugin of onnxruntime",
    )
    sub.add_argument("source", type=Path, metavar="IN.onnx")
    text = "for programs that link the library; OUT.onnx for onnxruntime with the library as its plugin"
    sub.add_argument("target", type=output_file, metavar="OUT.tdc", help=text)
    isas = ["avx512", "avx2", "neon", "scalar", "simd128"]
    sub.add_argument("--isa", choices=isas, help="of the machine that will run it; the best of this one")
    _add_shape(sub)
    add_external_data(sub)

    sub = add_verb(
        verbs, "library", _library, "copy the engine's C library, which is also a plugin of onnxruntime, and its header"
    )
    sub.add_argument("folder", type=output_folder, metavar="DIR")

    sub = add_verb(verbs, "emit-c", _emit_c, "write an ONNX file as C source, for processors without an operating system")
    sub.add_argument("source", type=Path, metavar="IN.onnx")
    sub.add_argument("target", type=output_file, metavar="OUT.c", help="OUT.h is written beside it")
    _add_shape(sub)
    add_external_data(sub)


def _add_shape(parser: argparse.ArgumentParser) -> None:
    text = "of each input in turn, batch first (1), if the file leaves more than the batch open"
    parser.add_argument("--shape", type=shape, action="append", default=[], metavar="1x3x224x224", help=text)


def _compile(args: argparse.Namespace) -> None:
    """``tdcompress compile``."""
    from tdcompress.engine.compile import compile_model

    done = compile_model(args.source, args.target, isa=args.isa, shapes=args.shape or None, external_data=args.external_data)
    batch = "any batch size" if done.batch is None else f"batches of {done.batch}"
    print(
        f"wrote {args.target}: {done.file_bytes:,} bytes for {done.isa}, {batch}; {done.arena_bytes:,} bytes of memory a handle"
    )
    _print_ports(done.inputs, done.outputs)


def _library(args: argparse.Namespace) -> None:
    """``tdcompress library``."""
    from tdcompress.engine.compile import copy_library

    header, file = copy_library(args.folder)
    print(f"wrote {header} and {file}")


def _emit_c(args: argparse.Namespace) -> None:
    """``tdcompress emit-c``."""
    from tdcompress.engine.emit import emit_c

    done = emit_c(args.source, args.target, shapes=args.shape or None, external_data=args.external_data)
    print(
        f"wrote {done.source} and {done.header}: {done.function} for one image; {done.table_bytes:,} bytes of tables and "
        f"{done.arena_bytes:,} of working memory, besides code and stack"
    )
    _print_ports(done.inputs, done.outputs)


def _print_ports(inputs: "Sequence[Port]", outputs: "Sequence[Port]") -> None:
    for kind, arrays in (("input", inputs), ("output", outputs)):
        for array in arrays:
            print(f"{kind} {array.name}: {array.dtype} {'x'.join(map(str, array.shape)) or 'scalar'} an image")
