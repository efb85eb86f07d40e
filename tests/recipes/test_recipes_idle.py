"""What a recipe says has an effect in one of its combinations, or is refused."""

from typing import Any

import pytest

from tdcompress.errors import RecipeError
from tdcompress.recipes.experiment import resolve
from tdcompress.recipes.idle import require_effect
from tdcompress.recipes.source import expand_sweep, parse_recipe

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


def check(text: str, changes: dict[str, Any] | None = None) -> None:
    variants = expand_sweep(parse_recipe(text, "r.toml", changes))
    require_effect(variants, [resolve(variant) for variant in variants])


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
        variational, {"sparsity.warmup": 0.0}
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


def test_a_key_of_a_case_or_list_has_an_effect_in_one_of_its_combinations() -> None:
    key = '"sparsity.freeze_share" = 0.2\n'
    check(RECIPE + CASES.format("", key))
    text = RECIPE + CASES.format(key, key)
    line = text.splitlines().index(key.strip()) + 1
    assert f"line {line}: sparsity.freeze_share: it does nothing without {CUBIC}" in refusal(text)
    lists = '[sweep]\n"sparsity.freeze_share" = [0.0, 0.3]\n'
    assert f"line 14: sparsity.freeze_share: it does nothing without {CUBIC}" in refusal(RECIPE + lists)
    check(RECIPE + lists + CASES.format("", ""))
