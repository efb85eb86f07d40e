"""No two combinations of a recipe make one row."""

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
