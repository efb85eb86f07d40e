"""A changed key gives new keys to the stages that use it and to what comes after them, and tells rows apart."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from every_stage import UNITS, WEIGHTS
from recipe_keys import keys_below, others

from tdcompress.artifacts import content_key
from tdcompress.data.registry import DATASETS
from tdcompress.errors import RecipeError
from tdcompress.methods.registry import METHODS
from tdcompress.models.registry import MODELS
from tdcompress.recipes.experiment import table_types
from tdcompress.recipes.source import parse_recipe
from tdcompress.recipes.sweep import swept
from tdcompress.runs.plan import plan_run
from tdcompress.stores.folder import FolderStore

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
    "sparsity.schedule_epochs",
    *(f"{table}.lr_schedule.{key}" for table in ("train", "finetune") for key in ("milestones", "factors")),
}  # fmt: skip
# What has to be set for a key to be allowed.
WITH = {
    "sparsity.schedule": {"train.epochs": 98},
    "sparsity.ramp_epochs": {"sparsity.schedule": "ramp", "sparsity.ramp_scale": True},
    "sparsity.ramp_scale": {"sparsity.schedule": "ramp", "sparsity.ramp_epochs": [0.25, 0.25]},
    **{f"sparsity.{key}": {"sparsity.schedule": "cubic"} for key in ("ramp_share", "alpha_share", "freeze_share")},
    "train.average_share": {"train.average": "last"},
    "train.average_decay": {"train.average": "ema"},
    "prune.recalibrate_on": {"prune.recalibrate": 8},
    **{
        f"{table}.lr_schedule.unit": {
            f"{table}.lr_schedule.{key}": value
            for key, value in (("name", "piecewise"), ("milestones", [0.25]), ("factors", [0.1]))
        }
        for table in ("train", "finetune")
    },
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
# What the recipes say already, or what it comes to where [prune] leaves it open.
SAID = {
    "sparsity.gamma": (0.5,),
    "prune.fraction": (0.5,),
    "prune.scope": ("layer",),
    "prune.unit": ("whole",),
    **dict.fromkeys(("prune.shares", "sparsity.shares"), ("filter", "layer")),
}


KEYS = [("seed", int, 0), *(key for table, kind in TYPES.items() for key in keys_below(kind, table))]
EVERY_KEY = [key for key in KEYS if key[0] not in NOT_ALONE]


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
    [key for key in EVERY_KEY if is_swept(key[0])],
    ids=lambda part: str(part),
)
def test_rows_are_told_apart_by_every_key_that_may_be_swept(tmp_path: Path, path: str, kind: Any, default: Any) -> None:
    tried = 0
    for text, value in itertools.product((WEIGHTS, UNITS), others(kind, default)):
        needed = WITH.get(path, {})
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
