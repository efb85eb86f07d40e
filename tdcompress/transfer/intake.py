"""Import: numbered parts -> artefacts and unfinished trainings, all checked before the first one is published."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tdcompress.artifacts import MANIFEST, load_artifact
from tdcompress.errors import ArtifactError
from tdcompress.files import fsync_folder, sha256_file
from tdcompress.lineage.versions import RECORDS
from tdcompress.stores.folder import FolderStore
from tdcompress.transfer.bundle import read_bundle
from tdcompress.transfer.items import Item, check_unfinished, newest_step, of_no_use
from tdcompress.transfer.parts import group_parts, join_parts

Outcome = Literal["imported", "already there", "further here", "of no use"]


@dataclass(frozen=True, kw_only=True)
class Imported:
    """One item and what became of it; of what is of no use to any run of this version, why."""

    item: Item
    outcome: Outcome
    why: str = ""


def import_files(root: Path, files: Sequence[Path]) -> list[Imported]:
    """Take in what `export_items` wrote.

    Nothing is published unless all of it is whole and fits what is there. An unfinished training takes the place of one with
    fewer steps, and a finished one that of an unfinished one. What no run of this version would go on from is not taken in.

    Args:
        root: the artifacts folder.
        files: all parts of one or several exports, in any order.

    Raises:
        ArtifactError: a part that is damaged or missing, a file that is not what it should be, or a key that is there with
            other content.
        BusyError: a process works on one of these keys.
    """
    groups = group_parts(files)
    root.mkdir(parents=True, exist_ok=True)
    store = FolderStore(root)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=root) as scratch, ExitStack() as held:
        taken: dict[tuple[str, str], tuple[Item, Path]] = {}
        for number, parts in enumerate(groups):
            whole, folder = Path(scratch) / "bundle.zip", Path(scratch) / str(number)
            join_parts(parts, whole)
            for item in read_bundle(whole, folder, parts[0]):
                _check(item, folder / item.folder)
                if taken.setdefault((item.stage, item.key), (item, folder))[0].files != item.files:
                    raise ArtifactError(f"{item.title} is in two of these exports with different content; import one of them")
            whole.unlink()
        done: list[Imported] = []
        for item, folder in taken.values():
            if why := of_no_use(folder, item):
                done.append(Imported(item=item, outcome="of no use", why=why))
                continue
            held.enter_context(_held(store, item))
            done.append(Imported(item=item, outcome=_outcome(store, item, folder / item.folder)))
        for (item, folder), became in zip(taken.values(), done, strict=True):
            if became.outcome == "imported":
                _publish(store, item, folder / item.folder)
    return done


def _check(item: Item, folder: Path) -> None:
    """The item is what its manifest says, and its key is that of its settings.

    Raises:
        ArtifactError: it is not.
    """
    if not item.finished:
        check_unfinished(folder)
        if newest_step(folder) is None:
            raise ArtifactError(f"{item.title} has no whole checkpoint")
        return
    artifact = load_artifact(folder)
    if {*artifact.files, MANIFEST} != set(item.files):
        raise ArtifactError(f"{item.title} has files that its manifest does not name")


@contextmanager
def _held(store: FolderStore, item: Item) -> Iterator[None]:
    """Own a key; an unfinished folder that holding it made is removed if it stays empty."""
    with store.partial(item.stage, item.key) as partial:
        try:
            yield
        finally:
            with suppress(OSError):
                partial.rmdir()


def _outcome(store: FolderStore, item: Item, new: Path) -> Outcome:
    found = store.find_or_set_aside(item.stage, item.key, RECORDS[item.stage])
    partial = _partial(store, item)
    if item.finished:
        if found is None:
            return "imported"
        same = found.files == load_artifact(new).files
        return "already there" if same else _refuse(item, found.folder)
    if found is not None:
        return "further here"
    ours, theirs = _steps_done(partial), _steps_done(new)
    if ours != theirs:
        return "imported" if theirs > ours else "further here"
    same = all((partial / n).is_file() and sha256_file(partial / n) == file.sha256 for n, file in item.files.items())
    return "already there" if same else _refuse(item, partial)


def _steps_done(folder: Path) -> int:
    step = newest_step(folder)
    return -1 if step is None else step


def _refuse(item: Item, folder: Path) -> Outcome:
    raise ArtifactError(
        f"{item.title} is in {folder} with other content; nothing was imported: move that folder away, or import into another "
        "artifacts folder with --artifacts"
    )


def _publish(store: FolderStore, item: Item, new: Path) -> None:
    partial, final = _partial(store, item), store.folder(item.stage, item.key)
    for folder in {new, *(path.parent for path in new.rglob("*"))}:
        fsync_folder(folder)
    shutil.rmtree(partial)
    new.rename(final if item.finished else partial)
    fsync_folder(final.parent)


def _partial(store: FolderStore, item: Item) -> Path:
    return store.folder(item.stage, item.key).with_name(f"{item.key}.partial")
