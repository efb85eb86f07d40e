"""No two combinations of a recipe make one row; what --set or a combination turns off leaves its own keys behind."""

from typing import Any

import pytest

from tdcompress.errors import RecipeError
from tdcompress.recipes.combinations import Combinations, combinations
from tdcompress.recipes.source import parse_recipe

RECIPE = """\
name = "combined"
[data]
name = "digits"
[model]
name = "digits_cnn"
[sparsity]
method = "dropout"
[prune]
fraction = 0.5
"""


def check(text: str, changes: dict[str, Any] | None = None) -> Combinations:
    return combinations(parse_recipe(text, "r.toml", changes))


def refusal(text: str, changes: dict[str, Any] | None = None) -> str:
    with pytest.raises(RecipeError) as raised:
        check(text, changes)
    return str(raised.value)


AGAIN = "again; write cases of what makes a difference"


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        (
            '[[sweep.case]]\n"prune.fraction" = 0.9\n[[sweep.case]]\n"prune.fraction" = 0.9\n',
            "line 13: sweep: the combination prune.fraction = 0.9 comes twice",
        ),
        (
            '[[sweep.case]]\n[[sweep.case]]\n"prune.shares" = "filter"\n',
            "line 12: sweep: the combination prune.shares = 'filter' comes twice: it makes the row of the recipe without these "
            "keys " + AGAIN,
        ),
        (
            '[sweep]\n"train.lr_schedule" = [{}, { name = "constant" }]\n',
            "line 11: sweep: the combination train.lr_schedule = {'name': 'constant'} comes twice: it makes the row of "
            "train.lr_schedule = {} " + AGAIN,
        ),
        (
            '[distill]\n[sweep]\n"sparsity.method" = ["none", "dropout"]\n"distill.weight" = [0.5, 0.7]\n',
            "line 13: sweep: the combination sparsity.method = 'none', distill.weight = 0.7 comes twice: it makes the row of "
            "sparsity.method = 'none', distill.weight = 0.5 " + AGAIN,
        ),
        (
            '[sweep]\n"prune.granularity" = ["weight", "unit"]\n"prune.scope" = ["layer", "group"]\n',
            "line 12: sweep: the combination prune.granularity = 'weight', prune.scope = 'group' comes twice: it makes the row "
            "of prune.granularity = 'weight', prune.scope = 'layer' " + AGAIN,
        ),
        (
            'exclude = []\n[sweep]\n"sparsity.method" = ["none"]\n"sparsity.exclude" = [["conv1"], ["conv2"]]\n',
            "line 13: sweep: the combination sparsity.method = 'none', sparsity.exclude = ['conv2'] comes twice: it makes the "
            "row of sparsity.method = 'none', sparsity.exclude = ['conv1'] " + AGAIN,
        ),
        (
            '[sweep]\n"export.values" = [["float32"], ["float16", "float32"]]\n',
            "line 11: sweep: the combination export.values = ['float16', 'float32'] comes twice: it makes the row of "
            "export.values = ['float32'] " + AGAIN,
        ),
    ],
)
def test_a_row_that_comes_twice_is_refused(sweep: str, said: str) -> None:
    assert refusal(RECIPE + sweep) == f"r.toml, {said}"


def test_a_list_of_a_change_that_makes_a_row_twice_is_named() -> None:
    assert refusal(RECIPE, {"sweep.train.lr_schedule": [{}, {"name": "constant"}]}).startswith("--set train.lr_schedule: sweep: ")


def test_rows_that_differ_in_anything_that_has_an_effect_are_kept() -> None:
    lists = (
        '[sweep]\n"prune.fraction" = [0.0, 0.5]\n"prune.granularity" = ["weight", "unit"]\n"export.pack" = ["auto", "never"]\n'
    )
    assert len(check(RECIPE + lists).experiments) == 8
    cases = "".join(f"[[sweep.case]]\n{key}\n" for key in ('"sparsity.method" = "none"', '"distill.weight" = 0.5', "seed = 1"))
    assert len(check(RECIPE + cases).experiments) == 3


