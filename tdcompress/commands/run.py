"""``tdcompress run``: recipes to their reports, or their trainings alone."""

import argparse
import math
from collections.abc import Sequence
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
)
from tdcompress.errors import InterruptedRun, TdcompressError, UnfinishedRun, UserError
from tdcompress.runs.parts import REPORTING, TRAINING, require_parts

if TYPE_CHECKING:
    from rich.console import Console

    from tdcompress.console import Signals, StageConsole
    from tdcompress.runs.crew import Leader
    from tdcompress.runs.execution import Execution


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
    text = "wait for what another process has or makes; without it that is an error"
    sub.add_argument("--wait", action="store_true", help=text)
    sub.add_argument("--replace", action="store_true", help="replace a finished run of the same name by another recipe's")


def run(args: argparse.Namespace) -> None:
    """``tdcompress run``: recipes to their reports, or their trainings alone.

    Raises:
        UnfinishedRun: ``--minutes`` are over.
        TdcompressError: see ``run_all``, ``runs.campaign.run_campaign``.
        UserError: ``--together`` without ``--only``.
    """
    from tdcompress.console import Signals, make_console
    from tdcompress.recipes.shipped import find_recipes

    if args.together > 1 and not args.only:
        raise UserError(f"--together {args.together}: only trainings run together; add --only train")
    paths = [path for given in args.recipes for path in find_recipes(given)]
    signals, console = Signals(args.began + 60 * args.minutes), make_console()
    signals.listen()
    require_parts(*TRAINING)
    from tdcompress.runs.crew import in_crew
    from tdcompress.runs.run import find_device

    def lead(crew: "Leader | None", device: str) -> None:
        work = Work(args=args, device=device, crew=crew, signals=signals, console=console)
        if args.only:
            run_trainings(paths, work)
        else:
            run_all(paths, work)

    try:
        in_crew(find_device(args.device), lead, signals.asked)
    except InterruptedRun as stop:
        if signals.number is not None:
            raise
        raise UnfinishedRun(f"the time that was given ({args.minutes:g} minutes) is over: {stop}") from None


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the recipes of one command share.

    Attributes:
        args: as they were typed.
        device: where to train.
        crew: other processes that help to train, or None.
        signals: asks for an end.
        console: where progress goes.
    """

    args: argparse.Namespace
    device: str
    crew: "Leader | None"
    signals: "Signals"
    console: "Console"

    def execution(self, watcher: "StageConsole") -> "Execution":
        """How each run is executed.

        Args:
            watcher: told about each stage, and while another process is waited for.
        """
        from tdcompress.runs.execution import Execution

        return Execution(
            root=self.args.artifacts,
            device=self.device,
            watcher=watcher,
            should_stop=self.signals.asked,
            crew=self.crew,
            waiting=watcher.waiting if self.args.wait else None,
            command=self.args.command,
        )


def run_all(paths: Sequence[Path], work: Work) -> None:
    """One recipe after the other; one that fails does not keep the next from running, unless several processes share the work.

    Raises:
        UserError: of several recipes some could not be run as they are, for want of data for example.
        TdcompressError: of several recipes some failed otherwise. What a single recipe raises is raised as it is.
    """
    failed: dict[str, TdcompressError] = {}
    for path in paths:
        if len(paths) > 1:
            work.console.print(f"{path.stem} ({paths.index(path) + 1} of {len(paths)})", style="bold", highlight=False)
        try:
            run_one(path, work)
        except InterruptedRun:
            raise
        except TdcompressError as error:
            if len(paths) == 1 or work.crew is not None:
                raise
            print_error(f"{path.stem}: {error}")
            failed[path.stem] = error
    if failed:
        kind = UserError if all(isinstance(error, UserError) for error in failed.values()) else TdcompressError
        others = "" if len(failed) == len(paths) else "; the others are done"
        raise kind(f"{len(failed)} of {len(paths)} recipes failed: {', '.join(failed)}{others}")


def run_one(path: Path, work: Work) -> None:
    """One recipe, and what it came to: see ``runs.run.run_recipe``."""
    from tdcompress.console import StageConsole
    from tdcompress.report import shrinking

    args, console = work.args, work.console
    recipe = read_recipe(path, args.set)
    require_parts(*REPORTING)
    from tdcompress.runs.run import run_recipe

    with StageConsole(console) as watcher:
        done = run_recipe(recipe, work.execution(watcher), replace=args.replace)
    print_report(console, done.report, shrinking.tables(done.report)[:1])  # its rows; `report` shows the layers too
    said = "everything was there already; nothing was run" if not done.made else f"{done.made} stages were run"
    console.print(f"{said}. Report and files: {done.folder}/report.html, .md, .json and *.onnx", highlight=False)


def run_trainings(paths: Sequence[Path], work: Work) -> None:
    """The trainings of all recipes: see ``runs.campaign.run_campaign``."""
    from tdcompress.console import StageConsole
    from tdcompress.runs.campaign import run_campaign

    args, console = work.args, work.console
    loaded = [read_recipe(path, args.set) for path in paths]
    with StageConsole(console) as watcher:
        done = run_campaign(loaded, work.execution(watcher), together=args.together)
    console.print(f"all {done.trainings} trainings are done; {done.made} stages were run now; run without --only train to go on")
