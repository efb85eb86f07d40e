"""Keys of a recipe that cannot stand together are refused before anything is made."""

import pytest
from short_trainings import UNITS

from tdcompress.errors import RecipeError

CUBIC = {"sparsity.gamma": 0.5, "sparsity.schedule": "cubic"}
RELEASED = 'fraction = 0.5\nevaluation = "released"'


@pytest.mark.parametrize(
    ("prune", "changes", "said"),
    [
        ("keep_per_filter = 3", {"prune.granularity": "unit", "sparsity.gamma": 0.5}, "prune.keep_per_filter: it counts weights"),
        ("fraction = 0.5", {"sparsity.schedule": "ramp", "sparsity.gamma": 0.5}, "sparsity.ramp_epochs"),
        (RELEASED, {"sparsity.keep_per_filter": 3}, "prune.evaluation: .*this targeted has no gamma"),
        (RELEASED, {"sparsity.gamma": 0.5, "prune.granularity": "unit"}, "of granularity .weight., and here it is .unit."),
        ("keep_per_filter = 3", {"sparsity.gamma": 0.5, "prune.evaluation": "released"}, "keep_per_filter is no share"),
        (
            "fraction = 0.75",
            {"sparsity.gamma": 0.5, "prune.granularity": "2:4"},
            "prune.fraction: 0.75 is no share that .2:4. can",
        ),
        ("keep_per_filter = 2", {"sparsity.gamma": 0.5, "prune.granularity": "2:4"}, "prune.keep_per_filter: not a key"),
        ("fraction = 0.5", {"sparsity.gamma": 0.5, "sparsity.granularity": "2:4"}, "sparsity.granularity: .*conv1 has 1 input"),
        (
            "fraction = 0.5",
            {"sparsity.gamma": 0.5, "prune.granularity": "1x4", "model.width": 6},
            "prune.granularity: .*conv1 has 6",
        ),
        (RELEASED, {"sparsity.gamma": 0.5, "prune.shares": "erk"}, "split by .filter., and here shares = .erk."),
        ("keep_per_filter = 3", {"sparsity.gamma": 0.5, "prune.shares": "erk"}, "prune.shares: they split a fraction"),
        ("fraction = 0.5", {"sparsity.keep_per_filter": 3, "sparsity.shares": "erk"}, "sparsity.shares: they split gamma"),
        ("fraction = 0.5", {**UNITS, "sparsity.shares": "filter"}, "sparsity.shares: .filter. is a share of the weights"),
        ("fraction = 0.5", {**UNITS, "prune.shares": "filter"}, "prune.shares: .filter. is a share of the weights"),
        ("fraction = 0.5", {**CUBIC, "sparsity.freeze_share": 0.5}, "sparsity.freeze_share: 0.5 would freeze the masks"),
        ("fraction = 0.5", {**CUBIC, "sparsity.schedule_epochs": 5}, "sparsity.schedule_epochs: 5, but the training has 1"),
        ("fraction = 0.5", {**CUBIC, "sparsity.ramp_share": [0.5, 0.2]}, "sparsity.ramp_share: "),
    ],
)
def test_combinations_that_cannot_be_are_refused(plan, prune, changes, said):
    with pytest.raises(RecipeError, match=said):
        plan("targeted", prune, **changes)


def test_released_evaluation_is_refused_for_methods_without_candidates(plan):
    with pytest.raises(RecipeError, match=r'line \d+: prune\.evaluation: .* this dropout has no gamma; take "plain"'):
        plan("dropout", RELEASED)
