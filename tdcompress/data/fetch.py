"""Fetching data sets with torchvision's own downloader."""

from pathlib import Path
from tempfile import TemporaryDirectory

from tdcompress.errors import DataError, one_line


def fetch_archive(url: str, folder: Path, md5: str, title: str) -> None:
    """Download an archive into a folder, check its md5 and unpack it there; a file that is there is whole.

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
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".unpacked-", dir=folder) as name:  # a kill meanwhile, or another process that reads
            download_and_extract_archive(url, download_root=str(folder), extract_root=name, md5=md5)
            for path in sorted(path for path in Path(name).rglob("*") if path.is_file()):
                target = folder / path.relative_to(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{title}: cannot fetch {url} ({one_line(error)}); fetch and unpack it by hand in {folder}") from error
