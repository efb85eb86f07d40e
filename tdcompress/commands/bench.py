"""``tdcompress bench``: ONNX files timed on this machine against a baseline."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tdcompress.commands.shared import Verbs, add_artifacts, add_external_data, add_verb, output_file, shape
from tdcompress.errors import UserError

if TYPE_CHECKING:
    from tdcompress.bench.report import BenchReport


def add_parser(verbs: Verbs) -> None:
    """Add ``bench``."""
    sub = add_verb(verbs, "bench", run, "time ONNX files on this machine against a baseline")
    text = "ONNX files; a folder or a run stands for all that are in it, of a translator the encoder for all its files"
    sub.add_argument("files", type=Path, nargs="+", metavar="FILE.onnx", help=text)
    text = "default: dense.onnx beside the first file, or the largest file of a folder without it"
    sub.add_argument("--baseline", type=Path, metavar="FILE.onnx", help=text)
    sub.add_argument("--threads", type=int, default=1, help="of a session; 0 = all cores")
    sub.add_argument("--batch", type=int, help="examples of a call; default 1, or what --shape begins with")
    text = "of each random input in turn, where the files leave more than the batch open"
    sub.add_argument("--shape", type=shape, action="append", default=[], metavar="1x3x224x224", help=text)
    sub.add_argument("--backend", default="onnxruntime", help="onnxruntime, engine, openvino, deepsparse, null")
    sub.add_argument("--provider", default="CPUExecutionProvider", help="onnxruntime's execution provider")
    text = "pairs of calls for each file: quick, 20 or more in each of 6 processes; full, 100 or more in each of 8"
    sub.add_argument("--budget", choices=["quick", "full"], default="quick", help=text)
    sub.add_argument("--json", type=output_file, metavar="OUT", help="write everything that was measured")
    add_external_data(sub)
    add_artifacts(sub)


def run(args: argparse.Namespace) -> None:
    """``tdcompress bench``.

    Raises:
        UserError: there is no baseline, and nothing else is wrong.
    """
    from tdcompress.bench.benchmark import benchmark
    from tdcompress.bench.ready import check_without_baseline
    from tdcompress.console import make_console
    from tdcompress.files import write_text

    files, baseline = find_files(args.files, args.baseline, args.artifacts, external_data=args.external_data)
    batch = (args.shape[0][0] if args.shape else 1) if args.batch is None else args.batch
    asked = {
        "threads": args.threads,
        "batch": batch,
        "backend": args.backend,
        "budget": args.budget,
        "shapes": args.shape,
        "external_data": args.external_data,
    }
    if not baseline.is_file():
        check_without_baseline(files, **asked)
        raise UserError(f"{baseline}: no such file; name what the files are compared with: --baseline dense.onnx")
    quiet = make_console(stderr=True)
    found = benchmark(
        files,
        baseline=baseline,
        provider=args.provider,
        progress=lambda line, _: quiet.print(line, highlight=False, style="dim"),
        **asked,
    )
    try:
        if args.json:
            write_text(args.json, found.to_json())
    finally:  # a disk that is full by now takes nothing of it
        _show(found, f"{args.threads or 'all'} thread(s), batch {batch}, {args.budget} budget; compared with {baseline.name}")


def _show(found: "BenchReport", how: str) -> None:
    """Print what was measured: where and how, then the tables."""
    from tdcompress.bench.table import COSTS, NOTES, costs_table, notes_table, times_columns, times_table
    from tdcompress.console import make_console
    from tdcompress.report.tables import Table, number_columns, text_columns
    from tdcompress.report.terminal import render

    console = make_console()
    console.print(f"{found.host.cpu}, {found.host.id}; {how}", highlight=False)
    if found.protocol.call:
        console.print(found.protocol.call, highlight=False)
    measured = (times_table(found), number_columns(*times_columns(found)[1:])), (costs_table(found), number_columns(*COSTS[1:]))
    for rows, columns in (*measured, (notes_table(found), text_columns(*NOTES[1:]))):
        if rows:
            console.print(render(Table(title="", columns=(*text_columns("file"), *columns), rows=tuple(rows))))


def find_files(
    given: Sequence[Path], baseline: Path | None, artifacts: Path, *, external_data: bool = False
) -> tuple[list[Path], Path]:
    """What is timed, and what it is compared with.

    Args:
        given: files, folders, and names of runs; a folder stands for its networks but the baseline.
        baseline: None = dense.onnx beside the first file, else the largest of a folder or of several files, which is not timed.
        artifacts: where runs are kept.
        external_data: accept weights in files beside ONNX files.

    Returns:
        The files, and the baseline, which may be missing.

    Raises:
        UserError: something else is not there, or nothing is to be timed beside the baseline.
    """
    places = [path if path.exists() or not (artifacts / path).is_dir() else artifacts / path for path in given]
    for place in places:
        if not place.exists():
            raise UserError(f"{place}: no such file, folder or run")
    against = _baseline(places, baseline, external_data)
    one_of_them = baseline is None and len(places) > 1
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            others = [file for file in _networks(place, external_data) if not _same(file, against)]
            if not others:
                raise UserError(f"{place}: holds no ONNX file beside {against.name}; name what is to be timed")
            files += others
        elif not (one_of_them and _same(place, against)):
            files.append(place)
    if not files:
        raise UserError(f"{against}: is what files are compared with; name what is to be timed beside it")
    return files, against


def _same(file: Path, against: Path) -> bool:
    return against.is_file() and file.samefile(against)


def _networks(folder: Path, external_data: bool) -> list[Path]:
    """The first file of each network in a folder."""
    from tdcompress.bench.deployed import first_files
    from tdcompress.runs.manifest import onnx_files

    return first_files(onnx_files(folder), external_data=external_data)


def _baseline(places: Sequence[Path], named: Path | None, external_data: bool) -> Path:
    """What files are compared with, there or not: ``named`` from here or beside the first place, or the usual choice there.

    That is the dense file beside the first, else the largest of a folder, or of several files.
    """
    from tdcompress.runs.manifest import DENSE_FILE

    first = places[0]
    folder = first if first.is_dir() else first.parent
    if named is not None:
        return next((path for path in (named, folder / named) if path.is_file()), named)
    usual = folder / DENSE_FILE
    if usual.is_file() or (len(places) == 1 and not first.is_dir()):
        return usual
    candidates = _networks(folder, external_data) if first.is_dir() else [place for place in places if place.is_file()]
    return max(candidates, key=lambda file: file.stat().st_size)
