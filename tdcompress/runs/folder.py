"""A run's folder: whose it is, whether it is whole, and how a new one takes its place."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tdcompress.errors import ArtifactError, UserError
from tdcompress.files import fsync_folder
from tdcompress.records.report import Report
from tdcompress.runs.manifest import (
    MANIFEST,
    Links,
    held_recipes,
    older_format,
    place_aside,
    read_links,
    read_manifest,
    vouched_report,
    whole_run,
)

_log = logging.getLogger(__name__)


def refuse_another_recipe(folder: Path, recipe_key: str, replace: bool) -> None:
    """Protect a finished run from a recipe of the same name, and what is no run from any.

    A folder of an older format is nobody's: nothing reads it any more, and `renewed` keeps it beside the new one.

    Args:
        folder: the run's.
        recipe_key: of the recipe that is to be run.
        replace: whether another recipe's run may go.

    Raises:
        UserError: the folder holds a run of another resolved recipe, or something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    held = held_recipes(folder)
    if older_format(folder) is not None:
        return
    if not held:
        raise UserError(f"{folder} is there and holds no run; give this one another name with --set name=..., or move it away")
    if recipe_key not in held and not replace:
        raise UserError(
            f"{folder} holds the run of another recipe (or of other settings, or by another version of tdcompress) named "
            f"{folder.name!r}; give this one a name of its own with --set name=..., or replace the old one with --replace"
        )


def finished_report(folder: Path, recipe_key: str, links: Links) -> Report | None:
    """The report of a run folder that is complete, undamaged, and made from these very stages, else None.

    Args:
        folder: the run's.
        recipe_key: of the recipe. It knows no version of a stage; the links do.
        links: to the stages that the folder has to come from.
    """
    try:
        report, manifest = whole_run(folder)
        return report if manifest.recipe_key == recipe_key and read_links(folder) == links else None
    except (ArtifactError, UserError):
        return None


def earlier_report(folder: Path, recipe_key: str) -> tuple[Report, dict[str, str]] | None:
    """The report that a run's folder holds from the same recipe, and the sha256 of its files; other files may be damaged.

    None where there is none, or where it cannot be trusted.
    """
    for place in (folder, _set_aside(folder)):
        try:
            report, manifest = vouched_report(place)
            if manifest.recipe_key == recipe_key:
                return report, manifest.files
        except (ArtifactError, UserError):
            continue
    return None


@contextmanager
def renewed(folder: Path, recipe_key: str, replace: bool) -> Iterator[Path]:
    """An empty folder that takes the run folder's place when the block is done; until then the old one is as it was.

    Files of the old folder that its manifest does not name (a comparison, somebody's notes) are taken over. One of an older
    format may be another recipe's: unless its key is this one's, it is kept as a whole, beside the new one.

    Args:
        folder: the run's.
        recipe_key: of the recipe that is run.
        replace: whether another recipe's run may go.
    """
    new, old = folder.with_name(f".{folder.name}.partial"), _set_aside(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    fsync_folder(new)
    form = older_format(folder)
    if form is not None and recipe_key not in held_recipes(folder) and not replace:
        aside = folder.rename(place_aside(folder, form))
        _log.warning(
            "%s: was made by an older version of tdcompress, and is made again; the old one is kept as %s", folder, aside
        )
    if folder.exists():
        _take_over(old, folder)  # what a run that was killed below left
        folder.rename(old)
    new.rename(folder)
    fsync_folder(folder.parent)
    _take_over(old, folder)


def _set_aside(folder: Path) -> Path:
    """Where the old folder is while the new one takes its place."""
    return folder.with_name(f".{folder.name}.old")


def _take_over(old: Path, folder: Path) -> None:
    if not old.exists():
        return
    try:
        replaced = {MANIFEST, *read_manifest(old).files}
    except ArtifactError:  # it is missing or damaged
        replaced = {MANIFEST}
    for path in old.iterdir():
        if path.name not in replaced and not (folder / path.name).exists():
            path.rename(folder / path.name)
    shutil.rmtree(old)
