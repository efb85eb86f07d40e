"""The [shrink] table: from the recipe to the narrow network and back from disk."""

import pytest
import torch

from tdcompress.artifacts import Store
from tdcompress.errors import RecipeError
from tdcompress.pipeline import Runner
from tdcompress.recipe import parse_recipe
from tdcompress.stages.network import deployed_network
from tdcompress.stages.plan import plan_run

RECIPE = """
name = "aligned"

[data]
name = "digits"

[model]
name = "digits_cnn"
width = 8
hidden = 16

[sparsity]
method = "none"
granularity = "unit"

[train]
epochs = 0
optimizer = { name = "sgd", lr = 0.05 }

[prune]
fraction = 0.6

[shrink]
align = 1

[bench]
budget = "none"
"""
WEIGHTS = ("conv1.weight", "conv2.weight", "conv3.weight", "hidden.weight")


@pytest.fixture(scope="module")
def runner(tmp_path_factory, make_recorder):
    return Runner(store=Store(tmp_path_factory.mktemp("shrink")), watcher=make_recorder(), facts={})


def plan(runner, **changes):
    return plan_run(parse_recipe(RECIPE, "shrink.toml", changes), torch.device("cpu"), runner.store.hashes)


def test_align_is_a_setting_of_the_stage(runner):
    (plain,), (aligned,) = plan(runner).rows, plan(runner, **{"shrink.align": 4}).rows
    assert plain.network.key == aligned.network.key
    assert plain.deployed.key != aligned.deployed.key
    made = [runner.ensure(row.deployed) for row in (plain, aligned)]
    networks = [deployed_network(row.experiment, found) for row, found in zip((plain, aligned), made, strict=True)]
    widths = [[network.state_dict()[name].shape[0] for name in WEIGHTS] for network in networks]
    assert widths == [[4, 7, 7, 7], [4, 8, 8, 8]]  # n - floor(0.6 n), rounded up
    reasons = {dead["layer"]: dead["reason"] for dead in made[1].record["dead_but_kept"]}
    assert reasons == dict.fromkeys(("conv2", "conv3", "hidden"), "kept to align to 4")
    assert made[0].record["accuracy"] == made[1].record["accuracy"]


def test_alignments_can_be_swept_and_name_their_rows(runner):
    assert [row.id for row in plan(runner, **{"sweep.shrink.align": [1, 8]}).rows] == [
        "none-shrink-align1-0.6",
        "none-shrink-align8-0.6",
    ]


def test_an_alignment_below_one_is_refused(runner):
    with pytest.raises(RecipeError, match=r"shrink\.align: 0 is out of range"):
        plan(runner, **{"shrink.align": 0})
