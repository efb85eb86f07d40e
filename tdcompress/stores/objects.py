"""Artefacts in object storage, for machines that share no file system.

Below the URL: ``stages/<stage>/<key>/`` and ``runs/<name>/`` hold files by their hash and a manifest, which comes last;
``claims/`` who makes what; ``scratch/`` what an unfinished stage goes on from. Stages and runtimes need files, so a folder of
this machine is the cache. What is read is downloaded, checked, and used from there; what is made is made there.
"""

import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from tdcompress.artifacts import KEY, MANIFEST, SCRATCH, Artifact, HashMemory, check_files, find_by_key, seal
from tdcompress.codec import parse_json
from tdcompress.errors import ArtifactError, LostError, StoreError
from tdcompress.files import cache_folder, remove, take_place
from tdcompress.stores.bucket import Bucket, Object, to_bytes
from tdcompress.stores.claims import Claim, Pace
from tdcompress.stores.folder import FolderStore
from tdcompress.stores.repeat import every
from tdcompress.stores.scratch import Scratch
from tdcompress.stores.trees import fetch_files, files_of, remove_others, send_files

_DAMAGED = "damaged"  # what stands in a manifest's place once a file of it was found damaged
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Making:
    """What belongs to a stage that is being made: its claim, its checkpoints, and the thread that uploads these."""

    claim: Claim
    scratch: Scratch
    uploads: ExitStack


