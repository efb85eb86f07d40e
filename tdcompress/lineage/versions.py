"""The version of each stage and its record: which artefacts this version of tdcompress makes, and which alone it reads.

They stand here and not in the stages' files, since modules below these read artefacts too: `load_network`, for example, and,
without torch, what lists artefacts and carries them. A stage's version is part of its keys, so a run never asks for an artefact
of another version: it makes its own beside it.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tdcompress.artifacts import Artifact, read_artifact
from tdcompress.errors import ArtifactError
from tdcompress.records.stages import (
    AnalysisRecord,
    BenchRecord,
    ExportRecord,
    FinetuneRecord,
    PruneRecord,
    ShrinkRecord,
    StoreRecord,
    TrainRecord,
    VocabularyRecord,
)

VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "vocabulary": 1,
        "train": 9,
        "prune": 9,
        "finetune": 1,
        "shrink": 8,
        "store": 2,
        "export": 14,
        "bench": 4,
        "analyse": 2,
    }
)
"""Raised when the code of a stage changes what it makes, or what its settings mean."""

RECORDS: Mapping[str, Any] = MappingProxyType(
    {
        "vocabulary": VocabularyRecord,
        "train": TrainRecord,
        "prune": PruneRecord,
        "finetune": PruneRecord | FinetuneRecord,
        "shrink": ShrinkRecord,
        "store": StoreRecord,
        "export": ExportRecord,
        "bench": BenchRecord,
        "analyse": AnalysisRecord,
    }
)
"""The type of each stage's record; what has one of another shape is made again."""

BARE = frozenset({"store"})
"""Stages without a setting; a manifest of any other stage says some."""

UNUSABLE = "damaged or old"
"""What tables call an artefact that `read_usable` refuses: a run that needs it makes it again."""


def of_this_version(artifact: Artifact) -> bool:
    """Whether this version of its stage made it."""
    return _is_read(artifact.stage, artifact.version)


def _is_read(stage: str, version: Any) -> bool:
    return stage in VERSIONS and version == VERSIONS[stage]


def check_version(artifact: Artifact) -> None:
    """Refuse what another version of a stage made: its settings or its files may mean something else.

    Raises:
        ArtifactError: an older or newer version's, or of a stage that is not known.
    """
    check_stage_version(artifact.stage, artifact.version, artifact.folder)


def check_stage_version(stage: str, version: Any, folder: Path) -> None:
    """As `check_version`, of what is not finished yet.

    Args:
        stage: the stage's name.
        version: of that stage, as a file says it.
        folder: what the message names.

    Raises:
        ArtifactError: an older or newer version's, or of a stage that is not known.
    """
    if not _is_read(stage, version):
        known = VERSIONS.get(stage)
        reads = "no such stage" if known is None else f"version {known}"
        raise ArtifactError(
            f"{folder}: is of version {version} of {stage}, and this tdcompress reads {reads}; run the recipe again to rebuild it"
        )


def check_usable(artifact: Artifact) -> None:
    """Refuse what no run of this version asks for, or would set aside; the artefact's files are not looked at.

    Of settings it knows only whether there are any. Their types need torch: `tdcompress.lineage.origin.settings_of` reads them,
    and refuses those of another shape.

    Raises:
        ArtifactError: an artefact of another version, without settings where its stage has some, or with a record that is not its
            stage's.
    """
    check_version(artifact)
    if not isinstance(artifact.settings, dict) or bool(artifact.settings) == (artifact.stage in BARE):
        raise ArtifactError(f"{artifact.folder}: has not the settings of {artifact.stage}; run the recipe again to rebuild it")
    artifact.recorded(RECORDS[artifact.stage])


def read_usable(folder: Path) -> Artifact:
    """Read an artefact that a run of this version may ask for; its files are not looked at.

    Args:
        folder: a published folder.

    Raises:
        ArtifactError: as `read_artifact` and `check_usable`.
    """
    artifact = read_artifact(folder)
    check_usable(artifact)
    return artifact


def is_usable(folder: Path) -> bool:
    """Whether `read_usable` reads an artefact from a folder."""
    try:
        read_usable(folder)
    except ArtifactError:
        return False
    return True
