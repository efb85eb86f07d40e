"""Checkpoints: safetensors and JSON, published atomically, checked before they are parsed, newest complete one first.

A checkpoint is ``step-000000123.safetensors`` (tensors, and a JSON header in its metadata) and ``step-000000123.json``, the
manifest with the sha256 of the former, written last. What has no manifest is not a checkpoint.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from tdcompress.files import sha256_file, write_bytes

FORMAT = 1
KEPT = 2
_NAME = re.compile(r"step-(\d{9})\.json")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that a training needs to go on.

    Attributes:
        step: optimizer steps done.
        tensors: by name; on the CPU when loaded.
        header: JSON values.
    """

    step: int
    tensors: Mapping[str, Tensor]
    header: Mapping[str, Any]


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Publish a checkpoint and remove all but the newest two.

    A kill at any moment leaves every earlier checkpoint intact, and this one complete or absent.

    Raises:
        OSError: no space, no permission.
    """
    header = json.dumps({"format": FORMAT, "step": checkpoint.step, **checkpoint.header}, allow_nan=False)
    # A copy each: tied tensors share memory, which safetensors refuses, and channels_last is not its order.
    tensors = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in checkpoint.tensors.items()
    }
    content = save(tensors, {"header": header})
    stem = f"step-{checkpoint.step:09d}"
    write_bytes(folder / f"{stem}.safetensors", content)
    manifest = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_bytes(folder / f"{stem}.json", json.dumps(manifest).encode())
    for step in _steps(folder)[KEPT:]:
        _remove(folder, step)


def read_newest(folder: Path) -> Checkpoint | None:
    """The newest complete checkpoint by step number, or None where there is none.

    A damaged checkpoint is reported as a warning of this module's logger and removed, and the one before it is used.
    """
    if not folder.is_dir():
        return None
    for step in _steps(folder):
        try:
            return _read(folder, step)
        except _Damaged as damage:
            _log.warning("checkpoint %s of step %d is damaged (%s); going back to an earlier one", folder, step, damage)
            _remove(folder, step)
    return None


def discard(folder: Path) -> None:
    """Remove every checkpoint in ``folder``, once what they led to is published."""
    if folder.is_dir():
        for step in _steps(folder):
            _remove(folder, step)
        sweep(folder)


def sweep(folder: Path) -> None:
    """Remove what a killed run left: files that were never published, and tensors without a manifest."""
    if not folder.is_dir():
        return
    complete = {f"step-{step:09d}.safetensors" for step in _steps(folder)}
    for entry in folder.iterdir():
        unpublished = entry.name.startswith(".step-") and entry.suffix == ".tmp"
        if unpublished or (entry.suffix == ".safetensors" and entry.name not in complete):
            entry.unlink()


class _Damaged(Exception):
    """What is wrong with a checkpoint."""


def _read(folder: Path, step: int) -> Checkpoint:
    path = folder / f"step-{step:09d}.safetensors"
    try:
        manifest = json.loads(path.with_suffix(".json").read_bytes())
        expected = (manifest["bytes"], manifest["sha256"])
        found = (path.stat().st_size, sha256_file(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _Damaged(f"{type(error).__name__}: {error}") from error
    if found != expected:
        raise _Damaged(f"{path.name} does not match its manifest")
    with safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {})["header"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if header.pop("step") != step or header.pop("format") != FORMAT:
        raise _Damaged(f"{path.name} is of another step or format")
    return Checkpoint(step=step, tensors=tensors, header=header)


def _steps(folder: Path) -> list[int]:
    """Steps that have a manifest, newest first."""
    return sorted((int(m[1]) for entry in folder.iterdir() if (m := _NAME.fullmatch(entry.name))), reverse=True)


def _remove(folder: Path, step: int) -> None:
    # the manifest first: without it the rest is a leftover
    (folder / f"step-{step:09d}.json").unlink(missing_ok=True)
    (folder / f"step-{step:09d}.safetensors").unlink(missing_ok=True)
