"""What can travel: published artefacts, and unfinished trainings with their newest checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdcompress.artifacts import KEY, MANIFEST, SCRATCH, STAGE, content_key, load_artifact, read_artifact
from tdcompress.codec import decode_file
from tdcompress.errors import ArtifactError, UserError
from tdcompress.files import sha256_file
from tdcompress.lineage.versions import check_stage_version, check_usable
from tdcompress.pipeline import TASK
from tdcompress.stores.folder import FolderStore
from tdcompress.train.saved import CHECKPOINTS, manifest_path, newest_whole, steps, tensors_path

_PARTIAL = ".partial"
CARRIED = ("vocabulary",)
"""Stages whose artefacts travel with what was made of them, as an input of this name."""


@dataclass(frozen=True, kw_only=True)
class File:
    """One file: its size in bytes and its sha256."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Item:
    """One folder that travels.

    Attributes:
        stage: the stage that made it.
        key: its content key.
        finished: an artefact, or else a training that goes on from its newest checkpoint.
        files: by relative name.
    """

    stage: str
    key: str
    finished: bool
    files: Mapping[str, File]

    @property
    def folder(self) -> str:
        """Its folder below an artifacts folder."""
        return f"stages/{self.stage}/{self.key}" + ("" if self.finished else _PARTIAL)

    @property
    def title(self) -> str:
        """What people read."""
        return f"{self.stage} {self.key}" + ("" if self.finished else " (unfinished)")


@dataclass(frozen=True, kw_only=True)
class ItemPlace:
    """Where an item may be: named by its stage and key, not yet read."""

    stage: str
    key: str
    finished: bool

    def folder(self, root: Path) -> Path:
        """Its folder, in an artifacts folder."""
        return root / "stages" / self.stage / (self.key if self.finished else f"{self.key}{_PARTIAL}")


def places(root: Path) -> list[ItemPlace]:
    """All artefacts, then what is unfinished of other keys; each by stage and key."""
    found: dict[tuple[str, str], ItemPlace] = {}
    for path in sorted(root.glob("stages/*/*")):  # an artefact comes before what is left of its making
        key = path.name.removesuffix(_PARTIAL)
        if path.is_dir() and KEY.fullmatch(key) and STAGE.fullmatch(path.parent.name):
            found.setdefault((path.parent.name, key), ItemPlace(stage=path.parent.name, key=key, finished=key == path.name))
    return sorted(found.values(), key=lambda place: not place.finished)


def named(there: Sequence[ItemPlace], key: str) -> list[ItemPlace]:
    """The places of a key, or of the beginning of one.

    Raises:
        UserError: none, or several.
    """
    found = [place for place in there if place.key.startswith(key)]
    if not key or len({place.key for place in found}) != 1:
        what = f"begins {len({place.key for place in found})} keys; write more of it" if found else "is no key here"
        raise UserError(f"{key!r} {what}; `tdcompress artifacts list` shows them")
    return found


def with_what_they_need(root: Path, wanted: Sequence[ItemPlace]) -> list[ItemPlace]:
    """Places, and before each one what it cannot be read without and is small: ``CARRIED``; each once.

    Args:
        root: the artifacts folder.
        wanted: what is to travel.

    Raises:
        ArtifactError: a place that does not say what it was made from.
    """
    there = set(places(root))
    found: dict[ItemPlace, None] = {}
    for place in wanted:
        folder = place.folder(root)
        described = folder / MANIFEST if place.finished else folder / SCRATCH / TASK
        inputs = decode_file(dict[str, Any], described).get("inputs") if described.is_file() else None
        keys = inputs if isinstance(inputs, dict) else {}
        needed = (ItemPlace(stage=role, key=str(keys[role]), finished=True) for role in CARRIED if role in keys)
        found |= dict.fromkeys([*(need for need in needed if need in there), place])
    return list(found)


def read_item(store: FolderStore, place: ItemPlace) -> Item | None:
    """What travels of a place; None for an unfinished folder without a whole checkpoint, which is no loss.

    Raises:
        ArtifactError: an artefact that is damaged, or whose key is not that of its settings.
    """
    folder = place.folder(store.root)
    if place.finished:
        artifact = load_artifact(folder)
        names = [*artifact.files, MANIFEST]
    else:
        names = _unfinished_names(folder)
        if not names:
            return None
        check_unfinished(folder)
    files = {name: File(bytes=(folder / name).stat().st_size, sha256=sha256_file(folder / name)) for name in names}
    return Item(stage=place.stage, key=place.key, finished=place.finished, files=files)


def check_unfinished(folder: Path) -> None:
    """Compare an unfinished folder's key with what it says it is.

    Raises:
        ArtifactError: it says nothing, or is the key of something else.
    """
    path = folder / SCRATCH / TASK
    _check_key(folder.name.removesuffix(_PARTIAL), decode_file(dict[str, Any], path), path)


def of_no_use(root: Path, item: Item) -> str | None:
    """Why no run of this version would go on from an item that is whole; None where one would.

    Args:
        root: the artifacts folder that it is in; the reason names its folder below that.
        item: an artefact or an unfinished training.
    """
    folder = root / item.folder
    try:
        if item.finished:
            check_usable(read_artifact(folder))
        else:
            identity = decode_file(dict[str, Any], folder / SCRATCH / TASK)
            check_stage_version(item.stage, identity.get("version"), folder)
    except ArtifactError as error:
        return str(error).replace(str(folder), item.folder)
    return None


def newest_step(folder: Path) -> int | None:
    """The step of an unfinished folder's newest whole checkpoint."""
    return newest_whole(folder / SCRATCH / CHECKPOINTS)


def _check_key(key: str, identity: Any, path: Path) -> None:
    if (found := content_key(identity)) != key:
        raise ArtifactError(f"{path}: describes something whose key is {found}, not {key}")


def _unfinished_names(folder: Path) -> list[str]:
    """All its files, of its checkpoints the newest whole one alone."""
    checkpoints = folder / SCRATCH / CHECKPOINTS
    step = newest_whole(checkpoints)
    if step is None:
        return []
    others = [s for s in steps(checkpoints) if s != step]
    left_out = {path for s in others for path in (manifest_path(checkpoints, s), tensors_path(checkpoints, s))}
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return [path.relative_to(folder).as_posix() for path in paths if path not in left_out]
