"""What an unfinished stage goes on from, elsewhere: its checkpoints, uploaded while it is made.

The claim names the files of the newest upload, so it is all there or not at all, and only the claim's owner can change it. A file
is an object of its own, by owner and hash: nobody overwrites what another one's claim names.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from tdcompress.files import sha256_file, write_text
from tdcompress.stores.bucket import Bucket
from tdcompress.stores.claims import Claim, Saved

_OWNER = ".claim"  # in the folder: the token of the claim under which it was filled
_log = logging.getLogger(__name__)
_Stamp = tuple[int, int]


class Scratch:
    """The scratch folder of a stage that this process makes.

    Args:
        bucket: where it is kept.
        prefix: of its objects.
        folder: the folder; its files are replaced by renames, never changed in place.
        claim: of the stage.
    """

    def __init__(self, bucket: Bucket, prefix: str, folder: Path, claim: Claim) -> None:
        self._bucket, self._prefix, self._folder, self._claim = bucket, prefix, folder, claim
        self._stamps: dict[str, _Stamp] = {}

    def bring(self) -> None:
        """Fill the folder with what the last owner saved, unless that was this folder itself, which then has more."""
        before = self._claim.before
        marker = self._folder / _OWNER
        ours = before is not None and marker.is_file() and marker.read_text(encoding="utf-8") == before.token
        if self._claim.saved and not ours:
            self._fetch(self._claim.saved)
        write_text(marker, self._claim.token)

    def save(self) -> None:
        """Upload what changed since the last time, then say so in the claim.

        Files that are removed or replaced meanwhile are left out: checkpoints are, while a slow upload goes on.

        Raises:
            LostError: the claim is another process's.
            StoreError: the server cannot be reached.
        """
        before, found, stamps = self._claim.saved, dict[str, Saved](), dict[str, _Stamp]()
        paths = [path for path in self._folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        for path in sorted(paths, reverse=True):  # the newest checkpoint first
            name = path.relative_to(self._folder).as_posix()
            try:
                stamps[name], found[name] = self._sent(path, before.get(name), self._stamps.get(name))
            except FileNotFoundError:
                continue
        self._stamps = stamps
        if found and found != before:
            self._claim.keep(found)
            named = {saved.object for saved in found.values()}
            self._bucket.remove(self._object(saved) for saved in before.values() if saved.object not in named)

    def drop(self) -> None:
        """Remove all of it: the stage is published. Raises as ``save`` does."""
        self._claim.keep({})
        self._bucket.remove(self._bucket.names(self._prefix))

    def _sent(self, path: Path, known: Saved | None, stamp: _Stamp | None) -> tuple[_Stamp, Saved]:
        """A file as an object that is there, and the file's size and time; ``known`` with ``stamp`` is what it was.

        Raises:
            FileNotFoundError: it was removed or replaced meanwhile.
        """
        now = _stamp(path)
        if known is not None and stamp == now:
            return now, known
        digest = sha256_file(path)
        if known is None or known.sha256 != digest:
            known = Saved(object=f"{self._claim.token}-{digest}", sha256=digest)
            self._bucket.send(path, self._object(known))
        if _stamp(path) != now:
            raise FileNotFoundError(path)
        return now, known

    def _fetch(self, files: Mapping[str, Saved]) -> None:
        new = self._folder.with_name(f".{self._folder.name}.fetched")
        shutil.rmtree(new, ignore_errors=True)
        for name, saved in files.items():
            path = new / name
            outside = not path.resolve().is_relative_to(new.resolve())
            if outside or not self._bucket.fetch(self._object(saved), path) or sha256_file(path) != saved.sha256:
                _log.warning("%s/%s: what was saved of it is damaged; it is made from the start", self._bucket.url, self._prefix)
                shutil.rmtree(new, ignore_errors=True)
                return
        shutil.rmtree(self._folder, ignore_errors=True)
        new.rename(self._folder)

    def _object(self, saved: Saved) -> str:
        return f"{self._prefix}/{saved.object}"


def _stamp(path: Path) -> _Stamp:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
