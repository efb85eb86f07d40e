"""Artefacts on disk: a content key, and a manifest written last. Knows no stage and no torch.

A folder ``stages/<stage>/<key>/`` holds the files and ``manifest.json`` (sha256 of each file, the record, and a sha256 of all
that it says itself). One whose manifest does not verify is damaged. Where such folders are kept, and who may make one, is a
store's matter: see `tdcompress.stores`.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from tdcompress.codec import Json, check_format, decode, decode_file, decode_json, encode, shallow
from tdcompress.errors import ArtifactError, one_line
from tdcompress.files import fsync_file, sha256_file, write_text

T = TypeVar("T")

MANIFEST = "manifest.json"
FORMAT = 2  # 1 had no sha256 of its own
DIGEST = "manifest_sha256"
KEY, SHA256, STAGE = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9a-f]{64}"), re.compile(r"[a-z_]+")
IDENTITY = ("stage", "version", "settings", "inputs")  # what a key is the hash of
REBUILD = "run the recipe again to rebuild it"
SCRATCH = "scratch"  # a folder inside a partial one that is dropped when the artefact is published: checkpoints


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces; what keys are hashed over."""
    return json.dumps(encode(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def content_key(value: Any) -> str:
    """First 16 hex digits of the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A published folder of one stage, whose manifest verifies. Its files are hashed before they are read: see `file`.

    Attributes:
        stage: the stage that made it.
        version: of that stage.
        key: its content key.
        folder: where its files are.
        settings: what it was made with, as JSON.
        inputs: keys of the artefacts that it was made from, by role.
        record: the stage's result, as JSON.
        files: sha256 by relative name.
    """

    stage: str
    version: int
    key: str
    folder: Path
    settings: Json
    inputs: Mapping[str, str]
    record: Json
    files: Mapping[str, str]
    _whole: set[str] = field(default_factory=set, init=False, compare=False, repr=False)  # files that were hashed already

    def file(self, name: str) -> Path:
        """Path of one of its files, which is hashed when it is first asked for.

        Raises:
            ArtifactError: it has no such file; or that is missing or damaged.
        """
        if name not in self.files:
            raise ArtifactError(f"{self.folder}: has no file {name}; it has {', '.join(self.files)}")
        self.check({name: self.files[name]})
        return self.folder / name

    def check(self, files: Mapping[str, str], sha256: Any = sha256_file) -> None:
        """Compare some of its files with their recorded sha256, each once.

        Args:
            files: name -> sha256, in hex.
            sha256: path -> sha256; another one remembers hashes.

        Raises:
            ArtifactError: as `check_files`.
        """
        check_files(self.folder, {name: digest for name, digest in files.items() if name not in self._whole}, sha256)
        self._whole.update(files)

    def recorded(self, kind: type[T]) -> T:
        """Its record, decoded.

        Args:
            kind: the record that its stage gives, or ``dict[str, Any]``.

        Raises:
            ArtifactError: a field that is missing, unknown or of another type; the message names it.
        """
        try:
            return decode(kind, self.record, "record")
        except ValueError as error:
            raise self._of_another_version(error) from None

    def recorded_number(self, name: str) -> float:
        """A number that records of several kinds have, "accuracy" for example.

        Raises:
            ArtifactError: the record lacks it, or it is no number.
        """
        table = self.recorded(dict[str, Any])
        try:
            return decode(float, table.get(name), f"record.{name}")
        except ValueError as error:
            raise self._of_another_version(error) from None

    def input(self, role: str) -> "Artifact":
        """What it was made from.

        Raises:
            ArtifactError: it is not there, or its manifest does not verify.
        """
        key = self.inputs.get(role)
        if key is None:
            raise ArtifactError(f"{self.folder / MANIFEST}: names no {role} as its input; {REBUILD}")
        found = find_by_key(self.folder.parents[1], key)
        if found is None:
            raise ArtifactError(f"{self.folder}: its {role}, {key}, is missing; {REBUILD}")
        return found

    def _of_another_version(self, error: ValueError) -> ArtifactError:
        path = self.folder / MANIFEST
        return ArtifactError(f"{path}: is of another version ({one_line(error)}); {REBUILD}")


class HashMemory:
    """sha256 of files, remembered by (path, size, mtime_ns), so that an unchanged file is read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        try:
            known = decode_json(dict[str, tuple[int, int, str]], path.read_bytes())
            self._known = {name: list(stamped) for name, stamped in known.items()}
        except (OSError, ValueError):
            pass  # a memory that is lost costs time, nothing else

    def sha256(self, path: Path) -> str:
        """Hex digest of a file, from memory where size and time are unchanged."""
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        name = str(path.resolve())
        known = self._known.get(name)
        if known and known[:2] == stamp:
            return str(known[2])
        digest = sha256_file(path)
        self._known[name] = [*stamp, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Write the memory if anything was added."""
        if self._changed:
            write_text(self.path, json.dumps(self._known))
            self._changed = False


def seal(partial: Path, stage: str, key: str, record: Any, description: Mapping[str, Any]) -> None:
    """Make an unfinished folder whole: drop scratch, hash and fsync every file, write the manifest last.

    Args:
        partial: the unfinished folder.
        stage: the stage's name.
        key: the content key.
        record: the stage's result, a record.
        description: what else the manifest says: ``IDENTITY``, versions, host.
    """
    shutil.rmtree(partial / SCRATCH, ignore_errors=True)
    (partial / MANIFEST).unlink(missing_ok=True)
    files = {}
    for path in sorted(p for p in partial.rglob("*") if p.is_file()):
        if path.name.startswith("."):
            path.unlink()  # a temporary file of a killed writer
            continue
        fsync_file(path)
        files[path.relative_to(partial).as_posix()] = sha256_file(path)
    manifest = {"format": FORMAT, "stage": stage, "key": key, **encode(description), "record": encode(record), "files": files}
    write_text(partial / MANIFEST, json.dumps(sealed(manifest), indent=1, sort_keys=True))


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the sha256 of all else in it: damage to the record shows too, which no other hash is of."""
    said = {name: value for name, value in manifest.items() if name != DIGEST}
    return {**said, DIGEST: hashlib.sha256(canonical(said).encode()).hexdigest()}


def read_sealed(path: Path, form: int, doubt: str = "") -> dict[str, Any]:
    """Read a manifest that vouches for itself: of a stage's folder, or of a run's.

    Args:
        path: the manifest.
        form: its format, the only one that is read.
        doubt: what messages ask where it may be no such manifest at all.

    Returns:
        All that it says but its own sha256.

    Raises:
        ArtifactError: it is missing, of another format, or damaged.
    """
    try:
        manifest = decode_file(dict[str, Any], path)
    except ArtifactError as error:
        raise ArtifactError(f"{error}{doubt}") from None
    try:
        check_format(manifest, "format", form)
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}{doubt if 'format' not in manifest else ''}; {REBUILD}") from None
    if manifest.pop(DIGEST, None) != sealed(manifest)[DIGEST]:
        raise ArtifactError(f"{path}: is damaged (its sha256 is not that of what it says); {REBUILD}")
    return manifest


def load_artifact(folder: Path, sha256: Any = sha256_file) -> Artifact:
    """Read an artefact and check every file against its manifest.

    Args:
        folder: a published folder.
        sha256: how a file is hashed; ``HashMemory.sha256`` for speed, ``sha256_file`` to hash everything again.

    Raises:
        ArtifactError: a file that is missing or differs, or as ``read_artifact``.
    """
    artifact = read_artifact(folder)
    artifact.check(artifact.files, sha256)
    return artifact


@dataclass(frozen=True, kw_only=True)
class _Manifest:
    """What a manifest says of its artefact; keys and digests have their exact form, since they become names of files."""

    stage: str
    version: int
    key: str
    settings: Any
    inputs: dict[str, str]
    record: Any
    files: dict[str, str]

    def __post_init__(self) -> None:
        for role, key in self.inputs.items():
            if not KEY.fullmatch(key):
                raise ValueError(f"inputs.{role}: {key!r} is no key")
        check_names(self.files)


def read_artifact(folder: Path) -> Artifact:
    """Read an artefact's manifest. A file of it is looked at where it is asked for, and then hashed: see `Artifact.file`.

    Raises:
        ArtifactError: no manifest, one of another format or of another folder, or one that is damaged.
    """
    path = folder / MANIFEST

    def unusable(said: str) -> ArtifactError:
        return ArtifactError(f"{path}: {said}; {REBUILD}")

    manifest, known = read_sealed(path, FORMAT), {field.name for field in fields(_Manifest)}
    try:
        said = decode(_Manifest, {name: value for name, value in manifest.items() if name in known}, path.stem)
    except ValueError as error:
        raise unusable(f"not a readable manifest ({one_line(error)})") from None
    if (said.stage, said.key) != (folder.parent.name, folder.name):
        raise unusable(f"is of {said.stage} {said.key}, not of this folder")
    if content_key({name: manifest[name] for name in IDENTITY}) != said.key:
        raise unusable("is damaged (its key is not of its settings and inputs)")
    return Artifact(folder=folder, **shallow(said))


def find_by_key(stages: Path, key: str) -> Artifact | None:
    """The artefact of a key, whatever its stage; its files are not looked at.

    A copy of a stage's folder, ``train.bak`` for example, is no stage: what lies there is passed over.

    Args:
        stages: the folder of all stages.
        key: a content key.

    Raises:
        ArtifactError: it is there, and its manifest does not verify.
    """
    problem = None
    for folder in sorted(stages.glob(f"*/{key}")):
        if not STAGE.fullmatch(folder.parent.name):
            continue
        try:
            return read_artifact(folder)
        except ArtifactError as error:
            problem = problem or error  # perhaps a copy under another name: another folder may hold it
    if problem is not None:
        raise problem
    return None


def can_be_named(name: str) -> bool:
    """Whether a file can have this relative name: no NUL, no half of a surrogate pair, no more bytes than systems take."""
    try:
        parts = name.encode().split(b"/")
    except UnicodeEncodeError:
        return False
    return "\0" not in name and all(len(part) <= 255 for part in parts) and len(name) <= 1024


def check_names(files: Mapping[str, str]) -> None:
    """Check what a manifest calls its files, before any of these names is used.

    Args:
        files: sha256 by relative name.

    Raises:
        ValueError: a name that leaves the folder or that no file can have, or a digest that is none.
    """
    for name, digest in files.items():
        if not can_be_named(name):
            raise ValueError(one_line(f"files: no file can be called {name!r}"))
        path = Path(name)
        if path.is_absolute() or not path.parts or ".." in path.parts:
            raise ValueError(f"files: {name!r} is outside its folder")
        if not SHA256.fullmatch(digest):
            raise ValueError(f"files.{name}: {digest!r} is no sha256")


def check_files(folder: Path, files: Mapping[str, str], sha256: Any = sha256_file) -> None:
    """Compare files with their recorded sha256.

    Args:
        folder: of an artefact or a run.
        files: name -> sha256, in hex.
        sha256: path -> sha256; another one remembers hashes.

    Raises:
        ArtifactError: one that is missing, differs, lies outside or is a link to itself; a name that no file can have.
    """
    for name, expected in files.items():
        if not can_be_named(name):
            raise ArtifactError(one_line(f"{folder / MANIFEST}: no file can be called {name!r}; {REBUILD}"))
        path = folder / name
        try:
            inside = path.resolve().is_relative_to(folder.resolve())
        except (OSError, RuntimeError):  # Python below 3.13 says so of a loop of links
            raise ArtifactError(f"{path}: is a link that leads nowhere; {REBUILD}") from None
        if not inside and path.is_symlink():
            raise ArtifactError(f"{path}: is a link that leads out of its folder; copy what it leads to in its place (cp -L)")
        if not inside:
            raise ArtifactError(f"{folder / MANIFEST}: names {name!r}, which is outside its folder; {REBUILD}")
        if not path.is_file():
            raise ArtifactError(f"{path}: is missing; {REBUILD}")
        if sha256(path) != expected:
            raise ArtifactError(f"{path}: is damaged (its sha256 is not the manifest's); {REBUILD}")
