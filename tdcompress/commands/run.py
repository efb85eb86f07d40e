"""``tdcompress run``: recipes to their reports, or their trainings alone."""

import argparse
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tdcompress.commands.shared import (
    Verbs,
    add_set,
    add_store,
    add_verb,
    positive,
    print_error,
    print_report,
    read_recipe,
    refuse_idle_changes,
)
from tdcompress.errors import InterruptedRun, OtherProcessError, TdcompressError, UnfinishedRun, UserError, of_system
from tdcompress.runs.parts import CLUSTER, REPORTING, TRAINING, require_parts

if TYPE_CHECKING:
    from rich.console import Console

    from tdcompress.cluster.driver import Cluster
    from tdcompress.console import Signals, StageConsole
    from tdcompress.runs.crew import Leader
    from tdcompress.runs.execution import Execution

_OF_TORCHRUN = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
_FIRST_SAYS_SECONDS = 10.0


def add_parser(verbs: Verbs) -> None:
    """Add ``run``."""
    sub = add_verb(verbs, "run", run, "run recipes to their reports; what is done already is not done again")
    text = "a .toml file or a folder of them, or the name of a shipped recipe or folder, such as digits or paper"
    sub.add_argument("recipes", type=Path, nargs="+", metavar="RECIPE", help=text)
    add_set(sub, "change a key: --set train.epochs=1")
    add_store(sub)
    sub.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    text = "make the trainings alone, in the order of the recipes; the same command without this goes on to the reports"
    sub.add_argument("--only", choices=["train"], help=text)
    text = "time for everything, from the start of the process; then the state is saved and the exit code is 75: run it again"
    sub.add_argument("--minutes", type=positive(float), default=math.inf, help=text)
    text = "with --only train: so many at the same time, on one GPU in a stream each"
    sub.add_argument("--together", type=positive(int), default=1, metavar="N", help=text)
    text = "make the stages on a Ray cluster: ray = the one this machine is a node of, ray://HOST:PORT = another; docs/scaling.md"
    sub.add_argument("--cluster", type=ray_address, metavar="ray[://HOST:PORT]", help=text)
    text = "with --cluster: the node that benchmarks run on, by host name, address or id; this machine without it"
    sub.add_argument("--bench-node", metavar="NODE", help=text)
    text = "wait for what another process has or makes; without it that is an error"
    sub.add_argument("--wait", action="store_true", help=text)
    sub.add_argument("--replace", action="store_true", help="replace a finished run of the same name by another recipe's")


def ray_address(text: str) -> str:
    """What ``--cluster`` takes."""
    if text != "ray" and not re.fullmatch(r"ray://[^/:\s]+:\d+", text):
        raise argparse.ArgumentTypeError(f"{text} is neither ray nor ray://HOST:PORT")
    return text


def run(args: argparse.Namespace) -> None:
    """``tdcompress run``: recipes to their reports, or their trainings alone.

    Raises:
        UnfinishedRun: ``--minutes`` are over.
        TdcompressError: see ``run_all``, ``runs.campaign.run_campaign``.
        UserError: options that do not go together.
    """
    from tdcompress.console import Signals, make_console
    from tdcompress.recipes.shipped import find_recipes

    with said_once():
        refuse_options(args)
        paths = [path for given in args.recipes for path in find_recipes(given)]
    signals, console = Signals(args.began + 60 * args.minutes), make_console()
    signals.listen()
    require_parts(*TRAINING)
    with said_once():
        refuse_idle_changes(paths, args.set)
    from tdcompress.runs.crew import in_crew
    from tdcompress.runs.run import find_device

    def lead(crew: "Leader | None", device: str) -> None:
        work = Work(args=args, device=device, signals=signals, console=console, crew=crew)
        if args.only:
            run_trainings(paths, work)
        else:
            run_all(paths, work)

    try:
        if args.cluster:
            with on_cluster(args, signals, console) as cluster:
                device = cluster.device(args.device)
                run_all(paths, Work(args=args, device=device, signals=signals, console=console, cluster=cluster))
        else:
            in_crew(find_device(args.device), lead, signals.asked)
    except InterruptedRun as stop:
        if signals.number is not None:
            raise
        over = UnfinishedRun(f"the time that was given ({args.minutes:g} minutes) is over: {stop}")
        for note in getattr(stop, "__notes__", ()):
            over.add_note(note)
        raise over from None


