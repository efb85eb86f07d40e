"""``tdcompress inspect``: an ONNX file tensor by tensor, or each file of a run."""

import argparse
from pathlib import Path
from typing import Any

from tdcompress.commands.shared import Verbs, add_artifacts, add_external_data, add_verb, print_json, shape
from tdcompress.errors import ModelError, UserError


def add_parser(verbs: Verbs) -> None:
    """Add ``inspect``."""
    sub = add_verb(verbs, "inspect", run, "what is in an ONNX file, tensor by tensor; or what the rows of a run are")
    sub.add_argument("path", help="FILE.onnx, or a run")
    text = "engine: what it would do with each layer"
    sub.add_argument("--backend", choices=["onnxruntime", "engine"], default="onnxruntime", help=text)
    text = "engine: of each input in turn, if the file is open; the batch does not matter"
    sub.add_argument("--shape", type=shape, action="append", default=[], metavar="1x3x224x224", help=text)
    sub.add_argument("--json", action="store_true")
    add_external_data(sub)
    add_artifacts(sub)


def run(args: argparse.Namespace) -> None:
    """``tdcompress inspect``: an ONNX file tensor by tensor, or each file of a run.

    Raises:
        UserError: ``--shape`` without the engine.
        ModelError: no such file.
    """
    from tdcompress.codec import encode
    from tdcompress.console import make_console
    from tdcompress.inspection import engine_layers, engine_table, file_tables
    from tdcompress.report.terminal import render
    from tdcompress.runs.manifest import onnx_files

    if args.shape and args.backend != "engine":
        raise UserError("--shape says for which input the engine chooses its kernels; add --backend engine")
    console = make_console()
    path = Path(args.path)
    if path.suffix == ".onnx" and not path.exists():
        raise ModelError(f"{path}: no such file")
    files = [path] if path.is_file() else onnx_files(path if path.is_dir() else args.artifacts / args.path)
    found: dict[str, Any] = {}
    for file in files:
        if args.backend == "engine":
            layers = engine_layers(file, args.shape, external_data=args.external_data)
            found[file.name] = encode(layers)
            tables = [engine_table(file, layers)]
        else:
            from tdcompress.onnxfile.inspect import inspect_onnx

            report = inspect_onnx(file, external_data=args.external_data)
            found[file.name] = report.to_json()
            tables = [table for table in file_tables(file, report) if table.rows]
        for table in () if args.json else tables:
            console.print(render(table))
    if args.json:
        print_json(found if path not in files else found[path.name])
