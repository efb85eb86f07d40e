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
        """Upload what changed since the last time, then say so in the claim. Nothing where a file was replaced meanwhile.

        Raises:
            LostError: the claim is another process's.
            StoreError: the server cannot be reached.
        """
        try:
            found = self._sent()
        except FileNotFoundError:
            return  # an old checkpoint was removed: there is a newer one, which the next look finds
        before = self._claim.saved
        if found and found != before:
            self._claim.keep(found)
            named = {saved.object for saved in found.values()}
            self._bucket.remove(self._object(saved) for saved in before.values() if saved.object not in named)

    def drop(self) -> None:
        """Remove all of it: the stage is published. Raises as ``save`` does."""
        self._claim.keep({})
        self._bucket.remove(self._bucket.names(self._prefix))

    def _sent(self) -> dict[str, Saved]:
        """All files of the folder as objects that are there.

        Raises:
            FileNotFoundError: a file was removed or replaced while this looked at it.
        """
        known, found, stamps = self._claim.saved, dict[str, Saved](), dict[str, _Stamp]()
        for path in sorted(path for path in self._folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
            name, stamp = path.relative_to(self._folder).as_posix(), _stamp(path)
            if self._stamps.get(name) == stamp and name in known:
                found[name] = known[name]
            else:
                digest = sha256_file(path)
                if name in known and known[name].sha256 == digest:
                    found[name] = known[name]
                else:
                    found[name] = Saved(object=f"{self._claim.token}-{digest}", sha256=digest)
                    self._bucket.send(path, self._object(found[name]))
                if _stamp(path) != stamp:
                    raise FileNotFoundError(path)
            stamps[name] = stamp
        self._stamps = stamps
        return found

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
