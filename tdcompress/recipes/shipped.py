"""The recipes that come with the package: the repository's ``pipelines/``, installed under the environment's share folder."""

import itertools
import re
import shutil
import sysconfig
from pathlib import Path

from tdcompress.errors import UserError, did_you_mean

DEMO = "digits"


def recipes_folder() -> Path:
    """Where the shipped recipes lie: beside the package in a checkout, under ``share/`` of an installation.

    Raises:
        UserError: neither is there.
    """
    beside = Path(__file__).resolve().parents[2] / "pipelines"
    installed = Path(sysconfig.get_path("data")) / "share" / "tdcompress" / "pipelines"
    for folder in (beside, installed):
        if folder.is_dir():
            return folder
    raise UserError(f"the shipped recipes are missing ({installed}); install tdcompress again")


def shipped_recipes() -> dict[str, str]:
    """Name -> first sentence of the comment at the top, of each shipped recipe: the demo, the others, then those of folders."""
    folder = recipes_folder()
    found = {}
    paths = sorted(folder.rglob("[!.]*.toml"), key=lambda path: (path.stem != DEMO, path.parent != folder, path))
    for path in paths:
        found[path.relative_to(folder).with_suffix("").as_posix()] = _first_sentence(path.read_text(encoding="utf-8"))
    return found


def _first_sentence(text: str) -> str:
    """Of the comment that a recipe begins with, which may run over several lines."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return re.split(r"(?<=\.)\s", " ".join(line.strip("# ") for line in comment), maxsplit=1)[0]


def find_recipe(path: Path) -> Path:
    """The file of a recipe given by path or by the name of a shipped one.

    Raises:
        UserError: neither.
    """
    if path.is_file():
        return path
    if path.name and path.suffix in ("", ".toml"):  # "." and "/" have no name
        shipped = recipes_folder() / path.with_suffix(".toml")
        if shipped.is_file():
            return shipped
    known = {name: None for shipped in shipped_recipes() for name in (*Path(shipped).parts[:-1], shipped)}
    raise UserError(f"{path}: no such recipe{did_you_mean(path.stem, known)}; `tdcompress recipes` lists the shipped ones")


def find_recipes(path: Path) -> list[Path]:
    """The files of a recipe, or of a folder of recipes, given by path or by the name of a shipped one.

    Raises:
        UserError: neither, or a folder without any.
    """
    if path.is_file():
        return [path]
    for folder in (path, recipes_folder() / path):
        if folder.is_dir():
            found = sorted(folder.glob("[!.]*.toml"))  # macOS leaves "._a.toml" beside a file that it copies
            if not found:
                raise UserError(f"{folder}: a folder without recipes (*.toml)")
            return found
    return [find_recipe(path)]


def copy_recipe(name: str, folder: Path) -> Path:
    """Copy a shipped recipe into a folder.

    Raises:
        UserError: no such recipe, or a file of that name is there.
    """
    known = shipped_recipes()
    if name not in known:
        raise UserError(f"{name}: no shipped recipe{did_you_mean(name, known)}")
    target = folder / f"{Path(name).name}.toml"
    if target.exists():
        raise UserError(f"{target}: is there already; remove it, or copy to another folder")
    shutil.copyfile(recipes_folder() / f"{name}.toml", target)
    return target
