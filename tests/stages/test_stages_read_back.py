"""What a stage made is read back as it was, or refused: other versions, older shapes, missing and damaged files."""

import dataclasses
import json
import re
import shutil
import types
from pathlib import Path
from typing import Any

import pytest
from every_stage import UNITS, WEIGHTS

from tdcompress.artifacts import Artifact, content_key, read_artifact
from tdcompress.errors import ArtifactError, ModelError
from tdcompress.lineage.network import KEPT, load_network
from tdcompress.lineage.origin import ancestor, origin_of, settings_of
from tdcompress.lineage.versions import VERSIONS
from tdcompress.pipeline import Stage, Task
from tdcompress.stages import STAGES
from tdcompress.stores.folder import FolderStore


def published(store: FolderStore, task: Task, versions: dict[str, int]) -> Artifact:
    """A task's artefact, with no files in it, and what it is made from; stages may be of other versions than ours."""
    inputs = {role: published(store, needed, versions).key for role, needed in task.inputs.items()}
    identity = {**task.identity, "version": versions.get(task.stage.name, task.stage.version), "inputs": inputs}
    key = content_key(identity)
    if found := store.find_or_set_aside(task.stage.name, key):
        return found
    with store.partial(task.stage.name, key) as folder:
        return store.publish(task.stage.name, key, folder, {}, identity)


READERS = {
    "load_network": load_network,
    "origin_of": origin_of,
    "ancestor": lambda artifact: ancestor(artifact, "train"),
    "settings_of": lambda artifact: settings_of(STAGES[artifact.stage].settings, artifact),
    "what another process reads": lambda artifact: origin_of(read_artifact(artifact.folder)),
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("text", [WEIGHTS, UNITS])
def test_an_artefact_of_another_version_is_refused_with_all_that_came_from_it(
    tasks: Any, tmp_path: Path, text: str, change: int, read: str
) -> None:
    planned = tasks(text)
    store, deployed = FolderStore(tmp_path), planned["export"].inputs["network"]
    chain, task = [], deployed
    while True:
        chain.append(task.stage.name)
        if not task.inputs:
            break
        (task,) = task.inputs.values()
    assert chain[-1] == "train"
    for other in chain if read != "settings_of" else chain[:1]:
        version = VERSIONS[other] + change
        artifact = published(store, deployed, {other: version})
        with pytest.raises(
            ArtifactError, match=f"is of version {version} of {other}, and .* reads version {VERSIONS[other]}; run"
        ):
            READERS[read](artifact)
    if read != "load_network":  # nothing but the version was wrong
        READERS[read](published(store, deployed, {}))


def without_one(table: dict[str, Any], where: str = "settings") -> list[tuple[str, dict[str, Any]]]:
    """A table without one of its keys, at whatever depth, each with the dotted path of that key."""
    found = []
    for key, value in table.items():
        path = f"{where}.{key}"
        found.append((path, {other: kept for other, kept in table.items() if other != key}))
        below = without_one(value, path) if isinstance(value, dict) else []
        found += [(deeper, {**table, key: changed}) for deeper, changed in below]
    return found


@pytest.mark.parametrize("text", [WEIGHTS, UNITS])
def test_settings_that_lack_one_of_todays_are_refused_and_not_filled_in(tasks: Any, tmp_path: Path, text: str) -> None:
    for task in tasks(text).values():
        artifact, kind = published(FolderStore(tmp_path), task, {}), task.stage.settings
        assert settings_of(kind, artifact) == task.settings
        for path, settings in without_one(artifact.settings):
            # where the others cannot stand without it, the type's own check says so
            with pytest.raises(ArtifactError, match=r"of another version \(settings.*\); run the recipe again") as refused:
                settings_of(kind, dataclasses.replace(artifact, settings=settings))
            assert path.rpartition(".")[2] in str(refused.value)


@pytest.mark.parametrize("lacks", [("data", "flip"), ("model", "width"), ("method", "draw")])
def test_a_network_of_an_older_shape_under_the_same_version_is_refused(
    tasks: Any, tmp_path: Path, lacks: tuple[str, str]
) -> None:
    table, key = lacks
    trained = published(FolderStore(tmp_path), tasks(WEIGHTS)["train"], {})
    kept = {name: value for name, value in trained.settings[table].items() if name != key}
    older = dataclasses.replace(trained, settings={**trained.settings, table: kept})
    with pytest.raises(ArtifactError, match=rf"settings\.{table}\.{key}: not as this version writes it"):
        origin_of(older)


def test_an_artefact_of_an_unknown_stage_is_refused(tmp_path: Path) -> None:
    task = Task(stage=Stage(name="melt", version=1, settings=dict, run=lambda settings, work: {}), settings={}, title="melt")
    with pytest.raises(ArtifactError, match="is of version 1 of melt, and this tdcompress reads no such stage; run"):
        load_network(published(FolderStore(tmp_path), task, {}))


def test_a_network_whose_training_is_gone_is_not_guessed(tiny_root: Path) -> None:
    root = Path(shutil.copytree(tiny_root, tiny_root.parent / "without_training"))
    store = FolderStore(root)
    (pruned, *_) = [
        found for path in (root / "stages" / "prune").iterdir() if (found := store.find_or_set_aside("prune", path.name))
    ]
    assert load_network(pruned)
    shutil.rmtree(root / "stages" / "train")
    with pytest.raises(ArtifactError, match=r"its train, [0-9a-f]{16}, is missing; run the recipe again"):
        load_network(pruned)


@pytest.mark.parametrize(
    ("stage", "name"),
    [("train", "model.safetensors"), ("train", "method.safetensors"), ("prune", "model.safetensors"), ("shrink", KEPT)],
)
def test_a_network_is_not_read_from_damaged_files(tiny_root: Path, tmp_path: Path, stage: str, name: str) -> None:
    root = Path(shutil.copytree(tiny_root / "stages", tmp_path / "stages"))
    (folder, *_) = sorted(path for path in (root / stage).iterdir() if (path / name).is_file())
    assert load_network(read_artifact(folder))
    content = bytearray((folder / name).read_bytes())
    content[-5] ^= 0x40
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=re.escape(f"{folder / name}: is damaged")):
        load_network(read_artifact(folder))


@pytest.mark.parametrize("kept", [{}, {"a": 1}])
def test_kept_channels_that_are_not_the_networks_are_told_by_their_path(tiny_root: Path, tmp_path: Path, kept: Any) -> None:
    (folder, *_) = sorted(path for path in (tiny_root / "stages" / "shrink").iterdir() if (path / KEPT).is_file())
    shrunk = read_artifact(folder)
    (tmp_path / KEPT).write_text(json.dumps(kept))
    wrong = types.SimpleNamespace(**{name: getattr(shrunk, name) for name in ("stage", "version", "inputs", "input", "folder")})
    wrong.files = {**shrunk.files, KEPT: "another"}
    wrong.file = lambda name: tmp_path / name if name == KEPT else shrunk.file(name)
    with pytest.raises(ModelError, match=re.escape(f"{tmp_path / KEPT}: kept_channels")):
        load_network(wrong)  # type: ignore[arg-type]
