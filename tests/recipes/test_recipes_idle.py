"""What a recipe says has an effect in one of its combinations, or is refused."""

from dataclasses import replace
from typing import Any

import pytest

from tdcompress.errors import RecipeError
from tdcompress.recipes.combinations import Combinations, combinations
from tdcompress.recipes.source import parse_recipe

RECIPE = """\
name = "idle"
[data]
name = "digits"
[model]
name = "digits_cnn"
[sparsity]
method = "targeted"
gamma = 0.5
[train]
epochs = 100
[prune]
fraction = 0.5
"""
TRAINED = {"sparsity.granularity": "weight", "prune.granularity": "unit"}


def check(text: str, changes: dict[str, Any] | None = None, *, shared: bool = False) -> Combinations:
    return combinations(replace(parse_recipe(text, "r.toml", changes), shared=shared))


def refusal(text: str, changes: dict[str, Any] | None = None) -> str:
    with pytest.raises(RecipeError) as raised:
        check(text, changes)
    return str(raised.value)


def with_lines(table: str, *lines: str) -> str:
    return RECIPE.replace(f"[{table}]\n", "\n".join([f"[{table}]", *lines, ""]))


CUBIC, RAMP = 'sparsity.schedule = "cubic"', 'sparsity.schedule = "ramp"'
UNITS = 'prune.granularity = "unit"'
PIECEWISE = 'lr_schedule.name = "piecewise"'


@pytest.mark.parametrize(
    ("changes", "key", "value", "needed", "enough"),
    [
        ({}, "sparsity.freeze_share", 0.3, CUBIC, {"sparsity.schedule": "cubic"}),
        ({"sparsity.schedule": "ramp"}, "sparsity.alpha_share", [0, 0.6], CUBIC, {"sparsity.schedule": "cubic"}),
        ({}, "sparsity.ramp_share", [0.0, 0.4], CUBIC, {"sparsity.schedule": "cubic"}),
        ({}, "sparsity.schedule_epochs", 100, CUBIC, {"sparsity.schedule": "cubic"}),
        ({}, "sparsity.ramp_scale", True, RAMP, {"sparsity.schedule": "ramp"}),
        ({"sparsity.schedule": "cubic"}, "sparsity.ramp_epochs", [1, 1], RAMP, {"sparsity.schedule": "ramp"}),
        ({}, "sparsity.scope", "group", 'sparsity.granularity = "unit"', {"sparsity.granularity": "unit"}),
        ({}, "sparsity.unit", "filter", 'sparsity.granularity = "unit"', {"prune.granularity": "unit"}),
        (TRAINED | {"prune.scope": "layer"}, "sparsity.scope", "group", 'sparsity.granularity = "unit"', TRAINED),
        ({}, "prune.recalibrate_on", "augmented", "prune.recalibrate above 0", {"prune.recalibrate": 8}),
        (
            {"prune.recalibrate": 8, "data.crop_padding": 0},
            "prune.recalibrate_on",
            "augmented",
            "images that are augmented, by keys of [data] such as data.crop_padding",
            {"data.crop_padding": 1},
        ),
        ({}, "sparsity.draw", "weight", 'sparsity.granularity = "unit"', {"sparsity.granularity": "unit"}),
        ({}, "prune.scope", "group", UNITS, {"prune.granularity": "unit"}),
        ({"prune.granularity": "1x4"}, "prune.unit", "whole", UNITS, {"prune.granularity": "unit"}),
        ({"prune.granularity": "2:4"}, "prune.align", 4, UNITS, {"prune.granularity": "unit"}),
        ({}, "prune.align", 1, UNITS, {"sparsity.granularity": "unit"}),
        ({}, "shrink.align", 16, UNITS, {"prune.granularity": "unit"}),
        ({}, "train.average_share", 0.2, 'train.average = "ema" or "last"', {"train.average": "last"}),
        ({"train.average": "last"}, "train.average_decay", 0.9, 'train.average = "ema"', {"train.average": "ema"}),
        ({}, "train.lr_schedule.unit", "epochs", f"train.{PIECEWISE}", None),
        ({"train.lr_schedule.name": "cosine"}, "train.lr_schedule.unit", "share", f"train.{PIECEWISE}", None),
        ({"finetune.epochs": 1}, "finetune.lr_schedule.unit", "share", f"finetune.{PIECEWISE}", None),
        ({}, "finetune.lr_schedule", {"name": "cosine"}, "finetune.epochs above 0", {"finetune.epochs": 1}),
        ({}, "finetune.lr", 0.1, "finetune.epochs above 0", {"finetune.epochs": 1}),
        ({}, "finetune.after", "prune", "finetune.epochs above 0", {"finetune.epochs": 1}),
        ({}, "export.int8_range", "full", '"int8" among export.values', {"export.values": ["float32", "int8"]}),
        ({"export.pack": "never"}, "export.prefer", "size", 'export.pack = "auto"', {"export.pack": "auto"}),
        *(
            ({"bench.budget": "none"}, f"bench.{key}", value, 'bench.budget = "quick" or "full"', {"bench.budget": "full"})
            for key, value in (("threads", [4]), ("batch", [1]), ("backend", ["engine"]), ("provider", "CPUExecutionProvider"))
        ),
    ],
)
def test_a_key_without_effect_is_refused_with_what_it_needs(
    changes: dict[str, Any], key: str, value: Any, needed: str, enough: dict[str, Any] | None
) -> None:
    written = f"{key}.name" if isinstance(value, dict) else key
    said = f"--set {written}: it does nothing without {needed}; set that, or leave {key} out"
    assert refusal(RECIPE, {**changes, key: value}) == said
    if enough is not None:
        check(RECIPE, {**{name: kept for name, kept in changes.items() if name != "prune.scope"}, **enough, key: value})


