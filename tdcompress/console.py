"""What a person sees while a run goes on, and how a signal is heard."""

import math
import os
import signal
import sys
import time
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from tdcompress.artifacts import Artifact, content_key
from tdcompress.pipeline import Task
from tdcompress.report import text

_PLAIN_SECONDS = 15.0
_SPEED_SECONDS = 300.0  # what is left is told by the speed of so long: beside other work a few seconds tell hours too many
_NARROW_COLUMNS = 100
_TITLE_COLUMNS = 58  # of a stage that is done
_RESULT_COLUMNS = 38  # what stands around it: "done", accuracy, bytes, seconds


class Signals:
    """Hears SIGINT and SIGTERM: the first one asks the run to save and stop, a second SIGINT leaves at once.

    Args:
        deadline: on the clock of ``time.monotonic``; from then on the run is asked to stop as by SIGTERM.
    """

    def __init__(self, deadline: float = math.inf) -> None:
        self.number: int | None = None
        self.deadline = deadline

    def listen(self) -> None:
        """Take over both signals for the rest of the process."""
        signal.signal(signal.SIGINT, self._heard)
        signal.signal(signal.SIGTERM, self._heard)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        self.number = number

    def asked(self) -> int | None:
        """The number of the signal that was heard, SIGTERM's after the deadline, or None."""
        return signal.SIGTERM if self.number is None and time.monotonic() >= self.deadline else self.number


class StageConsole:
    """One line per stage: a bar while it runs, what it made when it is done. Without a terminal: plain lines now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Bars(
            TextColumn("{task.description}", table_column=_cut(ratio=2), markup=False),
            BarColumn(bar_width=24 if console.width > _NARROW_COLUMNS else 10),
            TextColumn("{task.percentage:>3.0f} %", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[text]}", style="dim", table_column=_cut(ratio=3), markup=False),
            console=console,
            expand=True,
            transient=True,
            speed_estimate_period=_SPEED_SECONDS,
            disable=not console.is_terminal,
        )
        self._shown: dict[str, TaskID] = {}  # by key: several stages may run at the same time
        self._waits: dict[str, TaskID] = {}  # by what is waited for
        self._told: dict[str, float] = {}

    def _title(self, task: Task) -> str:
        """A stage's title, as wide as the lines of stages that are done leave room for, at every width of terminal."""
        columns = max(20, min(_TITLE_COLUMNS, self.console.width - _RESULT_COLUMNS))
        return f"{text.shorten(task.title, columns - 1):<{columns}}"

    def __enter__(self) -> "StageConsole":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def started(self, task: Task) -> "StageProgress":
        """Show a bar for a stage."""
        self._waited()
        bar = self._shown[task.key] = self.bars.add_task(task.title, total=None, text="")
        return StageProgress(self, bar, task.title)

    def finished(self, task: Task, artifact: Artifact, seconds: float) -> None:
        """As `Watcher`: say what a stage made."""
        self.left(task)
        self.console.print(Text.assemble(("done", "green"), f"  {self._title(task)}{_result(artifact):<22}{seconds:>7.1f} s"))
        for note in artifact.record.get("notes", ()):
            self.console.print(Text.assemble(("note", "yellow"), f"  {task.title}: {note}"))

    def reused(self, task: Task, artifact: Artifact) -> None:
        """Say that a stage was there already."""
        self._waited()
        self.console.print(Text(f"kept  {self._title(task)}{_result(artifact)}", style="dim"))

    def waiting(self, what: str, seconds: float) -> None:
        """Say who is waited for, and for how long: a line at once and, without a terminal, every quarter of a minute."""
        if what not in self._waits:
            self._waits[what] = self.bars.add_task("waiting", total=None, text="")
        if seconds < 1 or (self.bars.disable and seconds - self._told.get(what, 0.0) > _PLAIN_SECONDS):
            self._told[what] = seconds
            self.console.print(Text(f"wait  {_clock(seconds)}  {what}"), soft_wrap=True)
        self.bars.update(self._waits[what], text=f"{_clock(seconds)}  {what}")

    def _waited(self) -> None:
        """What was waited for is there, or another thread says so again within a second."""
        for bar in self._waits.values():
            self.bars.remove_task(bar)
        self._waits.clear()

    def left(self, task: Task) -> None:
        """Show a stage's bar no more."""
        self.bars.remove_task(self._shown.pop(task.key))


class StageProgress:
    """Where one stage says how far it is.

    Args:
        owner: it has the bars.
        bar: the stage's own.
        title: of the stage, for plain lines.
    """

    def __init__(self, owner: StageConsole, bar: TaskID, title: str) -> None:
        self.owner, self.bar, self.title = owner, bar, title
        self.told = time.monotonic()

    def update(self, done: float, total: float, text: str) -> None:
        """As `Progress`: move the bar; without a terminal print a line every quarter of a minute."""
        self.owner.bars.update(self.bar, completed=done, total=total, text=text)
        if self.owner.bars.disable and time.monotonic() - self.told > _PLAIN_SECONDS:
            self.told = time.monotonic()
            share = f"{done / total:.0%}" if total else ""
            left = next(task.time_remaining for task in self.owner.bars.tasks if task.id == self.bar)
            words = [self.title, share, time_left(left), text]
            self.owner.console.print(Text("  ".join(["... ", *filter(None, words)])), soft_wrap=True)


def time_left(seconds: float | None) -> str:
    """What is left of a stage in words: "40 s left", "1 h 05 min left"; nothing where it cannot be told yet."""
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s left"
    return f"{minutes // 60} h {minutes % 60:02} min left" if minutes >= 60 else f"{minutes} min left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _cut(*, ratio: int) -> Column:
    """A column that gets a share of what the others leave, and is cut where that is too little."""
    return Column(ratio=ratio, no_wrap=True, overflow="ellipsis")


def _result(artifact: Artifact) -> str:
    measured = text.recorded(artifact.record)
    size = _shipped_bytes(artifact) or artifact.record.get("stored_bytes")
    return f"{measured:>7}" + (f"{text.size(size):>13}" if size else "") if measured else ""


def _shipped_bytes(artifact: Artifact) -> int | None:
    """Bytes of an export as its run will ship it, and the report say: each ONNX file with the recipe's key; None of others."""
    from tdcompress.onnxfile.metadata import RECIPE_KEY, entry_bytes

    written: int | None = artifact.record.get("onnx_bytes")
    if written is None:
        return None
    stamped = sum(name.endswith(".onnx") for name in artifact.files)
    return written + stamped * entry_bytes(RECIPE_KEY, content_key(""))  # all keys are equally long


def make_console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal, or as ``COLUMNS`` says; 120 columns where there is neither.

    What is said may hold names of files and layers: brackets and colours of rich's own are shown as they are written.
    """
    stream = sys.stderr if stderr else sys.stdout
    known = stream.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return Console(file=stream, width=None if known else 120, markup=False, emoji=False)
