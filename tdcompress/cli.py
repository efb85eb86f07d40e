"""The command line: verbs only. Each parses its arguments, calls the library, prints."""

import argparse
import io
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdcompress import __version__
from tdcompress.commands import artifacts as artifacts_verbs
from tdcompress.commands import data as data_verbs
from tdcompress.errors import InterruptedRun, ModelError, TdcompressError, UnfinishedRun, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from tdcompress.console import Signals

DEFAULT_ARTIFACTS = "artifacts"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb.

    Returns:
        0 = done; 2 = what the user gave is wrong; 1 = a fault; 130 or 143 = interrupted, state saved; 75 = the time that was
        given is over, state saved: the same command goes on.
    """
    began = time.monotonic() - (process_age() if argv is None else 0.0)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name from a file may have letters that this one, on Windows say, has not
            stream.reconfigure(errors="replace")
    args = make_parser().parse_args(argv)
    args.began = began
    args.command = shlex.join(["tdcompress", *(sys.argv[1:] if argv is None else argv)])
    # Where other processes want the cores too, OpenMP threads that spin while they wait make training ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        args.verb(args)
    except TdcompressError as error:
        print(f"tdcompress: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("tdcompress: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"tdcompress: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def process_age() -> float:
    """Seconds since this process began, where Linux tells; else 0, which leaves out the start of Python."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
    return age if 0 <= age < 60 else 0.0  # of another time namespace


