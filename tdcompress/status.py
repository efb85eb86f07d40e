"""What runs there are and how far they are, read from their folders. Needs no torch."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tdcompress.artifacts import MANIFEST, check_files
from tdcompress.errors import ArtifactError, UserError
from tdcompress.report.tables import Column, Table


def run_table(root: Path, only: str | None = None) -> Table:
    """One line per run folder: its state, rows, selected row, and when it was made.

    Raises:
        UserError: the one run that is asked for is not there.
    """
    folders = sorted(path.parent for path in root.glob("[!.]*/report.json"))
    if only is not None:
        folders = [folder for folder in folders if folder.name == only]
        if not folders:
            raise UserError(f"{root / only}: no finished run of this name; `tdcompress status` without a name lists all")
    columns = ("run", "state", "rows", "selected", "network", "created")
    return Table(
        title=f"runs in {root}",
        columns=tuple(Column(title=title, align="right" if title == "rows" else "left") for title in columns),
        rows=tuple(_run_row(folder) for folder in folders),
        notes=() if folders else ("none yet: tdcompress run digits",),
    )


def _run_row(folder: Path) -> tuple[str, ...]:
    try:
        report = json.loads((folder / "report.json").read_text())
        network = f"{report['model']} on {report['data']}"
        facts = (str(len(report["rows"])), str(report["selected"] or "none"), network, str(report["created"]))
    except (OSError, ValueError, KeyError, TypeError):
        return folder.name, "damaged: report.json; run the recipe again", "", "", "", ""
    return folder.name, _state(folder), *facts


def _state(folder: Path) -> str:
    try:
        check_files(folder, json.loads((folder / MANIFEST).read_text())["files"])
    except ArtifactError as error:
        return f"damaged: {error}"
    except (OSError, ValueError, KeyError, TypeError):
        return "unfinished; run the recipe again"
    return "complete"


def stage_table(root: Path, only: str | None = None) -> Table:
    """Stages on disk by kind: done, unfinished (a killed run's; they are taken up again), and set aside as damaged."""
    folders = list(_stages_of(root, only)) if only else [path for path in root.glob("stages/*/*") if path.is_dir()]
    counts: dict[str, list[int]] = {}
    for folder in folders:
        kind = 1 if folder.suffix == ".partial" else 2 if folder.suffix == ".damaged" else 0
        counts.setdefault(folder.parent.name, [0, 0, 0])[kind] += 1
    return Table(
        title="stages" + (f" of {only}" if only else ""),
        columns=(
            Column(title="stage"),
            Column(title="done", align="right"),
            Column(title="unfinished", align="right"),
            Column(title="damaged", align="right"),
        ),
        rows=tuple((stage, *map(str, numbers)) for stage, numbers in sorted(counts.items())),
    )


def _stages_of(root: Path, run: str) -> Iterable[Path]:
    try:
        links: dict[str, dict[str, Any]] = json.loads((root / run / "stages.json").read_text())
    except (OSError, ValueError):
        return
    for relative in sorted({link for row in links.values() for link in row.values()}):
        folder = (root / run / str(relative)).resolve()
        if folder.is_dir():
            yield folder
