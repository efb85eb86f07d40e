"""The version of each stage: which artefacts this version of tdcompress makes, and which alone it reads.

They stand here and not in the stages' files, since an artefact is also read from below these: by `load_network`, for example. A
stage's version is part of its keys, so a run never asks for an artefact of another version: it makes its own beside it.
"""

from collections.abc import Mapping
from types import MappingProxyType

from tdcompress.artifacts import Artifact
from tdcompress.errors import ArtifactError

VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "vocabulary": 1,
        "train": 4,
        "prune": 4,
        "finetune": 1,
        "shrink": 5,
        "store": 2,
        "export": 9,
        "bench": 3,
        "analyse": 1,
    }
)
"""Raised when the code of a stage changes what it makes, or what its settings mean."""


def of_this_version(artifact: Artifact) -> bool:
    """Whether this version of its stage made it."""
    return artifact.version == VERSIONS.get(artifact.stage)


def check_version(artifact: Artifact) -> None:
    """Refuse what another version of a stage made: its settings or its files may mean something else.

    Raises:
        ArtifactError: an older or newer version's, or of a stage that is not known.
    """
    if not of_this_version(artifact):
        known = VERSIONS.get(artifact.stage)
        reads = "no such stage" if known is None else f"version {known}"
        raise ArtifactError(
            f"{artifact.folder}: is of version {artifact.version} of {artifact.stage}, and this tdcompress reads {reads}; "
            "run the recipe again to rebuild it"
        )
