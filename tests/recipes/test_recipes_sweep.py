"""Nothing that a sweep, or a change beside it, sets is lost without a word, and messages name its line."""

from typing import Any

import pytest

from tdcompress.errors import RecipeError
from tdcompress.recipes.experiment import Experiment, resolve
from tdcompress.recipes.positions import key_lines
from tdcompress.recipes.source import parse_recipe
from tdcompress.recipes.sweep import expand_sweep

RECIPE = """\
name = "swept"
[data]
name = "digits"
[model]
name = "digits_cnn"
[sparsity]
method = "targeted"
gamma = 0.5
[train]
epochs = 3
optimizer = { name = "sgd", lr = 0.1 }
[prune]
fraction = 0.5
recalibrate = 100
"""


def experiments(text: str, changes: dict[str, Any] | None = None) -> list[Experiment]:
    return [resolve(variant) for variant in expand_sweep(parse_recipe(RECIPE + text, "r.toml", changes))]


def refusal(text: str, changes: dict[str, Any] | None = None) -> str:
    with pytest.raises(RecipeError) as raised:
        experiments(text, changes)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[sweep]\n"prune.fraction" = [0.5, 0.9]\n[[sweep.case]]\nseed = 1\n"prune.fraction" = 0.75\n',
            "line 19: sweep: 'prune.fraction' is set twice in one combination; leave one of them out",
        ),
        (
            '[sweep]\n"train.optimizer" = [{ name = "sgd" }, { name = "adam" }]\n[[sweep.case]]\n"train.optimizer.lr" = 0.2\n',
            "line 18: sweep: 'train.optimizer.lr' is set twice in one combination, the second time by 'train.optimizer'; "
            "leave one of them out",
        ),
        (
            '[[sweep.case]]\n"train.optimizer" = { name = "sgd", lr = 0.2 }\n"train.optimizer.lr" = 0.3\n',
            "line 16: sweep: 'train.optimizer.lr' is set twice in one combination; leave one of them out",
        ),
    ],
)
def test_a_value_that_another_one_of_its_combination_replaces_is_refused(text: str, said: str) -> None:
    assert refusal(text) == f"r.toml, {said}"


def test_a_list_below_a_cases_table_adds_to_it() -> None:
    text = '[sweep]\n"train.optimizer.lr" = [0.2, 0.3]\n[[sweep.case]]\n"train.optimizer" = { name = "sgd", momentum = 0.9 }\n'
    assert [(each.train.optimizer.lr, each.train.optimizer.momentum) for each in experiments(text)] == [(0.2, 0.9), (0.3, 0.9)]


def test_keys_without_quotation_marks_do_not_drop_the_rest_of_their_table() -> None:
    """TOML makes tables of them, which would take the place of the recipe's own."""
    assert refusal("[[sweep.case]]\nprune.fraction = 0.9\n") == (
        "r.toml, line 15: prune: the whole table is set, without prune.recalibrate, which the recipe has; give single keys: "
        '"prune.fraction"'
    )
    assert refusal("[[sweep.case]]\ntrain.optimizer.lr = 0.9\n") == (
        "r.toml, line 15: train: the whole table is set, without train.epochs, train.optimizer.name, which the recipe has; give "
        'single keys: "train.optimizer.lr"'
    )
    assert refusal("", {"train": {"epochs": 5}}) == (
        "--set train: the whole table is set, without train.optimizer.name, train.optimizer.lr, which the recipe has; give "
        'single keys: "train.epochs"'
    )
    assert len(experiments("[sweep]\nseed = [0, 1]\n", {"sweep": {}})) == 1
    assert refusal("[sweep]\nprune.fraction = [0.5, 0.9]\n") == (
        "r.toml, line 15: sweep.'prune': a list with at least one value is needed, such as [0.5, 0.9], and its key in quotation "
        'marks, "prune.fraction"'
    )
    (found,) = experiments("[[sweep.case]]\nfinetune.epochs = 2\n")  # the recipe has no such table
    assert (found.finetune.epochs, found.pruning.recalibrate) == (2, 100)


def test_a_change_of_what_the_sweep_replaces_is_refused() -> None:
    whole = '[sweep]\n"train.optimizer" = [{ name = "sgd" }, { name = "adam" }]\n'
    assert refusal(whole, {"train.optimizer.lr": 0.7}) == (
        "--set train.optimizer.lr: the recipe sweeps over train.optimizer; set its list: --set 'sweep.train.optimizer=[...]'"
    )
    rate = '[[sweep.case]]\n"train.optimizer.lr" = 0.2\n[[sweep.case]]\n"train.optimizer.lr" = 0.3\n'
    assert refusal(rate, {"train.optimizer": {"name": "sgd", "lr": 0.7}}) == (
        "--set train.optimizer: the recipe sweeps over train.optimizer.lr, in [[sweep.case]]; change it in a copy of the recipe"
    )
    found = experiments(rate, {"train.optimizer": {"name": "sgd", "momentum": 0.9}})
    assert [(each.train.optimizer.lr, each.train.optimizer.momentum) for each in found] == [(0.2, 0.9), (0.3, 0.9)]


def test_keys_in_single_quotation_marks_have_their_line() -> None:
    assert key_lines("['a']\n'b.c' . d = 1\n") == {"a": 1, "a.b.c.d": 2}
    for table in ("[sweep]\n'sparsity.gama' = [0.3]\n", "[[sweep.case]]\n'sparsity.gama' = 0.3\n"):
        assert refusal(table).startswith("r.toml, line 16: sparsity.gama: unknown key; did you mean 'gamma'?")


def test_a_key_with_an_empty_part_is_told_where_it_is() -> None:
    assert refusal('[sweep]\n"train..epochs" = [1]\n') == "r.toml, line 16: train..epochs: not a dotted key"
    assert refusal("", {"train..epochs": 1}) == "--set train..epochs: not a dotted key"
    assert refusal("", {"train.epochs.x": 1}) == "--set train.epochs.x: epochs is a value, not a table"


@pytest.mark.parametrize("name", ['"half/rate"', '""', '" rate"', '"rate "', '"-rate"', "3", f'"{"a" * 33}"'])
def test_a_name_that_cannot_begin_names_of_files_is_refused(name: str) -> None:
    told = refusal(f"[[sweep.case]]\nseed = 1\n[[sweep.case]]\nname = {name}\n")
    assert told.startswith("r.toml, line 18: sweep.case.name: ")
    assert told.endswith("cannot name rows; use at most 32 letters, digits, spaces and . _ + -")


def test_a_cases_name_is_no_key_of_the_recipe() -> None:
    (found,) = expand_sweep(parse_recipe(RECIPE + '[[sweep.case]]\nname = "half the rate"\n', overrides={"name": "other"}))
    assert (found.name, found.case, found.chosen) == ("other", "half the rate", {})
    assert found.values == parse_recipe(RECIPE, overrides={"name": "other"}).values
