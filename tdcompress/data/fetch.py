"""Fetching data sets with torchvision's own downloader."""

from pathlib import Path

from tdcompress.errors import DataError, one_line


def fetch_archive(url: str, folder: Path, md5: str, title: str) -> None:
    """Download an archive into a folder, check its md5 and unpack it there.

    Args:
        url: where it lies.
        folder: where it goes.
        md5: of the archive, in hex.
        title: the data set, for messages.

    Raises:
        DataError: no connection, or another file than expected.
    """
    from torchvision.datasets.utils import download_and_extract_archive  # slow to import, and rarely needed

    try:
        download_and_extract_archive(url, download_root=str(folder), md5=md5)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{title}: cannot fetch {url} ({one_line(error)}); fetch and unpack it by hand in {folder}") from error
