"""A changed key of any data set, model or method gives new keys to the stages that use it, and to what comes after them."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from recipe_keys import keys_below, others
from words import TINY, write_corpus

from tdcompress.artifacts import content_key
from tdcompress.data.cifar import CifarSettings
from tdcompress.data.mnist import IdxSettings
from tdcompress.data.registry import DATASETS
from tdcompress.errors import RecipeError
from tdcompress.methods.registry import METHODS
from tdcompress.models.registry import MODELS
from tdcompress.pipeline import Task
from tdcompress.recipes.source import parse_recipe
from tdcompress.runs.plan import plan_run
from tdcompress.stores.folder import FolderStore

IMAGES = """
name = "keys"
[data]
name = "digits"
[model]
name = "digits_cnn"
[sparsity]
method = "none"
[prune]
fraction = 0.5
"""
REGISTRIES: dict[str, dict[str, Any]] = {"data": DATASETS, "model": MODELS, "sparsity": METHODS}
# Folders of images are nobody's to fetch, and a schedule is as long as the training.
REFUSED = {("imagefolder", "data.download"), ("targeted", "sparsity.schedule_epochs")}
EVERY_KEY = [
    (table, name, *key)
    for table, registry in REGISTRIES.items()
    for name, kind in registry.items()
    for key in keys_below(kind, table)
    if (name, key[0]) not in REFUSED
]
PLACES = {"data.root", "data.download"}  # they say where data lies; keys know it by content
SHARED = {f"sparsity.{key}" for key in ("scope", "unit", "shares", "exclude", "include")}  # what [prune] takes over
# Methods that drop nothing, and what their training does not depend on: with an L1 penalty it does on the layers.
OF_NO_TRAINING = {"none": SHARED | {"sparsity.granularity"}, "l1": SHARED - {"sparsity.exclude"} | {"sparsity.granularity"}}
TEXT = {"data.source", "data.target", "data.train"}  # what a vocabulary is made of
# Of keys that take no value but of a certain kind: names of files that are there, sizes that fit.
VALUES: dict[str, Any] = {
    **dict.fromkeys(("data.source", "data.target"), "fr"),
    **dict.fromkeys(("data.train", "data.val", "data.test"), "more"),
    "data.vocabulary.size": 100,
    "data.vocabulary.coverage": 0.99,
    "data.resize": 300,
    "model.depth": 40,
    "model.heads": 2,
    "sparsity.shares": "erk",
    "sparsity.include": ["conv2"],
}
# What has to be set for a component to be taken, and for a key of it to be allowed.
NEEDED: dict[str, dict[str, Any]] = {
    "targeted": {"sparsity.gamma": 0.5},
    "random_prune": {"sparsity.fraction": 0.5},
    "l1": {"sparsity.l1": 0.001},
}
WITH: dict[str, dict[str, Any]] = {
    "sparsity.schedule": {"train.epochs": 98},
    "sparsity.ramp_epochs": {"sparsity.schedule": "ramp", "sparsity.ramp_scale": True},
    "sparsity.ramp_scale": {"sparsity.schedule": "ramp", "sparsity.ramp_epochs": [0.25, 0.25]},
    **{f"sparsity.{key}": {"sparsity.schedule": "cubic"} for key in ("ramp_share", "alpha_share", "freeze_share")},
    **{f"sparsity.{key}": {"sparsity.granularity": "unit"} for key in ("scope", "unit", "draw", "include")},
    "sparsity.granularity": {"prune.granularity": "weight"},
}
WITHOUT = {"sparsity.keep_per_filter": {"sparsity.gamma"}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files by the names that data sets look for; planning reads no image."""
    folder = tmp_path_factory.mktemp("data")
    write_corpus(folder, train=4, others=2)
    for language in ("en", "de"):
        (folder / f"more.{language}").write_text("six\n", encoding="utf-8")
    for part in ("train", "val", "test", "more"):
        (folder / f"{part}.fr").write_text("un\n" * len((folder / f"{part}.en").read_text().splitlines()), encoding="utf-8")
    files = [f"{part}/{name}/one.png" for part in ("train", "val") for name in ("cat", "dog")]
    for kind in DATASETS.values():
        if issubclass(kind, CifarSettings):
            files += [f"{kind.folder}/{name}" for name in (*kind.train_files, *kind.test_files, kind.meta_file[0])]
        elif issubclass(kind, IdxSettings):
            files += [f"{kind.folder}/raw/{name}" for name in kind.archives]
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture(scope="module")
def tasks(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    store = FolderStore(tmp_path_factory.mktemp("keys"))

    def make(table: str, name: str, changes: dict[str, Any]) -> dict[str, Task]:
        text = TINY.format(root=root) if name in ("parallel_text", "transformer") else IMAGES
        named = {"sparsity.method" if table == "sparsity" else f"{table}.name": name}
        if table == "sparsity" and not {"sparsity.granularity", "prune.granularity"} & changes.keys():  # of weights alone
            named["analyse.bins"] = 8
        lies = {"data.root": str(root)} if table == "data" and name != "digits" else {}
        plan = plan_run(parse_recipe(text, "keys.toml", {**named, **lies, **changes}), store)
        return {task.stage.name: task for task in plan.tasks() if task is not plan.dense}

    return make


def users_of(name: str, path: str) -> set[str]:
    """The stages whose own settings hold a component's key."""
    if path in OF_NO_TRAINING.get(name, ()):
        return {"prune", "analyse"} if path in SHARED else set()
    if path in SHARED:
        return {"train", "prune", "analyse"}
    if path in TEXT or path.startswith("data.vocabulary."):
        return {"train", "vocabulary"}
    return set() if path in PLACES else {"train"}


def first_accepted(tasks: Any, table: str, name: str, choices: list[dict[str, Any]]) -> dict[str, Task]:
    """The tasks of the first of these changes that a recipe may make."""
    for changes in choices:
        with suppress(RecipeError):
            return tasks(table, name, changes)
    pytest.fail(f"none of these values was accepted: {choices}")


@pytest.mark.parametrize(("table", "name", "path", "kind", "default"), EVERY_KEY, ids=lambda part: str(part))
def test_the_stages_that_use_it_get_new_keys_and_no_others(
    tasks: Any, root: Path, table: str, name: str, path: str, kind: Any, default: Any
) -> None:
    given = {**NEEDED.get(name, {}), **WITH.get(path, {})}
    given = {key: value for key, value in given.items() if key not in WITHOUT.get(path, ())}
    before = tasks(table, name, {key: value for key, value in given.items() if key != path} | NEEDED.get(name, {}))
    values = [VALUES[path]] if path in VALUES else others(kind, given.get(path, default))
    if path == "data.root":
        values = [f"{root}/../{root.name}"]
    after = first_accepted(tasks, table, name, [{**given, path: value} for value in values])
    assert after.keys() == before.keys()
    own = {stage for stage, task in after.items() if content_key(task.settings) != content_key(before[stage].settings)}
    assert own == users_of(name, path) & before.keys()
    for stage, task in after.items():
        made_anew = stage in own or task.identity["inputs"] != before[stage].identity["inputs"]
        assert (task.key != before[stage].key) == made_anew
