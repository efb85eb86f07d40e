"""Export: items of an artifacts folder -> numbered parts."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tdcompress.errors import UserError
from tdcompress.stores.folder import FolderStore
from tdcompress.transfer.bundle import bundle_bytes, write_bundle
from tdcompress.transfer.items import Item, ItemPlace, of_no_use, read_item, with_what_they_need
from tdcompress.transfer.parts import OVERHEAD, write_parts

SMALLEST_PART = 64 * 1024
_LIST_BYTES = 1024  # of a bundle without items


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote, and what it did not.

    Attributes:
        files: the parts.
        items: what is in them.
        left_out: what there was no room for.
        of_no_use: what no run of this version would go on from: why, of each.
    """

    files: tuple[Path, ...]
    items: tuple[Item, ...]
    left_out: tuple[Item, ...]
    of_no_use: tuple[str, ...]


def export_items(root: Path, wanted: Sequence[ItemPlace], target: Path, part_bytes: int, max_parts: int = 1000) -> Exported:
    """Pack artefacts and unfinished trainings; what is packed stays where it is.

    Args:
        root: the artifacts folder.
        wanted: what to pack, with what it cannot be read without; where there is not room for all, those that come first.
            What no run of this version would go on from stays behind.
        target: the parts are ``target`` with .000.tdca, .001.tdca, ... appended.
        part_bytes: the most that a part may have.
        max_parts: the most parts.

    Raises:
        UserError: nothing to pack, parts too small, parts of that name that are there, or no room for a single item.
        BusyError: a process works on an unfinished training.
        ArtifactError: one that is damaged.
    """
    if part_bytes < SMALLEST_PART:
        raise UserError(f"--part-size: {part_bytes:,} bytes are too few, {SMALLEST_PART:,} are the least")
    store = FolderStore(root)
    wanted = with_what_they_need(root, wanted)
    with ExitStack() as held:
        for place in wanted:
            if not place.finished:
                held.enter_context(store.partial(place.stage, place.key))
        whole = [item for place in wanted if (item := read_item(store, place)) is not None]
        reasons = {item.folder: why for item in whole if (why := of_no_use(root, item)) is not None}
        items = [item for item in whole if item.folder not in reasons]
        if not items:
            none = "no artefact, and no training with a checkpoint"
            raise UserError(f"{root}: there is nothing to export: {' and '.join(reasons.values()) or none}")
        packed = _fitting(items, max_parts * (part_bytes - OVERHEAD) - _LIST_BYTES)
        left_out = tuple(item for item in items if item not in packed)
        if not packed:
            raise UserError(f"{left_out[0].title} has {bundle_bytes(left_out[0]):,} bytes: raise --part-size or --max-parts")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as folder:
            bundle = Path(folder) / "bundle.zip"
            write_bundle(packed, root, bundle)
            files = write_parts(bundle, target, part_bytes)
    return Exported(files=tuple(files), items=tuple(packed), left_out=left_out, of_no_use=tuple(reasons.values()))


def _fitting(items: Sequence[Item], room: int) -> list[Item]:
    packed = []
    for item in items:
        size = bundle_bytes(item)
        if size <= room:
            packed.append(item)
            room -= size
    return packed