def make_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(prog="tdcompress", description="From training to a compact, verified, measured ONNX file.")
    parser.add_argument("--version", action="version", version=f"tdcompress {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(verb=function)
        return sub

    sub = verb("run", run, "run recipes to their reports; what is done already is not done again")
    text = "a .toml file or a folder of them, or the name of a shipped recipe or folder, such as digits or paper"
    sub.add_argument("recipes", type=Path, nargs="+", metavar="RECIPE", help=text)
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key: --set train.epochs=1")
    _add_artifacts(sub)
    sub.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    text = "make the trainings alone, in the order of the recipes; the same command without this goes on to the reports"
    sub.add_argument("--only", choices=["train"], help=text)
    text = "time for everything, from the start of the process; then the state is saved and the exit code is 75: run it again"
    sub.add_argument("--minutes", type=_positive(float), default=math.inf, help=text)
    text = "with --only train: so many at the same time, on one GPU in a stream each"
    sub.add_argument("--together", type=_positive(int), default=1, metavar="N", help=text)
    sub.add_argument("--replace", action="store_true", help="replace a finished run of the same name by another recipe's")

    sub = verb("status", status, "what runs there are, and how far they are")
    sub.add_argument("run", nargs="?", help="one run")
    _add_artifacts(sub)

    sub = verb("report", report, "show a run's report again; compare it with published tables; add other machines' latencies")
    sub.add_argument("run")
    sub.add_argument("--compare", metavar="TABLE", help="a published table, such as workshop-3a")
    sub.add_argument("--bench", type=Path, action="append", default=[], metavar="FILE.json", help="from `bench --json`")
    sub.add_argument("--json", action="store_true", help="print report.json")
    _add_artifacts(sub)

    sub = verb("recipes", recipes, "the shipped recipes, and what a recipe can say")
    chosen = sub.add_mutually_exclusive_group()
    chosen.add_argument("--copy", metavar="NAME", help="copy one into this folder")
    chosen.add_argument("--keys", action="store_true", help="every key with its values, default and meaning")
    chosen.add_argument("--write-keys", type=Path, metavar="FILE.md", help="the same as markdown")

    text = "what is in the artifacts folder; pack it for another machine, and take it in there"
    artifacts_verbs.add(verbs.add_parser("artifacts", help=text, description=text), _add_artifacts)

    text = "pack a data set without loss for a slow connection, and unpack it there"
    data_verbs.add(verbs.add_parser("data", help=text, description=text))

    sub = verb("inspect", inspect, "what is in an ONNX file, tensor by tensor; or what the rows of a run are")
    sub.add_argument("path", help="FILE.onnx, or a run")
    sub.add_argument(
        "--backend", choices=["onnxruntime", "engine"], default="onnxruntime", help="engine: what it would do with each layer"
    )
    sub.add_argument(
        "--shape", action="append", default=[], metavar="1x3x224x224", help="engine: of each input in turn, if the file is open"
    )
    sub.add_argument("--json", action="store_true")
    _add_external_data(sub)
    _add_artifacts(sub)

    sub = verb("pack", pack, "write an ONNX file again without its zeros: plain standard operators, as fast as before")
    sub.add_argument("source", type=Path, metavar="IN.onnx")
    sub.add_argument("target", type=Path, metavar="OUT.onnx")
    sub.add_argument("--values", choices=["float32", "float16"], default="float32")
    sub.add_argument("--prefer", choices=["speed", "size"], default="speed", help="of loading")
    _add_external_data(sub)

    sub = verb("unpack", unpack, "write a packed ONNX file with dense weights again")
    sub.add_argument("source", type=Path, metavar="IN.onnx")
    sub.add_argument("target", type=Path, metavar="OUT.onnx")
    _add_external_data(sub)

    sub = verb("verify", verify, "check an ONNX file or a run's folder: damage, validity, and its outputs on real samples")
    sub.add_argument("path", type=Path)
    sub.add_argument("--json", action="store_true")
    _add_external_data(sub)
    _add_artifacts(sub)

    sub = verb("bench", bench, "time ONNX files on this machine against a baseline")
    sub.add_argument("files", type=Path, nargs="+", metavar="FILE.onnx")
    sub.add_argument("--baseline", type=Path, metavar="FILE.onnx", help="default: dense.onnx beside the first file")
    sub.add_argument("--threads", type=int, default=1, help="of a session; 0 = all cores")
    sub.add_argument("--batch", type=int, default=1)
    sub.add_argument("--backend", default="onnxruntime", help="onnxruntime, engine, openvino, deepsparse, null")
    sub.add_argument("--provider", default="CPUExecutionProvider", help="onnxruntime's execution provider")
    sub.add_argument("--budget", choices=["quick", "full"], default="quick")
    sub.add_argument("--json", type=Path, metavar="OUT", help="write everything that was measured")
    _add_external_data(sub)
    return parser


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """A parser of numbers above 0."""

    def number(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return number


def _add_artifacts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--artifacts", type=Path, default=Path(DEFAULT_ARTIFACTS), metavar="DIR", help="where runs are kept")


def _add_external_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--external-data", action="store_true", help="accept weights in files beside the ONNX file")


def run(args: argparse.Namespace) -> None:
    """``tdcompress run``: recipes to their reports, or their trainings alone.

    Raises:
        UnfinishedRun: ``--minutes`` are over.
        TdcompressError: see ``run_all``, ``runs.campaign.run_campaign``.
    """
    from tdcompress.console import Signals, make_console
    from tdcompress.recipes.shipped import find_recipes

    if args.together > 1 and not args.only:
        raise UserError(f"--together {args.together}: only trainings run together; add --only train")
    paths = [path for given in args.recipes for path in find_recipes(given)]
    signals, console = Signals(args.began + 60 * args.minutes), make_console()
    signals.listen()
    try:
        if args.only:
            run_trainings(paths, args, signals, console)
        else:
            run_all(paths, args, signals, console)
    except InterruptedRun as stop:
        if signals.number is not None:
            raise
        raise UnfinishedRun(f"the time that was given ({args.minutes:g} minutes) is over: {stop}") from None


def run_all(paths: Sequence[Path], args: argparse.Namespace, signals: "Signals", console: "Console") -> None:
    """One recipe after the other; one that fails does not keep the next from running.

    Raises:
        UserError: of several recipes some could not be run as they are, for want of data for example.
        TdcompressError: of several recipes some failed otherwise. What a single recipe raises is raised as it is.
    """
    failed: dict[str, TdcompressError] = {}
    for path in paths:
        if len(paths) > 1:
            console.print(f"{path.stem} ({paths.index(path) + 1} of {len(paths)})", style="bold", highlight=False)
        try:
            run_one(path, args, signals, console)
        except InterruptedRun:
            raise
        except TdcompressError as error:
            if len(paths) == 1:
                raise
            print(f"tdcompress: {path.stem}: {error}", file=sys.stderr)
            failed[path.stem] = error
    if failed:
        kind = UserError if all(isinstance(error, UserError) for error in failed.values()) else TdcompressError
        others = "" if len(failed) == len(paths) else "; the others are done"
        raise kind(f"{len(failed)} of {len(paths)} recipes failed: {', '.join(failed)}{others}")


def run_one(path: Path, args: argparse.Namespace, signals: "Signals", console: "Console") -> None:
    """One recipe, and what it came to: see ``runs.run.run_recipe``."""
    from tdcompress.console import StageConsole
    from tdcompress.recipes.source import load_recipe, parse_override
    from tdcompress.report import shrinking
    from tdcompress.report.tables import summary
    from tdcompress.report.terminal import render

    recipe = load_recipe(path, dict(parse_override(text) for text in args.set))
    require_training_parts(*TRAINING, *REPORTING)
    from tdcompress.runs.run import find_device, run_recipe

    with StageConsole(console) as watcher:
        done = run_recipe(
            recipe,
            root=args.artifacts,
            device=find_device(args.device),
            watcher=watcher,
            should_stop=signals.asked,
            replace=args.replace,
            command=args.command,
        )
    console.print(render(summary(done.report)))
    for table in shrinking.tables(done.report)[:1]:  # its rows; `report` shows the layers too
        console.print(render(table))
    for note in done.report.notes:
        console.print(note, style="bold", highlight=False)
    said = "everything was there already; nothing was run" if not done.made else f"{done.made} stages were run"
    console.print(f"{said}. Report and files: {done.folder}/report.html, .md, .json and *.onnx", highlight=False)


def run_trainings(paths: Sequence[Path], args: argparse.Namespace, signals: "Signals", console: "Console") -> None:
    """The trainings of all recipes: see ``runs.campaign.run_campaign``."""
    from tdcompress.console import StageConsole
    from tdcompress.recipes.source import load_recipe, parse_override

    changes = dict(parse_override(text) for text in args.set)
    loaded = [load_recipe(path, changes) for path in paths]
    require_training_parts(*TRAINING)
    from tdcompress.runs.campaign import run_campaign
    from tdcompress.runs.run import find_device

    with StageConsole(console) as watcher:
        done = run_campaign(
            loaded,
            root=args.artifacts,
            device=find_device(args.device),
            watcher=watcher,
            should_stop=signals.asked,
            together=args.together,
            command=args.command,
        )
    console.print(f"all {done.trainings} trainings are done, {done.made} of them now; run without --only train to go on")


TRAINING = ("torch", "torchvision", "safetensors")
REPORTING = ("onnxscript", "sklearn", "matplotlib", "tomli_w")


def require_training_parts(*names: str) -> None:
    """Say what to install where the training half is missing.

    Args:
        names: the packages that are needed.

    Raises:
        UserError: one of them cannot be found.
    """
    from importlib.util import find_spec

    missing = [name for name in names if not find_spec(name)]
    if missing:
        raise UserError(f"this needs {', '.join(missing)}: pip install '.[train]' in tdcompress's checkout")


def status(args: argparse.Namespace) -> None:
    """``tdcompress status``: runs with their state, unfinished ones with what goes on with them, and stages."""
    from tdcompress.console import make_console
    from tdcompress.report.terminal import render
    from tdcompress.runs.status import status_tables

    console = make_console()
    for table in status_tables(args.artifacts, args.run):
        console.print(render(table))


def report(args: argparse.Namespace) -> None:
    """``tdcompress report``: a finished run's report, with what other machines measured."""
    from tdcompress.console import make_console
    from tdcompress.report import layers, shrinking
    from tdcompress.report.tables import summary
    from tdcompress.report.terminal import render, render_document
    from tdcompress.runs.finished import compare_with, join_files
    from tdcompress.runs.manifest import REPORT, read_report

    console = make_console()
    folder = args.artifacts / args.run
    found = join_files(folder, args.bench) if args.bench else read_report(folder)
    compared = compare_with(folder, found, args.compare) if args.compare else None
    if args.json:
        print((folder / REPORT).read_text(encoding="utf-8"), end="")
        return
    for table in (summary(found), *shrinking.tables(found), *layers.tables(found)):
        console.print(render(table))
    for note in found.notes:
        console.print(note, style="bold", highlight=False)
    if compared:
        console.print(render_document(compared))


def recipes(args: argparse.Namespace) -> None:
    """``tdcompress recipes``: list the shipped recipes, copy one, or say what a recipe can say."""
    from tdcompress.recipes.shipped import copy_recipe, shipped_recipes

    if args.keys or args.write_keys:
        _say_keys(args.write_keys)
        return
    if args.copy:
        print(f"wrote {copy_recipe(args.copy, Path.cwd())}")
        return
    for name, sentence in shipped_recipes().items():
        print(f"{name:<40}  {sentence}")


def _say_keys(target: Path | None) -> None:
    from tdcompress.console import make_console
    from tdcompress.files import write_text
    from tdcompress.report import markdown, terminal

    require_training_parts(*TRAINING)  # which own most of the keys
    from tdcompress.recipes.keys import keys_document

    if target is None:
        make_console().print(terminal.render_document(keys_document()))
        return
    write_text(target, markdown.render_document(keys_document()))
    print(f"wrote {target}")


def inspect(args: argparse.Namespace) -> None:
    """``tdcompress inspect``: an ONNX file tensor by tensor, or each file of a run."""
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
            tables = list(file_tables(file, report))
        for table in () if args.json else tables:
            console.print(render(table))
    if args.json:
        print(json.dumps(found if path not in files else found[path.name], indent=1))


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
    print(f"wrote {args.target}: {done.file_bytes:,} bytes, from {done.source_bytes:,}; {done.restored} weights are dense again")


def verify(args: argparse.Namespace) -> None:
    """``tdcompress verify``."""
    from tdcompress.runs.verification import verify_path

    path = args.path if args.path.exists() else args.artifacts / args.path
    if not path.exists():
        raise ModelError(f"{args.path}: no such file or run")
    found = verify_path(path, say=lambda line: print(line, file=sys.stderr), external_data=args.external_data)
    if args.json:
        print(json.dumps({name: entry.to_json() for name, entry in found.items()}, indent=1))
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


def bench(args: argparse.Namespace) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
