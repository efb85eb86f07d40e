"""Objects below one prefix of an S3 bucket, with what two machines need to agree: puts that hold only under a condition.

A put with ``If-None-Match: *`` makes an object unless there is one; one with ``If-Match: <etag>`` replaces an object unless it
was replaced since it was read. Amazon S3 has both since 2024, and so have MinIO and others. Reached through fsspec's s3fs.
"""

import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tdcompress.errors import StoreError, UserError, one_line

_PREFIX = "s3://"
_REFUSED = (409, 412)  # HTTP: a conflicting request goes on; the condition does not hold


@dataclass(frozen=True, kw_only=True)
class Object:
    """What was read of an object.

    Attributes:
        data: its content.
        etag: of this content or of an older one: a put with it never replaces what was not read.
        age: seconds since it was put, by the server's clock alone.
    """

    data: bytes
    etag: str
    age: float


class Bucket:
    """The objects below an URL. Every method may be called by several threads.

    Args:
        url: "s3://bucket/prefix"; credentials and the server's address are found as s3fs does.

    Raises:
        UserError: another URL, or no s3fs.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._bucket, _, self._prefix = self.url.removeprefix(_PREFIX).partition("/")
        if not self.url.startswith(_PREFIX) or not self._bucket:
            raise UserError(f"{url}: artefacts are kept in a folder, or in object storage as s3://bucket/prefix")
        if not find_spec("s3fs"):
            raise UserError(f"{url}: this needs s3fs: pip install '.[cluster]' in tdcompress's checkout")
        import fsspec

        # listings are not remembered: others write too
        self._fs: Any = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        self._seen = False  # the bucket

    def read(self, name: str) -> Object | None:
        """An object's content, or None where there is none."""
        with self._told(name):
            try:
                head = self._fs.call_s3("head_object", Bucket=self._bucket, Key=self._key(name))
                data = bytes(self._fs.cat_file(self._path(name)))  # after the etag: see ``Object``
            except FileNotFoundError:
                self._require_bucket()
                return None
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        return Object(data=data, etag=head["ETag"], age=(now - head["LastModified"]).total_seconds())

    def create(self, name: str, data: bytes) -> str | None:
        """Put an object that is not there; returns its etag, or None where one was there already."""
        return self._conditional(name, lambda: self._fs.pipe_file(self._path(name), data, mode="create"))

    def replace(self, name: str, data: bytes, etag: str) -> str | None:
        """Put an object in another's place; returns its etag, or None where the other one is not there any more.

        Args:
            name: of both.
            data: the new content.
            etag: of the one that was read.
        """
        return self._conditional(name, lambda: self._fs.pipe_file(self._path(name), data, IfMatch=etag))

    def put(self, name: str, data: bytes) -> None:
        """Put an object, whatever is there."""
        with self._told(name):
            self._fs.pipe_file(self._path(name), data)

    def send(self, path: Path, name: str) -> None:
        """Put a file, whatever is there.

        Raises:
            FileNotFoundError: no such file.
        """
        path.stat()
        with self._told(name):
            self._fs.put_file(str(path), self._path(name))

    def fetch(self, name: str, path: Path) -> bool:
        """Write an object's content to a file; False where there is no such object."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._told(name):
            try:
                self._fs.get_file(self._path(name), str(path))
            except FileNotFoundError:
                self._require_bucket()
                return False
        return True

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""
        for name in names:
            with self._told(name):
                self._fs.call_s3("delete_object", Bucket=self._bucket, Key=self._key(name))

    def names(self, prefix: str) -> list[str]:
        """Full names of the objects directly below a prefix."""
        return [f"{prefix}/{name}" for name, kind in self._listed(prefix) if kind == "file"]

    def folders(self, prefix: str) -> list[str]:
        """Last parts of the prefixes directly below one."""
        return [name for name, kind in self._listed(prefix) if kind == "directory"]

    def require_conditions(self) -> None:
        """Try whether the server keeps to conditions.

        Raises:
            UserError: it does not.
        """
        name = f"probe/{secrets.token_hex(8)}"
        etag = self.create(name, b"first")
        try:
            kept = (
                etag is not None
                and self.create(name, b"second") is None
                and self.replace(name, b"third", '"0123456789abcdef0123456789abcdef"') is None
                and self.replace(name, b"fourth", etag) is not None
            )
        finally:
            self.remove([name])
        if not kept:
            raise UserError(
                f"{self.url}: this server ignores conditional puts (If-None-Match, If-Match), so two machines could overwrite "
                "each other; use another server, or a folder"
            )

    def _listed(self, prefix: str) -> list[tuple[str, str]]:
        with self._told(prefix):
            try:
                found = self._fs.ls(self._path(prefix), detail=True, refresh=True)
            except FileNotFoundError:
                self._require_bucket()
                return []
        return sorted((entry["name"].rpartition("/")[2], entry["type"]) for entry in found)

    def _require_bucket(self) -> None:
        """Where an object is not there, its bucket may not be: asked once, and passed over where one may not ask."""
        if not self._seen:
            with suppress(PermissionError):
                self._fs.call_s3("head_bucket", Bucket=self._bucket)
            self._seen = True

    def _conditional(self, name: str, put: Callable[[], Any]) -> str | None:
        with self._told(name):
            try:
                return str(put()["ETag"])
            except OSError as error:
                response = getattr(error.__cause__, "response", {})
                status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                code = response.get("Error", {}).get("Code")
                if status in _REFUSED or isinstance(error, FileExistsError) or code == "NoSuchKey":
                    return None
                raise

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Say in one line what the server, or the way to it, has against a request.

        s3fs makes a FileNotFoundError of what is not there; objects that are not are no error here, so that it is the bucket.
        """
        from botocore.exceptions import BotoCoreError, HTTPClientError
        from botocore.exceptions import ConnectionError as NoConnection

        try:
            yield
        except FileNotFoundError as error:
            if error.filename is not None:
                raise  # a file of this machine, gone while it was sent
            raise StoreError(f"{self.url}: there is no bucket {self._bucket} at this server; make it, or name another") from error
        except (NoConnection, HTTPClientError) as error:
            raise StoreError(f"{self.url}: {one_line(error)}; is AWS_ENDPOINT_URL right, and that server up?") from error
        except (OSError, BotoCoreError) as error:
            said = f"{type(error).__name__}: {one_line(error)}"
            raise StoreError(f"{self.url}/{name}: {said}; see docs/scaling.md for credentials") from error

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._key(name)}"


def to_bytes(value: Any) -> bytes:
    """A small object's content: JSON."""
    return json.dumps(value, sort_keys=True).encode()
