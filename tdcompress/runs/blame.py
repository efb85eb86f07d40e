"""An artefact that is whole by its manifest, and yet holds a file that nothing can read: which folder is to blame."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tdcompress.artifacts import KEY
from tdcompress.errors import ArtifactError, ModelError


@contextmanager
def blamed(root: Path) -> Iterator[None]:
    """Say what to remove where the block cannot read a file of an artefact: every further run would fail on it too.

    Args:
        root: the artifacts folder.

    Raises:
        ArtifactError: instead of a ModelError of a file below ``root/stages/<stage>/<key>``.
    """
    try:
        yield
    except ModelError as error:
        for folder in (root / "stages").glob("*/*"):
            if KEY.fullmatch(folder.name) and str(error).startswith(f"{folder}{os.sep}"):
                raise ArtifactError(f"{error}; remove the folder {folder} and run the recipe again to rebuild it") from None
        raise
