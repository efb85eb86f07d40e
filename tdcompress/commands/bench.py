"""``tdcompress bench``: ONNX files timed on this machine against a baseline."""

import argparse
from pathlib import Path

from tdcompress.commands.shared import Verbs, add_external_data, add_verb
from tdcompress.errors import UserError


def add_parser(verbs: Verbs) -> None:
    """Add ``bench``."""
    sub = add_verb(verbs, "bench", run, "time ONNX files on this machine against a baseline")
    sub.add_argument("files", type=Path, nargs="+", metavar="FILE.onnx")
    sub.add_argument("--baseline", type=Path, metavar="FILE.onnx", help="default: dense.onnx beside the first file")
    sub.add_argument("--threads", type=int, default=1, help="of a session; 0 = all cores")
    sub.add_argument("--batch", type=int, default=1)
    sub.add_argument("--backend", default="onnxruntime", help="onnxruntime, engine, openvino, deepsparse, null")
    sub.add_argument("--provider", default="CPUExecutionProvider", help="onnxruntime's execution provider")
    sub.add_argument("--budget", choices=["quick", "full"], default="quick")
    sub.add_argument("--json", type=Path, metavar="OUT", help="write everything that was measured")
    add_external_data(sub)


def run(args: argparse.Namespace) -> None:
    """``tdcompress bench``."""
    from tdcompress.bench.benchmark import benchmark
    from tdcompress.bench.table import COSTS, TIMES, costs_table, times_table
    from tdcompress.console import make_console
    from tdcompress.files import write_text
    from tdcompress.report.join import DENSE_FILE
    from tdcompress.report.tables import Table, numbers, texts
    from tdcompress.report.terminal import render

    baseline = args.baseline or args.files[0].parent / DENSE_FILE
    if not baseline.is_file():
        raise UserError(f"{baseline}: no such file; name what the files are compared with: --baseline dense.onnx")
    if args.json and (args.json.is_dir() or not args.json.absolute().parent.is_dir()):
        raise UserError(f"--json {args.json}: not a file that can be written; name one in a folder that exists")
    quiet = make_console(stderr=True)
    found = benchmark(
        args.files,
        baseline=baseline,
        threads=args.threads,
        batch=args.batch,
        backend=args.backend,
        provider=args.provider,
        budget=args.budget,
        external_data=args.external_data,
        progress=lambda line: quiet.print(line, highlight=False, style="dim"),
    )
    if args.json:
        write_text(args.json, found.to_json())
    console = make_console()
    console.print(
        f"{found.host.cpu}, {found.host.id}; {args.threads or 'all'} thread(s), batch {args.batch}, {args.budget} budget",
        highlight=False,
    )
    rows, notes = times_table(found)
    for titles, cells, below in ((TIMES, rows, notes), (COSTS, costs_table(found), ())):
        columns = (*texts(titles[0]), *numbers(*titles[1:]))
        console.print(render(Table(title="", columns=columns, rows=tuple(cells), notes=below)))