class ObjectStore:
    """The artefacts below an URL, as `tdcompress.stores.store.Store`.

    Args:
        url: "s3://bucket/prefix".
        cache: a folder of this machine; by default one for the URL in the user's cache folder.
        pace: of claims and uploads; the same for all who share the URL.

    Raises:
        UserError: another URL, or no s3fs.
    """

    def __init__(self, url: str, cache: Path | None = None, pace: Pace | None = None) -> None:
        self.bucket = Bucket(url)
        name = f"{self.bucket.url.rpartition('/')[2]}-{hashlib.sha256(self.bucket.url.encode()).hexdigest()[:8]}"
        self.local = FolderStore(cache or cache_folder() / "artifacts" / name)
        self.pace = pace or Pace()
        self._making: dict[tuple[str, str], _Making] = {}
        self._claims: list[Claim] = []  # of runs
        self._tried = False

    @property
    def root(self) -> Path:
        """The cache."""
        return self.local.root

    @property
    def hashes(self) -> HashMemory:
        """Remembers what files of the cache hash to."""
        return self.local.hashes

    def exists(self, stage: str, key: str) -> bool:
        """Whether it is published; its files are not looked at."""
        return self._manifest(stage, key) is not None

    def keys(self, stage: str) -> list[str]:
        """The keys that are published of a stage, sorted; their files are not looked at.

        Raises:
            StoreError: the server cannot be reached.
        """
        return [key for key in sorted(self.bucket.folders(f"stages/{stage}")) if KEY.fullmatch(key) and self.exists(stage, key)]

    def find_or_set_aside(self, stage: str, key: str, record: Any = Any) -> Artifact | None:
        """The artefact and what it was made from, in the cache; downloaded where it is not there.

        One whose files are missing or damaged is set aside, as is one whose record is of another shape: another manifest may take
        the place of its own.

        Args:
            stage: the stage's name.
            key: the content key.
            record: the type of its record.

        Raises:
            StoreError: the server cannot be reached.
        """
        found = self._manifest(stage, key)
        if found is None:
            return None
        with self._alone(f"fetch-{stage}-{key}"):
            cached = self.local.folder(stage, key) / MANIFEST
            same = cached.is_file() and cached.read_bytes() == found.data
            artifact = (self.local.find_or_set_aside(stage, key, record) if same else None) or self._fetch(
                stage, key, found, record
            )
        if artifact is not None:
            self._bring_inputs(artifact)
        return artifact

    @contextmanager
    def partial(self, stage: str, key: str) -> Iterator[Path]:
        """The unfinished folder of a key in the cache, with the checkpoints of whoever owned it last; uploaded as they come.

        Raises:
            BusyError: another living process is making it, here or elsewhere.
        """
        name, what = f"{stage}-{key}", f"{stage} {key}"
        with self.local.partial(stage, key) as folder, self._owned(name, what) as claim, ExitStack() as uploads:
            scratch = Scratch(self.bucket, f"scratch/{stage}/{key}", folder / SCRATCH, claim)
            scratch.bring()
            uploads.enter_context(every(self.pace.keep, scratch.save))
            self._making[stage, key] = _Making(claim=claim, scratch=scratch, uploads=uploads)
            try:
                yield folder
            finally:
                del self._making[stage, key]
                uploads.close()
                _try_last(scratch.save)

    def holds(self, stage: str, key: str) -> bool:
        """Whether what ``partial`` gave is still this process's."""
        return not self._making[stage, key].claim.lost

    def publish(self, stage: str, key: str, partial: Path, record: Any, description: Mapping[str, Any]) -> Artifact:
        """Send the files, then the manifest, if there is none. Where another process was first, its artefact is the result.

        Args:
            stage: the stage's name.
            key: the content key.
            partial: the folder that ``partial`` gave.
            record: the stage's result, a record.
            description: what else the manifest says.

        Raises:
            LostError: another process owns the key by now.
            StoreError: the server cannot be reached; the checkpoints are kept.
            ArtifactError: another process was first, and what it published is damaged.
        """
        making, prefix = self._making[stage, key], _prefix(stage, key)
        making.uploads.close()
        making.claim.check()
        seal(partial, stage, key, record, description)
        manifest = (partial / MANIFEST).read_bytes()
        send_files(self.bucket, prefix, partial, files_of(manifest, str(partial)))
        making.claim.check()
        if self._put_manifest(prefix, manifest):
            remove(self.local.folder(stage, key))  # of another store, or one that was removed
            artifact = self.local.take_in(stage, key, partial)
        else:
            shutil.rmtree(partial)
            winner = self.find_or_set_aside(stage, key)
            if winner is None:
                raise ArtifactError(f"{self.bucket.url}/{prefix}: another process published it, damaged; run the recipe again")
            artifact = winner
        remove_others(self.bucket, prefix, (artifact.folder / MANIFEST).read_bytes())
        _try_last(making.scratch.drop)
        return artifact

    @contextmanager
    def claim(self, name: str, what: str) -> Iterator[None]:
        """Own a name here and elsewhere; see `tdcompress.stores.claims`.

        Raises:
            BusyError: another living process owns it.
            UserError: the server does not keep to conditional puts.
        """
        with self.local.claim(name, what), self._owned(name, what) as claim:
            self._claims.append(claim)
            try:
                yield
            finally:
                self._claims.remove(claim)

    def runs(self) -> list[str]:
        """The names of the runs that were kept."""
        return self.bucket.folders("runs")

    def bring_run(self, name: str) -> None:
        """Download the run's folder if it is another than the one in the cache; files that no manifest names stay there.

        One that is damaged in the store is set aside, as artefacts are. But where another process has kept the run meanwhile, its
        files took the place of those that were asked for: that one is brought.
        """
        prefix, folder = f"runs/{name}", self.root / name
        new = folder.with_name(f".{name}.fetched")
        with self._alone(f"fetch-run-{name}"):
            while True:
                found = self.bucket.read(f"{prefix}/{MANIFEST}")
                if found is None or _is_set_aside(found.data) or _is_whole(folder, found.data):
                    return
                shutil.rmtree(new, ignore_errors=True)
                new.mkdir(parents=True)
                try:
                    fetch_files(self.bucket, prefix, found.data, new)
                except ArtifactError as error:
                    if self._set_aside(prefix, found):
                        _log.warning("the run %s is damaged in the store (%s): run its recipe again", name, error)
                        return
                else:
                    take_place(new, folder, _named)
                    return

    def keep_run(self, name: str) -> None:
        """Upload the run's folder, its manifest last; nothing where it is there as it is.

        Raises:
            LostError: another process has claimed the run by now: what it keeps is not put away.
            StoreError: the server cannot be reached.
        """
        prefix, folder = f"runs/{name}", self.root / name
        manifest, found = (folder / MANIFEST).read_bytes(), self.bucket.read(f"runs/{name}/{MANIFEST}")
        if found is None or found.data != manifest:
            self._check_claims()
            send_files(self.bucket, prefix, folder, files_of(manifest, str(folder / MANIFEST)))
            self._check_claims()  # it may have taken long
            self.bucket.put(f"{prefix}/{MANIFEST}", manifest)
            remove_others(self.bucket, prefix, manifest)

    def _check_claims(self) -> None:
        """Go on only as the owner of all that `claim` gave; raises as `Claim.check` does."""
        for claim in self._claims:
            claim.check()

    def _manifest(self, stage: str, key: str) -> Object | None:
        """The manifest of an artefact that is there and not set aside."""
        found = self.bucket.read(f"{_prefix(stage, key)}/{MANIFEST}")
        return None if found is None or _is_set_aside(found.data) else found

    def _put_manifest(self, prefix: str, manifest: bytes) -> bool:
        """Whether this manifest is the one that counts now."""
        name = f"{prefix}/{MANIFEST}"
        for _ in range(3):
            found = self.bucket.read(name)
            if found is None:
                etag = self.bucket.create(name, manifest)
            elif found.data == manifest:
                return True  # a put whose answer was lost on the way
            elif _is_set_aside(found.data):
                etag = self.bucket.replace(name, manifest, found.etag)
            else:
                return False
            if etag is not None:
                return True
        raise StoreError(f"{self.bucket.url}/{name}: refused, and yet nobody else's is there; run the same command again")

    def _fetch(self, stage: str, key: str, found: Object, record: Any) -> Artifact | None:
        """Download an artefact into the cache; a damaged one is set aside, here and there."""
        final = self.local.folder(stage, key)
        new = final.with_name(f"{key}.fetched")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            fetch_files(self.bucket, _prefix(stage, key), found.data, new)
            remove(final)
            artifact = self.local.take_in(stage, key, new)
            artifact.recorded(record)
            return artifact
        except ArtifactError as error:
            _log.warning("%s %s is damaged in the store (%s): it is made again", stage, key, error)
            self.local.set_aside(stage, key)
            shutil.rmtree(new, ignore_errors=True)
            self._set_aside(_prefix(stage, key), found)
            return None

    def _set_aside(self, prefix: str, found: Object) -> bool:
        """Mark a manifest as that of damage; False where another one has taken its place."""
        marker = to_bytes({_DAMAGED: found.data.decode(errors="replace")})
        return self.bucket.replace(f"{prefix}/{MANIFEST}", marker, found.etag) is not None

    def _bring_inputs(self, artifact: Artifact) -> None:
        """Have in the cache what an artefact was made from, as far as it is there: stages look at it."""
        for key in artifact.inputs.values():
            try:
                cached = find_by_key(self.root / "stages", key)
            except ArtifactError:
                cached = None  # damaged here: it is fetched anew
            if cached is not None:
                self._bring_inputs(cached)
                continue
            for stage in self.bucket.folders("stages"):
                if self.find_or_set_aside(stage, key) is not None:
                    break

    @contextmanager
    def _owned(self, name: str, what: str) -> Iterator[Claim]:
        if not self._tried:
            self.bucket.require_conditions()
            self._tried = True
        claim = Claim.take(self.bucket, f"claims/{name}.json", what, self.pace)
        try:
            with every(self.pace.beat, claim.beat):
                yield claim
        finally:
            _try_last(claim.release)

    def _alone(self, name: str) -> FileLock:
        """One process of this machine at a time."""
        folder = self.root / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / name)


def _try_last(do: Any) -> None:
    """Tidy up; what cannot be done is said and does no harm: the claim becomes stale, and is taken over with what was saved."""
    try:
        do()
    except LostError:
        pass  # it is another process's to tidy
    except StoreError as error:
        _log.warning("%s", error)


def _prefix(stage: str, key: str) -> str:
    return f"stages/{stage}/{key}"


def _is_set_aside(manifest: bytes) -> bool:
    try:
        return _DAMAGED in parse_json(manifest)
    except (ValueError, TypeError):
        return False


def _named(folder: Path) -> set[str]:
    """The files of a run's folder that its manifest names, and the manifest; this alone where it is missing or damaged."""
    try:
        return {MANIFEST, *files_of((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))}
    except (ArtifactError, OSError):
        return {MANIFEST}


def _is_whole(folder: Path, manifest: bytes) -> bool:
    path = folder / MANIFEST
    if not path.is_file() or path.read_bytes() != manifest:
        return False
    try:
        check_files(folder, files_of(manifest, str(path)))
    except ArtifactError:
        return False
    return True