def refuse_options(args: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises:
        UserError: they do not.
    """
    if args.together > 1 and not args.only:
        raise UserError(f"--together {args.together}: only trainings run together; add --only train")
    if args.cluster and args.only:
        raise UserError("--cluster with --only train: a cluster makes all stages of its runs; leave --only out")
    if args.bench_node and not args.cluster:
        raise UserError(f"--bench-node {args.bench_node}: without --cluster, benchmarks run in this process")
    if args.cluster and os.environ.keys() >= _OF_TORCHRUN:
        raise UserError("--cluster under torchrun: each process would make the whole run; start it without torchrun")


@contextmanager
def said_once() -> Iterator[None]:
    """Of the processes that torchrun started on a machine, the first says what is wrong with their command.

    Raises:
        OtherProcessError: this is another.
    """
    try:
        yield
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            raise
        time.sleep(_FIRST_SAYS_SECONDS)  # torchrun ends all when one ends, and does so here before that
        raise OtherProcessError(str(error)) from None


@contextmanager
def on_cluster(args: argparse.Namespace, signals: "Signals", console: "Console") -> "Iterator[Cluster]":
    """The cluster of ``--cluster``, while the block runs.

    Args:
        args: as they were typed.
        signals: asks for an end.
        console: where is said what the cluster has and loses.

    Raises:
        UserError: Ray is not installed.
        UnsupportedError: no such cluster answers.
    """
    require_parts(*CLUSTER, extra="cluster")
    from tdcompress.cluster import driver

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    with driver.connected(args.cluster, args.artifacts, args.bench_node, say) as cluster:
        signals.listen()  # again: Ray listens to SIGTERM too
        yield cluster


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the recipes of one command share.

    Attributes:
        args: as they were typed.
        device: where to train.
        signals: asks for an end.
        console: where progress goes.
        crew: other processes that help to train, or None.
        cluster: makes the stages, or None.
    """

    args: argparse.Namespace
    device: str
    signals: "Signals"
    console: "Console"
    crew: "Leader | None" = None
    cluster: "Cluster | None" = None

    def execution(self, watcher: "StageConsole") -> "Execution":
        """How each run is executed.

        Args:
            watcher: told about each stage, and while another process is waited for.
        """
        from tdcompress.runs.execution import Execution
        from tdcompress.runs.workers import HERE

        return Execution(
            root=self.args.artifacts,
            device=self.device,
            watcher=watcher,
            should_stop=self.signals.asked,
            workers=self.cluster or HERE,
            crew=self.crew,
            waiting=watcher.waiting if self.args.wait or self.cluster else None,
            command=self.args.command,
        )


def run_all(paths: Sequence[Path], work: Work) -> None:
    """One recipe after the other; one that fails does not keep the next from running, unless several processes share the work.

    Raises:
        UserError: of several recipes some could not be run as they are, for want of data for example.
        TdcompressError: of several recipes some failed otherwise. What a single recipe raises is raised as it is.
    """
    failed: list[tuple[str, TdcompressError]] = []
    for number, path in enumerate(paths, 1):
        if len(paths) > 1:
            work.console.print(f"{path.stem} ({number} of {len(paths)})", style="bold", highlight=False)
        try:
            run_one(path, work, shared=len(paths) > 1)
        except (InterruptedRun, BrokenPipeError):
            raise
        except (TdcompressError, OSError) as error:
            if len(paths) == 1 or work.crew is not None:
                raise
            problem = of_system(error) if isinstance(error, OSError) else error
            print_error(f"{path.stem}: {problem}")
            failed.append((path.stem, problem))
    if failed:
        kind = UserError if all(isinstance(error, UserError) for _, error in failed) else TdcompressError
        others = "" if len(failed) == len(paths) else "; the others are done"
        raise kind(f"{len(failed)} of {len(paths)} recipes failed: {', '.join(name for name, _ in failed)}{others}")


def run_one(path: Path, work: Work, *, shared: bool) -> None:
    """One recipe, and what it came to: see ``runs.run.run_recipe``.

    Args:
        path: the recipe.
        work: what the recipes share.
        shared: whether ``--set`` is for other recipes too.
    """
    from tdcompress.console import StageConsole
    from tdcompress.report import shrinking

    args, console = work.args, work.console
    recipe = read_recipe(path, args.set, shared=shared)
    require_parts(*REPORTING)
    from tdcompress.runs.run import run_recipe

    with StageConsole(console) as watcher:
        done = run_recipe(recipe, work.execution(watcher), replace=args.replace)
    print_report(console, done.report, shrinking.tables(done.report)[:1])  # its rows; `report` shows the layers too
    said = "everything was there already; nothing was run" if not done.made else were_run(done.made)
    console.print(f"{said}. Report and files: {done.folder}/report.html, .md, .json and *.onnx", highlight=False)


def were_run(stages: int) -> str:
    """How many stages, as people say it."""
    return "1 stage was run" if stages == 1 else f"{stages} stages were run"


def run_trainings(paths: Sequence[Path], work: Work) -> None:
    """The trainings of all recipes: see ``runs.campaign.run_campaign``."""
    from tdcompress.console import StageConsole
    from tdcompress.runs.campaign import run_campaign

    args, console = work.args, work.console
    loaded = [read_recipe(path, args.set, shared=len(paths) > 1) for path in paths]
    with StageConsole(console) as watcher:
        done = run_campaign(loaded, work.execution(watcher), together=args.together)
    trained = "the training is done" if done.trainings == 1 else f"all {done.trainings} trainings are done"
    console.print(f"{trained}; {were_run(done.made)} now; run without --only train to go on")
