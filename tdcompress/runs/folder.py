"""A run's folder: whose it is, whether it is whole, and how a new one takes its place."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tdcompress.errors import ArtifactError, UserError
from tdcompress.files import set_aside, take_place
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
    for place in (folder, set_aside(folder)):
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
    new = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    form = older_format(folder)
    if form is not None and recipe_key not in held_recipes(folder) and not replace:
        aside = folder.rename(place_aside(folder, form))
        _log.warning(
            "%s: was made by an older version of tdcompress, and is made again; the old one is kept as %s", folder, aside
        )
    take_place(new, folder, _replaced)


def _replaced(folder: Path) -> set[str]:
    """Files of an old folder that a new one does not take over."""
    try:
        return {MANIFEST, *read_manifest(folder).files}
    except ArtifactError:  # it is missing or damaged
        return {MANIFEST}