def test_piecewise_schedules_have_units() -> None:
    piecewise = {"name": "piecewise", "unit": "share", "milestones": [0.5], "factors": [0.1]}
    check(RECIPE, {"train.lr_schedule": piecewise, "finetune.epochs": 1, "finetune.lr_schedule": piecewise})


def test_shares_that_neither_training_nor_pruning_takes() -> None:
    dropout = RECIPE.replace('"targeted"\ngamma', '"dropout"\nalpha')
    check(RECIPE, {"sparsity.shares": "erk", "prune.shares": "layer"})  # the training is split by them
    check(dropout, {"sparsity.shares": "erk"})  # and here the pruning
    for changes in ({"prune.shares": "layer"}, {"prune.granularity": "unit"}):
        assert refusal(dropout, {"sparsity.shares": "erk", **changes}).startswith(
            "--set sparsity.shares: it does nothing without a"
        )


def test_the_curve_of_no_warm_up() -> None:
    variational = RECIPE.replace('"targeted"\ngamma = 0.5', '"variational"\nwarmup_curve = "exponential"')
    check(variational)
    assert "sparsity.warmup_curve: it does nothing without sparsity.warmup above 0" in refusal(
        variational.replace("warmup_curve", "warmup = 0.0\nwarmup_curve")
    )


def test_distillation_that_no_training_learns_by_is_refused() -> None:
    text = RECIPE.replace('"targeted"\ngamma = 0.5', '"none"') + "[distill]\n"
    assert refusal(text) == (
        'r.toml, line 12: distill: it does nothing without another sparsity.method than "none"; set that, or leave distill out'
    )
    assert "line 13: distill.weight: it does nothing" in refusal(text + "weight = 0.5\n")
    check(text + '[sweep]\n"sparsity.method" = ["none", "dropout"]\n')


def test_the_line_is_the_keys_own_and_all_such_keys_are_named() -> None:
    text = with_lines("sparsity", "freeze_share = 0.3", "alpha_share = [0, 0]") + "align = 4\n"
    assert refusal(text) == (
        f"r.toml, line 8: sparsity.alpha_share: it does nothing without {CUBIC}; set that, or leave sparsity.alpha_share out "
        "(likewise sparsity.freeze_share, prune.align)"
    )


CASES = '[[sweep.case]]\n"sparsity.schedule" = "constant"\n{}[[sweep.case]]\n"sparsity.schedule" = "cubic"\n{}'


def test_a_key_of_the_base_may_be_for_some_combinations() -> None:
    check(with_lines("sparsity", "freeze_share = 0.2") + CASES.format("", ""))
    check(with_lines("train", "average_decay = 0.9") + '[sweep]\n"train.average" = ["none", "ema"]\n')
    check(RECIPE + '[finetune]\nlr = 0.1\n[sweep]\n"finetune.epochs" = [0, 5]\n')
    check(with_lines("sparsity", 'scope = "group"') + '[sweep]\n"prune.granularity" = ["weight", "unit"]\n')


def test_fine_tuning_that_is_off_does_not_stand_in_the_way_of_weights() -> None:
    base = RECIPE + '[finetune]\nafter = "shrink"\nepochs = 2\n'
    unit, weight = '[[sweep.case]]\n"prune.granularity" = "unit"\n', '[[sweep.case]]\n"finetune.epochs" = 0\n'
    assert [each.finetune.epochs for each in check(base + unit + weight).experiments] == [2, 0]
    units = with_lines("prune", 'granularity = "unit"') + '[finetune]\nafter = "shrink"\nepochs = 2\n'
    (off,) = check(units, {"prune.granularity": "weight", "finetune.epochs": 0}).experiments
    assert (off.pruning.granularity, off.finetune.epochs, off.finetune.after) == ("weight", 0, "prune")
    assert "finetune.after: weights are pruned here, and only units are shrunk" in refusal(base)


