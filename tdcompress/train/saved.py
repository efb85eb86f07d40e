"""The files of checkpoints: what they are called, which are there, and whether one is whole. Knows no torch."""

import re
from dataclasses import dataclass
from pathlib import Path

from tdcompress.codec import decode_json
from tdcompress.files import sha256_file

CHECKPOINTS = "checkpoints"  # the folder's name, in a training's scratch folder
_NAME = re.compile(r"step-(\d{9})\.json")


class Damaged(Exception):
    """What is wrong with a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class _Seal:
    bytes: int
    sha256: str


def steps(folder: Path) -> list[int]:
    """Steps that have a manifest, newest first; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted((int(m[1]) for entry in folder.iterdir() if (m := _NAME.fullmatch(entry.name))), reverse=True)


def manifest_path(folder: Path, step: int) -> Path:
    """The manifest of a step: the tensors' size and sha256."""
    return folder / f"step-{step:09d}.json"


def tensors_path(folder: Path, step: int) -> Path:
    """The tensors of a step."""
    return manifest_path(folder, step).with_suffix(".safetensors")


def check(folder: Path, step: int) -> None:
    """Compare a checkpoint with its manifest.

    Raises:
        Damaged: it cannot be read, or differs.
    """
    path = tensors_path(folder, step)
    try:
        manifest = decode_json(_Seal, manifest_path(folder, step).read_bytes(), "manifest")
        expected = (manifest.bytes, manifest.sha256)
        found = (path.stat().st_size, sha256_file(path))
    except (OSError, ValueError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error
    if found != expected:
        raise Damaged(f"{path.name} does not match its manifest")


def newest_whole(folder: Path) -> int | None:
    """The newest step whose checkpoint is whole, or None."""
    for step in steps(folder):
        try:
            check(folder, step)
        except Damaged:
            continue
        return step
    return None
