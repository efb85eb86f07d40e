"""What a run's folder is made of: the names of its files, its manifest, its report, its links to stages. Needs no torch."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from tdcompress.artifacts import MANIFEST, can_be_named, check_files, read_sealed, sealed
from tdcompress.codec import decode, decode_file, encode
from tdcompress.errors import ArtifactError, UserError
from tdcompress.files import is_there, sha256_file, write_text
from tdcompress.onnxfile.names import SAMPLES
from tdcompress.records.report import Report
from tdcompress.report.files import DENSE_FILE, REPORT, SELECTED_FILE

__all__ = ["DENSE_FILE", "MANIFEST", "RECIPE", "REPORT", "SAMPLES", "SELECTED_FILE", "STAGES", "Links", "RunManifest"]

FORMAT = 2  # 1 had no sha256 of its own
RECIPE, STAGES = "recipe.toml", "stages.json"

Links = Mapping[str, Mapping[str, str]]
"""Row -> stage -> its folder, relative to the run's."""


@dataclass(frozen=True, kw_only=True)
class RunManifest:
    """What a run's folder says of itself.

    Attributes:
        format: of the folder.
        run: its name.
        recipe_key: hash of the resolved recipe.
        files: sha256 by name, of all but the manifest.
    """

    format: int = FORMAT
    run: str
    recipe_key: str
    files: dict[str, str]


def write_manifest(folder: Path, run: str, recipe_key: str) -> None:
    """Hash every file that is in the folder; the manifest comes last.

    Args:
        folder: the run's.
        run: its name.
        recipe_key: hash of the resolved recipe.
    """
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != MANIFEST}
    save_manifest(folder, RunManifest(run=run, recipe_key=recipe_key, files=files))


def save_manifest(folder: Path, manifest: RunManifest) -> None:
    """Publish a manifest, with the sha256 of all that it says."""
    write_text(folder / MANIFEST, json.dumps(sealed(encode(manifest)), indent=1))


def read_manifest(folder: Path) -> RunManifest:
    """Read the manifest of a run's folder; its files are not looked at.

    Raises:
        ArtifactError: there is none, or one of another format, or one that is damaged.
    """
    path = folder / MANIFEST
    said = read_sealed(path, FORMAT, f"; is {folder} a run's folder?")
    try:
        return decode(RunManifest, said, path.stem)
    except ValueError as error:
        raise ArtifactError(f"{path}: not the manifest of a run ({error}); run the recipe again to rebuild it") from None


def read_report(folder: Path) -> Report:
    """The report of a run's folder.

    Raises:
        UserError: no such run, or one that is not finished.
        ArtifactError: a report that cannot be read.
    """
    path = folder / REPORT
    if not path.is_file():
        state = f"has no {REPORT}: run its recipe again to make it" if folder.is_dir() else "no such run"
        raise UserError(f"{folder}: {state}; `tdcompress status` lists the runs")
    return decode_file(Report, path)


def vouched_report(folder: Path) -> tuple[Report, RunManifest]:
    """The report of a run's folder and its manifest, which agree: for whoever believes or goes on with them.

    Raises:
        UserError: no such run, or one that is not finished.
        ArtifactError: a manifest or report that is missing, damaged, changed since it was written, or of another run.
    """
    report, manifest = read_report(folder), read_manifest(folder)
    vouch(folder, manifest, REPORT)
    if (report.run, report.recipe_key) != (manifest.run, manifest.recipe_key):
        raise _damaged(folder, f"it and {REPORT} are of different runs or recipes")
    if unnamed := sorted({row.onnx_file for row in report.rows} - manifest.files.keys()):
        raise _damaged(folder, f"it does not name {unnamed[0]}, which {REPORT} has")
    return report, manifest


def whole_run(folder: Path) -> tuple[Report, RunManifest]:
    """As `vouched_report`; and every file of the folder is what its manifest says.

    Raises:
        UserError: no such run, or one that is not finished.
        ArtifactError: a file that is missing, damaged, or of another run.
    """
    report, manifest = vouched_report(folder)
    check_files(folder, manifest.files)
    return report, manifest


def vouch(folder: Path, manifest: RunManifest, name: str) -> None:
    """Check that a file of a run's folder is what its manifest says.

    Args:
        folder: the run's.
        manifest: of it.
        name: of the file.

    Raises:
        ArtifactError: the file is missing or differs, or the manifest does not name it.
    """
    if name not in manifest.files:
        raise _damaged(folder, f"it does not name {name}")
    check_files(folder, {name: manifest.files[name]})


def _damaged(folder: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{folder / MANIFEST}: is damaged ({why}); run the recipe again to rebuild it")


def held_recipes(folder: Path) -> frozenset[str]:
    """The keys of recipes whose run a folder may hold, by its manifest and by its report; none where neither says one.

    A run whose manifest is damaged, or whose report is of another version, is still a run of its recipe. Where the two do
    not agree, the folder is damaged, and either recipe makes it anew.
    """
    held: set[object] = set()
    with suppress(ArtifactError):
        held.add(read_manifest(folder).recipe_key)
    with suppress(ArtifactError):
        held.add(decode_file(dict[str, Any], folder / REPORT).get("recipe_key"))
    return frozenset(key for key in held if isinstance(key, str))


def older_format(folder: Path) -> int | None:
    """The format of a run's folder that an older version of tdcompress made; None of any other folder."""
    with suppress(ArtifactError):
        said = decode_file(dict[str, Any], folder / MANIFEST)
        form = said.get("format")
        if type(form) is int and 1 <= form < FORMAT and isinstance(said.get("recipe_key"), str):
            return form
    return None


def place_aside(folder: Path, form: int) -> Path:
    """Where a run's folder of an older format is kept, beside the new one: "tiny.format1"; no run can have such a name."""
    first = folder.with_name(f"{folder.name}.format{form}")
    others = (first.with_name(f"{first.name}-{number}") for number in count(2))
    return next(path for path in chain([first], others) if not is_there(path))


def is_aside(folder: Path) -> bool:
    """Whether a folder is what `place_aside` names."""
    return re.fullmatch(r".+\.format\d+(-\d+)?", folder.name) is not None


def save_links(folder: Path, links: Links) -> None:
    """Write which stages each row came from."""
    write_text(folder / STAGES, json.dumps(links, indent=1))


def read_links(folder: Path) -> Links:
    """Which stages each row came from.

    Raises:
        ArtifactError: there is no such file, or it cannot be read.
    """
    return decode_file(dict[str, dict[str, str]], folder / STAGES)


def linked_stages(folder: Path) -> list[Path]:
    """The folders of all stages behind a run that are there; none where the links cannot be read."""
    try:
        links = read_links(folder)
    except ArtifactError:
        return []
    relative = sorted({link for row in links.values() for link in row.values()})
    linked = [folder / link for link in relative if can_be_named(link)]
    return [path.resolve() for path in linked if path.is_dir()]  # first is_dir: a loop of links cannot be resolved


def onnx_files(folder: Path) -> list[Path]:
    """The ONNX files of a run's folder, without hidden ones: macOS leaves "._model.onnx" beside a file that it copies.

    Raises:
        UserError: no such folder, or none in it.
    """
    files = sorted(folder.glob("[!.]*.onnx"))
    if not files:
        found = "a folder without ONNX files" if folder.is_dir() else "no such file or run"
        raise UserError(f"{folder}: {found}; name an ONNX file, or a run that `tdcompress status` lists")
    return files
