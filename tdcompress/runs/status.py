"""What runs there are and how far they are, read from their folders. Needs no torch."""

import time
from collections.abc import Iterable
from pathlib import Path

from tdcompress.artifacts import KEY, STAGE
from tdcompress.errors import ArtifactError, UserError
from tdcompress.files import StrPath
from tdcompress.lineage.versions import UNUSABLE, is_usable
from tdcompress.report.tables import Table, number_columns, numbered, text_columns
from tdcompress.runs.manifest import MANIFEST, REPORT, held_recipes, is_aside, linked_stages, read_report, whole_run
from tdcompress.runs.unfinished import Unfinished, Unreadable, unfinished_runs

_NO_RUN = "none yet: tdcompress run digits"


def status_tables(root: Path, only: str | None = None, place: StrPath | None = None) -> tuple[Table, ...]:
    """All that ``status`` shows: finished runs, unfinished ones, and stages; each only where there is something to show.

    Args:
        root: the artifacts folder.
        only: the name of one run.
        place: what ``root`` is the cache of, where it is one.

    Raises:
        UserError: the one run that is asked for is not there.
    """
    folders = sorted(folder for folder in root.glob("[!.]*") if _is_run(folder) and not is_aside(folder))
    unfinished = unfinished_runs(root)
    if only is not None:
        folders = [folder for folder in folders if folder.name == only]
        unfinished = [run for run in unfinished if run.run == only]
        if not folders and not unfinished:
            raise UserError(f"{place or root}/{only}: no run of this name; `tdcompress status` without a name lists all")
    stages = stage_table(root, only)
    tables = (
        *((run_table(place or root, folders, stages=bool(stages.rows)),) if folders or not unfinished else ()),
        *((unfinished_table(unfinished, time.time()),) if unfinished else ()),
        stages,
    )
    return tuple(table for table in tables if table.rows or table.notes)


def run_table(place: StrPath, folders: Iterable[Path], *, stages: bool) -> Table:
    """One line per run folder: its state, rows, selected row, and when it was made.

    Args:
        place: where they are.
        folders: theirs.
        stages: whether there are stages on disk, imported ones perhaps; what is said without any run goes on from them.
    """
    none = "none yet, but the stages below: the recipe that they are of goes on from them" if stages else _NO_RUN
    rows = tuple(_run_row(folder) for folder in folders)
    return Table(
        title=f"runs in {place}",
        columns=(*text_columns("run", "state"), *number_columns("rows"), *text_columns("selected", "network", "created")),
        rows=rows,
        notes=() if rows else (none,),
    )


def unfinished_table(runs: Iterable[Unfinished | Unreadable], now: float) -> Table:
    """One line per run that is not finished: how far it is, and how it goes on.

    Args:
        runs: what is not finished.
        now: seconds since the epoch.
    """
    runs = list(runs)
    ways = {run.run: _way_on(run) for run in runs}
    notes = numbered(ways.values())
    return Table(
        title="unfinished runs",
        columns=(*text_columns("run", "tasks done", "last written", "state"), *number_columns("then")),
        rows=tuple((run.run, *_how_far(run, now), notes[ways[run.run]]) for run in runs),
        notes=tuple(note for note in notes if note),
    )


def _how_far(run: Unfinished | Unreadable, now: float) -> tuple[str, str, str]:
    """Tasks done, when anything was last written, and the state."""
    running = f"running: {run.owner}" if run.owner else ""
    if isinstance(run, Unreadable):
        return "", "", running or "damaged or old"
    touched = "nothing yet" if run.touched is None else ago(now - run.touched)
    return f"{run.done} of {len(run.intent.tasks)}", touched, running or "stopped"


def _way_on(run: Unfinished | Unreadable) -> str:
    if run.owner:
        return ""
    if isinstance(run, Unreadable):
        return f"{run.path} cannot be read: go on with the recipe's own command (or forget it: rm {run.path})"
    return f"go on with: {run.intent.command} (or forget it: rm {run.path})"


def ago(seconds: float) -> str:
    """How long ago, in one unit: "40 s ago", "12 min ago", "3 h ago", "5 days ago"."""
    for unit, length, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < until:
            return f"{max(0, seconds) / length:.0f} {unit} ago"
    return f"{seconds / 86400:.0f} days ago"


def _is_run(folder: Path) -> bool:
    """Whether a folder is, or was, a run's: a report or a manifest alone says so too."""
    return (folder / REPORT).is_file() or bool(held_recipes(folder))


def _run_row(folder: Path) -> tuple[str, ...]:
    try:
        report = read_report(folder)
    except UserError:
        return folder.name, f"damaged: {REPORT} is missing; run the recipe again", "", "", "", ""
    except ArtifactError as error:
        return folder.name, str(error), "", "", "", ""
    network = f"{report.model} on {report.data}"
    return folder.name, _state(folder), str(len(report.rows)), report.selected or "none", network, report.created


def _state(folder: Path) -> str:
    if not (folder / MANIFEST).is_file():
        return "unfinished; run the recipe again"
    try:
        whole_run(folder)
    except (ArtifactError, UserError) as error:  # the latter where it is laid out anew at this moment
        return f"damaged: {error}"
    return "complete"


def stage_table(root: Path, only: str | None = None) -> Table:
    """Stages on disk by kind: done; unfinished: at work, or a killed run's to be taken up again; of no use to this version."""
    folders = linked_stages(root / only) if only else [path for path in root.glob("stages/*/*") if path.is_dir()]
    counts: dict[str, list[int]] = {}
    for folder in folders:
        if STAGE.fullmatch(folder.parent.name) and KEY.fullmatch(folder.name.partition(".")[0]):
            counts.setdefault(folder.parent.name, [0, 0, 0])[_kind(folder)] += 1
    return Table(
        title="stages" + (f" of {only}" if only else ""),
        columns=(*text_columns("stage"), *number_columns("done", "unfinished", UNUSABLE)),
        rows=tuple((stage, *map(str, numbers)) for stage, numbers in sorted(counts.items())),
    )


def _kind(folder: Path) -> int:
    """The column of a stage's folder."""
    if folder.suffix == ".partial":
        return 1
    return 0 if is_usable(folder) else 2
