"""A store by where it is."""

from pathlib import Path

from tdcompress.files import StrPath
from tdcompress.stores.folder import FolderStore
from tdcompress.stores.store import Store


def is_url(place: StrPath) -> bool:
    """Whether this is object storage's, not a folder's."""
    return isinstance(place, str) and "://" in place


def open_store(place: StrPath) -> Store:
    """The store at a place.

    Args:
        place: a folder, or "s3://bucket/prefix".

    Raises:
        UserError: another URL, or no s3fs.
    """
    if isinstance(place, str) and is_url(place):
        from tdcompress.stores.objects import ObjectStore

        return ObjectStore(place)
    return FolderStore(Path(place))
