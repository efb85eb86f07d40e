"""A stage sees what its key hashes, and nothing else."""

import dataclasses
import importlib
import itertools
import json
import pkgutil
import re
import shutil
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_keys import keys_below, others
from words import TINY, write_corpus

from tdcompress import stages
from tdcompress.artifacts import Artifact, content_key, read_artifact
from tdcompress.codec import decode, encode
from tdcompress.data.digits import DigitsSettings
from tdcompress.data.images import ImageDataset, Images, ImageSettings
from tdcompress.data.registry import DATASETS
from tdcompress.errors import ArtifactError, DataError, ModelError, RecipeError
from tdcompress.lineage.network import KEPT, load_network
from tdcompress.lineage.origin import KnownData, ancestor, origin_of, settings_of
from tdcompress.lineage.versions import VERSIONS
from tdcompress.methods.registry import METHODS
from tdcompress.models.registry import MODELS
from tdcompress.pipeline import Machine, Runner, Stage, Task, Workspace
from tdcompress.recipes.experiment import table_types
from tdcompress.recipes.source import parse_recipe, swept
from tdcompress.records import TrainRecord
from tdcompress.runs.plan import plan_run
from tdcompress.stages import STAGES, bench
from tdcompress.stores.folder import FolderStore
from tdcompress.train.manner import Manner
from tdcompress.train.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = """
name = "keys"
[data]
name = "digits"
[model]
name = "digits_cnn"
[sparsity]
method = "targeted"
gamma = 0.5
[prune]
fraction = 0.5
[finetune]
epochs = 1
[analyse]
bins = 8
"""
UNITS = WEIGHTS.replace("[analyse]\nbins = 8\n", 'after = "shrink"\n').replace("gamma", 'granularity = "unit"\ngamma')
TYPES = {
    **table_types(),
    "data": DATASETS["digits"],
    "model": MODELS["digits_cnn"],
    "sparsity": METHODS["targeted"],
}
# Whose own settings hold a key. What comes after such a stage has another key too.
USED_BY = {
    "seed": {"train", "bench"},
    "data": {"train"},
    "model": {"train"},
    "sparsity": {"train"},
    "train": {"train"},
    "distill": {"train"},
    "prune": {"prune", "analyse"},
    "finetune": {"finetune"},
    "shrink": {"shrink"},
    "export": {"export"},
    "export.select": set(),
    "bench": {"bench"},
    "analyse": {"analyse"},
    # what [prune] takes over from the training
    **{f"sparsity.{key}": {"train", "prune", "analyse"} for key in ("scope", "unit", "shares", "exclude", "include")},
}
# These cannot be changed alone: another key has to go, or another stage comes.
NOT_ALONE = {
    "sparsity.keep_per_filter", "prune.keep_per_filter", "prune.granularity", "sparsity.granularity", "finetune.after",
    *(f"{table}.lr_schedule.{key}" for table in ("train", "finetune") for key in ("milestones", "factors")),
}  # fmt: skip
# What has to be set for a key to be allowed.
WITH = {
    "sparsity.schedule": {"sparsity.ramp_scale": True},
    "train.optimizer.nesterov": {"train.optimizer.momentum": 0.9},
    **{f"train.optimizer.{key}": {"train.optimizer.name": "adam"} for key in ("beta1", "beta2", "epsilon")},
    **{
        f"{table}.lr_schedule.{key}": {f"{table}.lr_schedule.name": name}
        for table in ("train", "finetune")
        for key, name in (("warmup_share", "one_cycle"), ("curve", "one_cycle"), ("final_factor", "cosine"))
    },
    "export.int8_range": {"export.values": ["int8"]},
    "distill.temperature": {"distill.weight": 0.5},
    "distill.weight": {"distill.temperature": 2.0},
}
# What the recipes below say already, or what it comes to where [prune] leaves it open.
SAID = {
    "sparsity.gamma": (0.5,),
    "prune.fraction": (0.5,),
    "prune.scope": ("layer",),
    "prune.unit": ("whole",),
    **dict.fromkeys(("prune.shares", "sparsity.shares"), ("filter", "layer")),
}
# Without which a key of [sparsity] has no effect.
IN_FORCE = {
    "sparsity.ramp_epochs": {"sparsity.schedule": "ramp", "sparsity.ramp_scale": True},
    "sparsity.ramp_scale": {"sparsity.schedule": "ramp", "sparsity.ramp_epochs": [0.25, 0.25]},
    **{f"sparsity.{key}": {"sparsity.schedule": "cubic"} for key in ("ramp_share", "alpha_share", "freeze_share")},
}


KEYS = [("seed", int, 0), *(key for table, kind in TYPES.items() for key in keys_below(kind, table))]
EVERY_KEY = [key for key in KEYS if key[0] not in NOT_ALONE]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    store = FolderStore(tmp_path_factory.mktemp("keys"))

    def make(text: str, **changes: Any) -> dict[str, Task]:
        plan = plan_run(parse_recipe(text, "keys.toml", changes), store)
        return {task.stage.name: task for task in plan.tasks() if task is not plan.dense}

    return make