def test_a_key_of_a_case_or_list_has_an_effect_in_one_of_its_combinations() -> None:
    key = '"sparsity.freeze_share" = 0.2\n'
    check(RECIPE + CASES.format("", key))
    text = RECIPE + CASES.format(key, key)
    line = text.splitlines().index(key.strip()) + 1
    assert f"line {line}: sparsity.freeze_share: it does nothing without {CUBIC}" in refusal(text)
    lists = '[sweep]\n"sparsity.freeze_share" = [0.0, 0.3]\n'
    assert f"line 14: sparsity.freeze_share: it does nothing without {CUBIC}" in refusal(RECIPE + lists)
    assert "the combination sparsity.schedule = 'constant', sparsity.freeze_share = 0.3 comes twice" in refusal(
        RECIPE + lists + CASES.format("", "")  # one training, twice
    )


UNIT = RECIPE.replace('"targeted"', '"targeted"\ngranularity = "unit"')


@pytest.mark.parametrize(
    ("text", "table", "idle", "changes"),
    [
        (with_lines("train", 'average = "last"'), "train", "average_share = 0.3", {"train.average": "none"}),
        (with_lines("train", 'average = "ema"'), "train", "average_decay = 0.9", {"train.average": "last"}),
        (RECIPE + "[finetune]\nepochs = 2\n", "finetune", "lr = 0.1", {"finetune.epochs": 0}),
        (RECIPE + "[finetune]\nepochs = 2\n", "finetune", 'lr_schedule = { name = "cosine" }', {"finetune.epochs": 0}),
        (with_lines("sparsity", 'schedule = "ramp"'), "sparsity", "ramp_epochs = [9, 9]", {"sparsity.schedule": "constant"}),
        (with_lines("sparsity", 'schedule = "cubic"'), "sparsity", "freeze_share = 0.2", {"sparsity.schedule": "constant"}),
        (UNIT, "sparsity", 'scope = "group"', {"sparsity.granularity": "weight"}),
        (UNIT + "[shrink]\n", "shrink", "align = 8", {"prune.granularity": "weight"}),
        (RECIPE + "[export]\n", "export", 'prefer = "size"', {"export.pack": "never"}),
        (RECIPE + '[export]\nvalues = ["int8"]\n', "export", 'int8_range = "full"', {"export.values": ["float32"]}),
    ],
)
def test_what_a_change_turns_off_is_as_if_it_were_not_written(text: str, table: str, idle: str, changes: dict[str, Any]) -> None:
    written = text.replace(f"[{table}]\n", f"[{table}]\n{idle}\n")
    check(written)
    found, bare = check(written, changes), check(text, changes)
    assert found.experiments == bare.experiments
    assert found.recipe.values == bare.recipe.values


def test_a_teacher_that_a_change_leaves_nobody_to_teach() -> None:
    text = RECIPE.replace("gamma = 0.5\n", "").replace('"targeted"', '"dropout"') + "[distill]\n"
    assert "distill" not in check(text, {"sparsity.method": "none"}).recipe.values


def test_what_the_file_alone_has_in_vain_is_refused_whatever_is_changed() -> None:
    text = with_lines("train", "average_share = 0.3")
    for changes in ({}, {"train.epochs": 1}, {"train.average": "none"}):
        assert refusal(text, changes).startswith("r.toml, line 10: train.average_share: it does nothing without")
    check(text, {"train.average": "last"})
    nameless = text.replace('name = "idle"\n', "")
    assert "train.average_share: it does nothing" in refusal(nameless, {"name": "idle"})


def test_a_sweep_over_what_a_change_turns_off_is_refused() -> None:
    text = with_lines("sparsity", 'schedule = "cubic"') + '[sweep]\n"sparsity.freeze_share" = [0.0, 0.3]\n'
    assert "line 15: sparsity.freeze_share: it does nothing" in refusal(text, {"sparsity.schedule": "constant"})


def test_a_change_of_several_recipes_may_do_nothing_in_one() -> None:
    changes = {"shrink.align": 16}
    assert refusal(RECIPE, changes).startswith("--set shrink.align: it does nothing without")
    assert check(RECIPE, changes, shared=True).experiments == check(RECIPE).experiments
    with pytest.raises(RecipeError, match=r"line 10: train.average_share: it does nothing"):
        check(with_lines("train", "average_share = 0.3"), changes, shared=True)
