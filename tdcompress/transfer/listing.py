"""What an artifacts folder holds, as a table."""

from pathlib import Path
from typing import Any

from tdcompress.artifacts import SCRATCH
from tdcompress.codec import decode_file
from tdcompress.errors import ArtifactError
from tdcompress.lineage.versions import UNUSABLE, read_usable
from tdcompress.pipeline import TASK
from tdcompress.report import text
from tdcompress.report.tables import Table, number_columns, text_columns
from tdcompress.transfer.items import ItemPlace, newest_step, places


def artifacts_table(root: Path) -> Table:
    """Stage, key, state, what it is and bytes of every artefact and unfinished stage."""
    columns = (*text_columns("stage", "key", "state", "what"), *number_columns("bytes"))
    rows = tuple(_row(root, place) for place in places(root))
    return Table(title="", columns=columns, rows=rows, notes=() if rows else (f"{root}: none yet",))


def _row(root: Path, place: ItemPlace) -> tuple[str, ...]:
    folder = place.folder(root)
    state, described = _finished(folder) if place.finished else _unfinished(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return place.stage, place.key, state, _what(described), text.size(size)


def _finished(folder: Path) -> tuple[str, dict[str, Any]]:
    try:
        artifact = read_usable(folder)
    except ArtifactError:
        return UNUSABLE, {}
    return "finished", {"settings": artifact.settings, "record": artifact.record}


def _unfinished(folder: Path) -> tuple[str, dict[str, Any]]:
    step = newest_step(folder)
    try:
        described = decode_file(dict[str, Any], folder / SCRATCH / TASK)
    except ArtifactError:
        described = {}
    return "unfinished" if step is None else f"step {step}", described


def _what(described: dict[str, Any]) -> str:
    settings = _table(described.get("settings"))
    tables = ("model", "method") if "model" in settings else ("data",)
    named = [_table(settings.get(table)).get("name") for table in tables]
    words = [*(name for name in named if isinstance(name, str)), *([f"seed {settings['seed']}"] if "seed" in settings else [])]
    measured = text.recorded(_table(described.get("record")))
    return " ".join([*words, *([measured] if measured else [])])


def _table(value: Any) -> dict[str, Any]:
    """A table of a manifest that nothing has checked yet; empty where it is none."""
    return value if isinstance(value, dict) else {}
