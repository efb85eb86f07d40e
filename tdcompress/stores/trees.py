"""Folders whose ``manifest.json`` names every file with its sha256, as objects: files by their hash, the manifest last.

``<prefix>/<sha256>`` holds a file's content, ``<prefix>/manifest.json`` the manifest's. So two machines that send different files
of one name never mix them: whose manifest is there, of that one everything is there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tdcompress.artifacts import MANIFEST, check_files, check_names
from tdcompress.codec import decode, decode_json
from tdcompress.errors import ArtifactError, one_line
from tdcompress.files import write_bytes
from tdcompress.stores.bucket import Bucket


def files_of(manifest: bytes, what: str) -> dict[str, str]:
    """The files that a manifest names: sha256 by relative name.

    Raises:
        ArtifactError: no manifest, names that leave the folder, or digests that are none.
    """
    try:
        said = decode_json(dict[str, Any], manifest, "manifest")
        files = decode(dict[str, str], said.get("files"), "files")
        check_names(files)
    except ValueError as error:
        raise ArtifactError(f"{what}: not a readable manifest ({one_line(error)})") from None
    return files


def send_files(bucket: Bucket, prefix: str, folder: Path, files: Mapping[str, str]) -> None:
    """Send files, also those that are there: what is there may be damaged.

    Args:
        bucket: where to.
        prefix: of the objects.
        folder: of the files.
        files: sha256 by relative name.
    """
    for digest, name in {digest: name for name, digest in files.items()}.items():
        bucket.send(folder / name, f"{prefix}/{digest}")


def fetch_files(bucket: Bucket, prefix: str, manifest: bytes, folder: Path) -> None:
    """Fill an empty folder with a manifest and its files.

    Args:
        bucket: where from.
        prefix: of the objects.
        manifest: what was read of it.
        folder: the empty folder.

    Raises:
        ArtifactError: a file that is missing or damaged.
    """
    files = files_of(manifest, f"{bucket.url}/{prefix}/{MANIFEST}")
    for name, digest in files.items():
        bucket.fetch(f"{prefix}/{digest}", folder / name)
    check_files(folder, files)
    write_bytes(folder / MANIFEST, manifest)


def remove_others(bucket: Bucket, prefix: str, manifest: bytes) -> None:
    """Remove the files that a manifest does not name: of another manifest, or of a process that lost the race.

    Args:
        bucket: where.
        prefix: of the objects.
        manifest: the one that counts.
    """
    named = {MANIFEST, *files_of(manifest, f"{bucket.url}/{prefix}/{MANIFEST}").values()}
    bucket.remove(name for name in bucket.names(prefix) if name.rpartition("/")[2] not in named)
