"""What a run's folder is made of: the names of its files, its manifest, its report, its links to stages. Needs no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdcompress.artifacts import MANIFEST, can_be_named
from tdcompress.codec import decode_file, encode
from tdcompress.errors import ArtifactError, UserError
from tdcompress.files import sha256_file, write_text
from tdcompress.records import Report
from tdcompress.report.join import DENSE_FILE, SELECTED_FILE
from tdcompress.report.write import REPORT

__all__ = ["DENSE_FILE", "MANIFEST", "RECIPE", "REPORT", "SAMPLES", "SELECTED_FILE", "STAGES", "RunManifest"]

FORMAT = 1
SAMPLES, RECIPE, STAGES = "samples.npz", "recipe.toml", "stages.json"


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
    """Publish a manifest."""
    write_text(folder / MANIFEST, json.dumps(encode(manifest), indent=1))


def read_manifest(folder: Path) -> RunManifest:
    """Read the manifest of a run's folder; its files are not looked at.

    Raises:
        ArtifactError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    try:
        manifest = decode_file(RunManifest, path)
    except ArtifactError as error:
        raise ArtifactError(f"{error}; is {folder} a run's folder?") from None
    if manifest.format != FORMAT:
        raise ArtifactError(f"{path}: format {manifest.format}, this version reads {FORMAT}; run the recipe again to rebuild it")
    return manifest


def read_report(folder: Path) -> Report:
    """The report of a run's folder.

    Raises:
        UserError: no such run, or one that is not finished.
        ArtifactError: a report that cannot be read.
    """
    path = folder / REPORT
    if not path.is_file():
        state = f"has no {REPORT} yet: run its recipe again to finish it" if folder.is_dir() else "no such run"
        raise UserError(f"{folder}: {state}; `tdcompress status` lists the runs")
    return decode_file(Report, path)


def held_recipe(folder: Path) -> str | None:
    """The key of the recipe whose run a folder holds, by its manifest, or else by its report alone; None where neither says it.

    A run whose manifest is damaged, or whose report is of another version, is still a run of its recipe.
    """
    try:
        return read_manifest(folder).recipe_key
    except ArtifactError:
        try:
            key = decode_file(dict[str, Any], folder / REPORT).get("recipe_key")
        except ArtifactError:
            return None
    return key if isinstance(key, str) else None


def save_links(folder: Path, links: Mapping[str, Mapping[str, str]]) -> None:
    """Write which stages each row came from.

    Args:
        folder: the run's.
        links: row -> stage -> its folder, relative to this one.
    """
    write_text(folder / STAGES, json.dumps(links, indent=1))


def linked_stages(folder: Path) -> list[Path]:
    """The folders of all stages behind a run that are there; none where the links cannot be read."""
    try:
        links = decode_file(dict[str, dict[str, str]], folder / STAGES)
    except ArtifactError:
        return []
    relative = sorted({link for row in links.values() for link in row.values()})
    linked = [folder / link for link in relative if can_be_named(link)]
    return [path.resolve() for path in linked if path.is_dir()]  # first is_dir: a loop of links cannot be resolved


def onnx_files(folder: Path) -> list[Path]:
    """The ONNX files of a run's folder.

    Raises:
        UserError: no such folder, or none in it.
    """
    files = sorted(folder.glob("*.onnx"))
    if not files:
        found = "a folder without ONNX files" if folder.is_dir() else "no such file or run"
        raise UserError(f"{folder}: {found}; name an ONNX file, or a run that `tdcompress status` lists")
    return files