@pytest.mark.parametrize(("path", "kind", "default"), EVERY_KEY, ids=lambda part: str(part))
def test_a_changed_key_gives_new_keys_to_the_stages_that_use_it_and_to_what_comes_after(
    tasks: Any, path: str, kind: Any, default: Any
) -> None:
    tried = 0
    for text, value in itertools.product((WEIGHTS, UNITS), others(kind, default)):
        if value in SAID.get(path, ()):
            continue
        needed = WITH.get(path, {})
        before = tasks(text, **needed)
        try:
            after = tasks(text, **needed, **{path: value})
        except RecipeError:
            continue
        if after.keys() != before.keys():  # a budget of "none" has no benchmark
            continue
        tried += 1
        parts = path.split(".")
        users = next(USED_BY[key] for end in (3, 2, 1) if (key := ".".join(parts[:end])) in USED_BY)
        own = {name for name, task in after.items() if content_key(task.settings) != content_key(before[name].settings)}
        assert own == users & before.keys()
        for name, task in after.items():
            made_anew = name in own or task.identity["inputs"] != before[name].identity["inputs"]
            assert (task.key != before[name].key) == made_anew
    assert tried, "no value of this key was accepted"


def is_swept(path: str) -> bool:
    return any(path == each or path.startswith(f"{each}.") for each in swept())


@pytest.mark.parametrize(
    ("path", "kind", "default"),
    [key for key in EVERY_KEY if is_swept(key[0]) and key[0] != "sparsity.schedule_epochs"],
    ids=lambda part: str(part),
)
def test_rows_are_told_apart_by_every_key_that_may_be_swept(tmp_path: Path, path: str, kind: Any, default: Any) -> None:
    tried = 0
    for text, value in itertools.product((WEIGHTS, UNITS), others(kind, default)):
        needed = WITH.get(path, {}) | IN_FORCE.get(path, {})
        if value in SAID.get(path, ()):
            continue
        cases = [{**needed, **case} for case in ({} if default is None else {path: default}, {path: value})]
        try:
            plan = plan_run(parse_recipe(text, "keys.toml", {"sweep.case": cases}), FolderStore(tmp_path))
        except RecipeError:
            continue
        one, other = plan.rows
        if one.export.key == other.export.key:  # one file: the key is of a step that is not taken here
            continue
        tried += 1
        assert one.config != other.config
        assert other.id != f"{one.id}-2" or isinstance(value, list)  # names have no words for lists
    assert tried, "no value of this key was accepted"


def test_every_file_of_the_folder_is_a_stage_that_owns_its_settings_and_work_and_its_version_is_listed() -> None:
    files = {module.name for module in pkgutil.iter_modules(stages.__path__)}
    assert files == set(STAGES) == set(VERSIONS)
    assert files == {"vocabulary", "train", "prune", "finetune", "shrink", "store", "export", "bench", "analyse"}
    for name, stage in STAGES.items():
        module = importlib.import_module(f"tdcompress.stages.{name}")
        assert (stage.name, stage.version, stage.settings, stage.run) == (name, VERSIONS[name], module.Settings, module.run)
        assert stage.settings.__module__ == module.__name__
        assert stage.record is not Any


def test_every_stage_is_in_the_contract_of_independence_and_on_the_design_page() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (independent,) = (contract["modules"] for contract in contracts if contract["name"].startswith("a stage knows no other"))
    assert {name.removeprefix("tdcompress.stages.") for name in independent} == set(STAGES)
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"\n\| stage \| files \| record \|\n\|[-|]+\n((?:\|.*\n)+)", page)
    assert {line.split()[1] for line in listed.splitlines()} == set(STAGES)