TARGETED = RECIPE.replace('"dropout"\n', '"targeted"\n{}\n')
PIECEWISE = 'name = "piecewise", unit = "share", milestones = [0.5], factors = [0.1], warmup_epochs = 0.5'


@pytest.mark.parametrize(
    ("text", "bare", "changes"),
    [
        (TARGETED.format("gamma = 0.5\nalpha = 0.9"), RECIPE, {"sparsity.method": "none"}),
        (TARGETED.format('gamma = 0.5\nschedule = "cubic"\nfreeze_share = 0.1'), RECIPE, {"sparsity.method": "none"}),
        (TARGETED.format('keep_per_filter = 3\nexclude = ["conv2"]'), None, {"sparsity.method": "none"}),
        (
            RECIPE + f"[train]\nlr_schedule = {{ {PIECEWISE} }}\n",
            RECIPE + "[train]\nlr_schedule = { warmup_epochs = 0.5 }\n",
            {"train.lr_schedule.name": "constant"},
        ),
        (
            RECIPE + '[finetune]\nepochs = 1\nlr_schedule = { name = "one_cycle", warmup_share = 0.2, curve = "cosine" }\n',
            RECIPE + "[finetune]\nepochs = 1\n",
            {"finetune.lr_schedule.name": "constant"},
        ),
    ],
)
def test_what_a_change_turns_off_leaves_its_own_keys_behind(text: str, bare: str | None, changes: dict[str, Any]) -> None:
    check(text)
    bare = RECIPE.replace("[prune]", 'exclude = ["conv2"]\n[prune]') if bare is None else bare
    found, plain = check(text, changes), check(bare, changes)
    assert found.experiments == plain.experiments
    assert found.recipe.values == plain.recipe.values


def test_a_combination_that_turns_its_base_off_leaves_the_keys_of_that_behind() -> None:
    base = TARGETED.format("gamma = 0.5\nalpha = 0.9")
    dense, base_alone, other = (
        check(base + '[[sweep.case]]\n"sparsity.method" = "none"\n[[sweep.case]]\n[[sweep.case]]\n"sparsity.gamma" = 0.7\n')
    ).experiments
    assert [dense] == list(check(RECIPE.replace('"dropout"', '"none"')).experiments)
    assert [base_alone, other] == [*check(base).experiments, *check(base.replace("0.5", "0.7", 1)).experiments]
    listed = check(base + '[sweep]\n"sparsity.method" = ["none", "targeted"]\n', {"sparsity.gamma": 0.6}).experiments
    assert listed == (dense, *check(base, {"sparsity.gamma": 0.6}).experiments)


def test_a_combination_that_gives_a_key_to_what_it_turns_off_is_refused() -> None:
    case = '[[sweep.case]]\n"sparsity.method" = "none"\n"sparsity.gamma" = 0.7\n[[sweep.case]]\n'
    assert "sparsity.gamma: unknown key; it belongs to method" in refusal(TARGETED.format("gamma = 0.5") + case)


def test_keys_that_nothing_ever_had_or_that_a_change_gives_are_refused_with_what_is_off() -> None:
    off = {"sparsity.method": "none"}
    assert "line 9: sparsity.gama: unknown key" in refusal(RECIPE.replace('"dropout"', '["dropout"]\n\ngama = 1'), off)
    assert "line 9: sparsity.gama: unknown key" in refusal(TARGETED.format("gamma = 0.5\ngama = 0.5"), off)
    assert refusal(RECIPE, {**off, "sparsity.gamma": 0.5}).startswith("--set sparsity.gamma: unknown key; it belongs to method")
    assert "sparsity.gamma: unknown key" in refusal(TARGETED.format("gamma = 0.5"), {**off, "sparsity.gamma": 0.7})
    assert "line 12: sparsity.gamma: unknown key" in refusal(
        TARGETED.format("") + '[sweep]\n"sparsity.gamma" = [0.5, 0.7]\n', off
    )
    assert "sparsity.gamma: unknown key" in refusal(TARGETED.format("gamma = 0.5"), {"sparsity.method": "dropout"})
