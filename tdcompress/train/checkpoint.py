"""Checkpoints: safetensors and JSON, published atomically, checked before they are parsed, newest complete one first.

A checkpoint is ``step-000000123.safetensors`` (tensors, and a JSON header in its metadata) and ``step-000000123.json``, the
manifest with the sha256 of the former, written last. What has no manifest is not a checkpoint.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tdcompress.codec import check_format, decode, decode_json, encode
from tdcompress.errors import one_line
from tdcompress.files import write_bytes
from tdcompress.train.saved import Damaged, check, manifest_path, steps, tensors_path

FORMAT = 3
KEPT = 2
_log = logging.getLogger(__name__)

H = TypeVar("H")


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Generic[H]):
    """All that a training needs to go on.

    Attributes:
        step: optimizer steps done.
        tensors: by name, of any shape; on the CPU when loaded.
        header: a record.
    """

    step: int
    tensors: Mapping[str, Tensor]
    header: H


def write(folder: Path, checkpoint: Checkpoint[Any]) -> None:
    """Publish a checkpoint and remove all but the newest two.

    A kill at any moment leaves every earlier checkpoint intact, and this one complete or absent.

    Raises:
        OSError: no space, no permission.
    """
    header = json.dumps({"format": FORMAT, "step": checkpoint.step, **encode(checkpoint.header)})
    # A copy each: tied tensors share memory, which safetensors refuses, and channels_last is not its order.
    tensors = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in checkpoint.tensors.items()
    }
    content = save(tensors, {"header": header})
    write_bytes(tensors_path(folder, checkpoint.step), content)
    manifest = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_bytes(manifest_path(folder, checkpoint.step), json.dumps(manifest).encode())
    for step in steps(folder)[KEPT:]:
        _remove(folder, step)


def read_newest(folder: Path, kind: type[H]) -> Checkpoint[H] | None:
    """The newest complete checkpoint by step number, or None where there is none.

    A checkpoint that is damaged, or whose header is another record, is reported as a warning of this module's logger and removed,
    and the one before it is used.

    Args:
        folder: of the checkpoints.
        kind: what their header is.
    """
    for step in steps(folder):
        try:
            return _read(folder, step, kind)
        except Damaged as damage:
            _log.warning("checkpoint %s of step %d is damaged (%s); going back to an earlier one", folder, step, damage)
            _remove(folder, step)
    return None


def sweep(folder: Path) -> None:
    """Remove what a killed run left: files that were never published, and tensors without a manifest."""
    if not folder.is_dir():
        return
    complete = {tensors_path(folder, step).name for step in steps(folder)}
    for entry in folder.iterdir():
        unpublished = entry.name.startswith(".step-") and entry.suffix == ".tmp"
        if unpublished or (entry.suffix == ".safetensors" and entry.name not in complete):
            entry.unlink()


def _read(folder: Path, step: int, kind: type[H]) -> Checkpoint[H]:
    check(folder, step)
    path = tensors_path(folder, step)
    try:
        with safe_open(path, framework="pt") as file:
            said = decode_json(dict[str, Any], (file.metadata() or {}).get("header", ""), "header")
            check_format(said, "format", FORMAT)
            if said.get("step") != step:
                raise Damaged(f"{path.name} is of another step")
            header = decode(kind, {name: value for name, value in said.items() if name not in ("format", "step")}, "header")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError) as error:
        raise Damaged(f"{path.name}: {one_line(error)}") from None
    return Checkpoint(step=step, tensors=tensors, header=header)


def _remove(folder: Path, step: int) -> None:
    # the manifest first: without it the rest is a leftover
    manifest_path(folder, step).unlink(missing_ok=True)
    tensors_path(folder, step).unlink(missing_ok=True)