@pytest.fixture(scope="module")
def settings_of_every_stage(tasks: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    translator = TINY.format(root=write_corpus(tmp_path_factory.mktemp("corpus"), train=4, others=2))
    found = {task.stage.name: task.settings for text in (translator, WEIGHTS, UNITS) for task in tasks(text).values()}
    assert found.keys() == STAGES.keys()
    return found


@pytest.mark.parametrize(("stage", "other"), list(itertools.permutations(STAGES, 2)))
def test_settings_of_another_stage_are_refused(stage: str, other: str, settings_of_every_stage: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"stage {stage}: settings of type Settings are another stage's"):
        Task(stage=STAGES[stage], settings=settings_of_every_stage[other], title="wrong")


def names_of(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    ("begins", "used"),
    [
        ("`work` is", names_of(Workspace)),
        ("`work.machine` is all", names_of(Machine)),
        # of a manner, what changes a result; that the record keeps it is in the fields of both
        ("Settings may leave", names_of(Manner) & names_of(TrainRecord) & names_of(TrainSettings)),
    ],
)
def test_what_a_stage_may_use_besides_its_settings_and_inputs_is_listed_in_one_place(begins: str, used: set[str]) -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    (listed,) = re.findall(rf"^- ({re.escape(begins)}.*(?:\n  .*)*)", page, flags=re.MULTILINE)
    assert set(re.findall(r"`([a-z_]+)`", listed)) - {"work"} == used


def test_a_stage_gets_the_very_object_that_was_hashed(tmp_path: Path, make_recorder: Any) -> None:
    got: list[Any] = []
    stage = Stage(name="look", version=1, settings=dict, run=lambda settings, work: got.append((settings, work.machine)) or {})
    task, machine = Task(stage=stage, settings={"a": 1}, title="look"), Machine(device="cuda")
    artifact = Runner(store=FolderStore(tmp_path), watcher=make_recorder(), facts={}, machine=machine).ensure(task)
    ((settings, used),) = got
    assert settings is task.settings
    assert used is machine
    assert artifact.settings == settings


@pytest.mark.parametrize("order", list(itertools.permutations(("dense", "b", "a"))))
def test_a_stage_gets_its_inputs_in_the_order_that_its_key_knows(
    tmp_path: Path, make_recorder: Any, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    """The key sorts them, so tasks that name them in another order share one result: of a benchmark, the order of its files."""

    def write(settings: dict[str, str], work: Workspace) -> dict[str, str]:
        (work.folder / "model.onnx").touch()
        (work.folder / "samples.npz").touch()
        return {}

    export = Stage(name="export", version=1, settings=dict, run=write)
    inputs = {name: Task(stage=export, settings={"a": name}, title=name) for name in order}
    look = Stage(name="look", version=1, settings=dict, run=lambda settings, work: {"order": list(work.inputs)})
    runner = Runner(store=FolderStore(tmp_path), watcher=make_recorder(), facts={})
    task = Task(stage=look, settings={}, inputs=inputs, title="look")
    assert task.key == Task(stage=look, settings={}, inputs=dict(sorted(inputs.items())), title="look").key
    assert runner.ensure(task).record == {"order": ["a", "b", "dense"]}

    timed: list[Any] = []
    monkeypatch.setattr(bench, "read_deployed", lambda path: None)
    monkeypatch.setattr(bench, "sampled_inputs", lambda network, samples, batch: None)
    monkeypatch.setattr(bench, "benchmark", lambda files, **options: timed.append(files))
    made = {name: runner.ensure(each) for name, each in inputs.items()}
    work = Workspace(folder=tmp_path, inputs=made, machine=Machine(), progress=make_recorder())
    with pytest.raises(AttributeError):  # nothing was measured that could be written
        bench.run(bench.Settings(host="here", versions=(), seed=0), work)
    assert timed == [[made[name].file("model.onnx") for name in "ab"]]


@pytest.mark.parametrize("text", [WEIGHTS, UNITS])
def test_settings_come_back_from_a_manifest_as_they_were(tasks: Any, text: str) -> None:
    for task in tasks(text).values():
        assert decode(task.stage.settings, encode(task.settings)) == task.settings


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderData(ImageSettings):
    """A data set of one file: two images of that value."""

    name = "folder"
    root: str = "nowhere"

    def load(self) -> ImageDataset:
        images = Images(pixels=torch.full((2, 4, 4, 1), int(self._text()), dtype=torch.uint8), labels=torch.arange(2))
        digits = DATASETS["digits"]().load()
        return dataclasses.replace(digits, train=images, test=images)

    def content_hash(self, hash_file: Any = None) -> str:
        return f"content {self._text()}"

    def _text(self) -> str:
        return (Path(self.root) / "value").read_text()


def test_data_is_known_by_content_and_found_by_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("here", "7"), ("nowhere", "8")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "value").write_text(value)
    data = KnownData.of(FolderData(root="here"))
    assert data == KnownData.of(FolderData(root=str(tmp_path / "here")))  # wherever it lies
    assert "root" not in data.to_json()
    assert data.load({data.content: tmp_path / "here"}).test.pixels.max() == 7
    with pytest.raises(DataError, match="what lies in nowhere is other data than the network was trained on"):
        data.load({})


def test_data_that_changed_is_read_anew_by_the_same_process(tmp_path: Path) -> None:
    settings = FolderData(root=str(tmp_path))
    for value in (7, 8, 7):
        (tmp_path / "value").write_text(str(value))
        data = KnownData.of(settings)
        assert data.load({data.content: tmp_path}).test.pixels.unique().tolist() == [value]


def test_data_that_changed_after_it_was_hashed_is_refused(tmp_path: Path) -> None:
    value = tmp_path / "value"
    value.write_text("17")
    data = KnownData.of(FolderData(root=str(tmp_path)))
    value.write_text("18")
    with pytest.raises(DataError, match=re.escape(f"what lies in {tmp_path} is other data than") + ".* changed .* run again"):
        data.task({data.content: tmp_path})
    value.write_text("17")
    assert data.load({data.content: tmp_path}).test.pixels.max() == 17


def test_data_of_a_package_are_hashed_once_a_process() -> None:
    hashed = []

    class Packaged(DigitsSettings):
        def content_hash(self, hash_file: Any = None) -> str:
            hashed.append(self)
            return "as packaged"

    data = KnownData(content="as packaged", settings=Packaged())
    assert data.load({}).train is data.load({}).train
    assert len(hashed) == 1
    with pytest.raises(DataError, match="digits: the network was trained on other data than the package has"):
        KnownData(content="as packaged before", settings=Packaged()).load({})
