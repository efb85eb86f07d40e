"""What pruning keeps: by share, by number, split over the layers, of weights and of units."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from short_trainings import UNITS, layers

from tdcompress.data.digits import DigitsSettings
from tdcompress.errors import UserError
from tdcompress.lineage.network import load_network
from tdcompress.lineage.origin import origin_of
from tdcompress.records.stages import PrunedCount, PruneRecord
from tdcompress.runs.rows import less_than_asked
from tdcompress.sparsity.shares import Extent, selected_counts
from tdcompress.tasks.classification import Classification
from tdcompress.train.recalibrate import recalibrate


@pytest.mark.parametrize("fraction", [0.0, 0.29, 0.5, 0.9])
def test_weights_are_pruned_by_the_share_of_each_filter(runner, row, fraction):
    pruned = runner.ensure(row(prune=f"fraction = {fraction}").pruned)
    shapes = {"conv1.weight": (8, 9), "conv2.weight": (16, 72), "conv3.weight": (16, 144), "hidden.weight": (16, 64)}
    kept = {name: rows * (size - math.floor(fraction * size + 1e-9)) for name, (rows, size) in shapes.items()}
    assert {name: count for name, (_, count, _) in layers(pruned).items()} == kept
    total = sum(rows * size for rows, size in shapes.values())
    assert pruned.record["sparsity_prunable"] == pytest.approx(1 - sum(kept.values()) / total)
    record = pruned.record
    assert record["sparsity_model"] == pytest.approx(1 - record["parameters_nonzero"] / record["parameters_total"])
    model = load_file(pruned.file("model.safetensors"))
    for name, mask in load_file(pruned.file("masks.safetensors")).items():
        assert not model[name][~mask].any()


def test_a_fixed_number_of_weights_is_kept_in_each_filter(runner, row):
    pruned = runner.ensure(row(prune="keep_per_filter = 3").pruned)
    assert {name: kept for name, (_, kept, _) in layers(pruned).items()} == {
        "conv1.weight": 24, "conv2.weight": 48, "conv3.weight": 48, "hidden.weight": 48,
    }  # fmt: skip


@pytest.mark.parametrize("shares", ["layer", "erk", "global"])
def test_a_budget_is_split_over_the_layers_as_the_shares_say(runner, row, shares):
    pruned = runner.ensure(row(prune=f'fraction = 0.9\nshares = "{shares}"').pruned)
    sizes = {
        "conv1.weight": (8, 9, 15),
        "conv2.weight": (16, 72, 30),
        "conv3.weight": (16, 144, 38),
        "hidden.weight": (16, 64, 80),
    }
    extents = [Extent(name=name, rows=rows, length=size, erk=erk) for name, (rows, size, erk) in sizes.items()]
    kept = {name: count for name, (_, count, _) in layers(pruned).items()}
    total = sum(each.entries for each in extents)
    if shares == "global":
        assert sum(kept.values()) == total - math.floor(0.9 * total)
    else:
        counts = selected_counts(extents, 0.9, shares).counts
        assert kept == {each.name: each.entries - counts[each.name] for each in extents}
    for mask in load_file(pruned.file("masks.safetensors")).values():
        assert bool(mask.flatten(1).any(1).all())  # no filter is empty


def test_an_importance_of_some_layers_alone_is_not_ranked_together_with_magnitudes(runner, row):
    def prune(method: str, shares: str, **changes):
        options = {"sparsity.exclude": ["conv2"], "prune.exclude": [], **changes}
        return layers(runner.ensure(row(method, f'fraction = 0.5\nshares = "{shares}"', **options).pruned))

    said = r'^prune\.shares: "global" ranks all layers together, but method = "variational" .* the magnitude of conv2\.weight'
    with pytest.raises(UserError, match=said):
        prune("variational", "global")
    assert prune("variational", "global", **{"prune.exclude": ["conv2"]}).keys() == {
        "conv1.weight",
        "conv3.weight",
        "hidden.weight",
    }
    assert prune("variational", "layer")["conv2.weight"][1] == 576  # of 1,152: each layer has a ranking of its own
    for magnitudes in (prune("random_prune", "global", **{"sparsity.fraction": 0.5}), prune("l0", "global")):
        assert sum(kept for _, kept, _ in magnitudes.values()) == 2276


def test_a_share_that_cannot_go_is_told_recorded_and_noted(runner, row):
    planned = row(prune='fraction = 0.999\nshares = "erk"')
    said = r'^prune\.fraction = 0\.999, shares = "erk": 4,547 of 4,552 weights were to be pruned, and 4,496 are \(98\.77%\): '
    with pytest.warns(UserWarning, match=said):
        pruned = runner.ensure(planned.pruned).recorded(PruneRecord)
    assert pruned.pruned == PrunedCount(total=4552, asked=4547, gone=4496)
    assert pruned.pruned.total - pruned.pruned.gone == sum(layer.kept for layer in pruned.layers)
    note = "4,496 of 4,552 weights are pruned, 98.77 % where 99.9 % were asked for"
    assert less_than_asked(planned.config, pruned.pruned) == note


def test_what_was_asked_for_is_named(runner, row):
    said = r"^prune\.keep_per_filter = 144: none of 4,552 weights are pruned: no filter has more than stay$"
    with pytest.warns(UserWarning, match=said):
        runner.ensure(row(prune="keep_per_filter = 144").pruned)
    gamma = {"sparsity.gamma": 0.999, "sparsity.shares": "global"}
    released = row("targeted", 'fraction = 0.5\nevaluation = "released"', **gamma)
    said = (
        r'^prune\.evaluation = "released", sparsity\.gamma = 0\.999, shares = "global": 4,547 of 4,552 weights were to be pruned'
    )
    with pytest.warns(UserWarning, match=said):
        runner.ensure(released.pruned)


def test_how_much_went_is_recorded_and_noted_where_a_quarter_more_stays(runner, row):
    weights = runner.ensure(row(prune="fraction = 0.9").pruned).recorded(PruneRecord).pruned
    assert weights == PrunedCount(total=4552, asked=4064, gone=4064)  # the floors of each filter: 8, 64, 129 and 57
    assert less_than_asked(row(prune="fraction = 0.9").config, weights) == ""  # 10.7 % stay
    kept = row(prune="keep_per_filter = 3")
    assert runner.ensure(kept.pruned).recorded(PruneRecord).pruned == PrunedCount(total=4552, asked=4384, gone=4384)
    assert less_than_asked(kept.config, PrunedCount(total=4552, asked=4384, gone=4384)) == ""
    units = row("targeted", "fraction = 0.6", **UNITS, **{"prune.align": 8})
    counted = runner.ensure(units.pruned).recorded(PruneRecord).pruned
    assert counted == PrunedCount(total=56, asked=31, gone=24)  # 4, 9, 9 and 9; eight of each layer stay
    assert less_than_asked(units.config, counted) == "24 of 56 units are pruned, 42.86 % where 60 % were asked for"


def test_statistics_are_estimated_again_on_plain_training_images(runner, row):
    plain, again = row(prune="fraction = 0.9"), row(prune="fraction = 0.9\nrecalibrate = 100000")  # more than there are: all
    assert plain.train.key == again.train.key
    assert plain.pruned.key != again.pruned.key
    before, after = runner.ensure(plain.pruned), runner.ensure(again.pruned)
    origin = origin_of(after)
    task = origin.data.task({})
    expected, samples = load_network(before), task.train_set(origin.seed)
    recalibrate(expected, [samples.preprocess(samples.pixels)])
    network, tensors = load_network(after), expected.state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, tensors[name], rtol=1e-4, atol=1e-4)
    assert after.record["accuracy_before"] == before.record["accuracy"]
    assert before.record["accuracy_before"] is None
    assert load_file(before.file("masks.safetensors")).keys() == load_file(after.file("masks.safetensors")).keys()


def test_statistics_are_estimated_on_images_changed_as_the_trainings_were(runner, row):
    asked = "fraction = 0.9\nrecalibrate = 200\nrecalibrate_on = "
    pruned = runner.ensure(row(prune="fraction = 0.9").pruned)
    plain, augmented = (load_network(runner.ensure(row(prune=f'{asked}"{on}"').pruned)) for on in ("plain", "augmented"))
    origin = origin_of(pruned)
    task, expected = origin.data.task({}), load_network(pruned)
    recalibrate(expected, list(task.training_batches(origin.seed, 200, torch.device("cpu"), augmented=True)))
    for name, value in expected.state_dict().items():
        assert torch.equal(augmented.state_dict()[name], value), name
    assert not torch.equal(plain.norm1.running_var, augmented.norm1.running_var)


@pytest.mark.parametrize("flip", [False, True, "alternating"])
def test_the_samples_of_statistics_follow_from_the_seed(flip):
    task = Classification(DigitsSettings(crop_padding=1, flip=flip).load())

    def images(seed, augmented):
        batches = task.training_batches(seed, 600, torch.device("cpu"), augmented=augmented)
        return torch.cat([images for (images,) in batches])

    for augmented in (False, True):
        assert len(images(0, augmented)) == 600
        assert torch.equal(images(0, augmented), images(0, augmented))
        assert not torch.equal(images(0, augmented), images(1, augmented))
    plain, changed = images(0, augmented=False), images(0, augmented=True)
    moved = (plain != changed).flatten(1).any(1).double().mean()
    assert 0.8 < moved <= 1.0  # of nine places that a crop can begin at, one is the old one
    unchanged = Classification(DigitsSettings(crop_padding=0).load())
    batches = zip(
        *(unchanged.training_batches(0, 600, torch.device("cpu"), augmented=each) for each in (False, True)), strict=True
    )
    assert all(torch.equal(a, b) for (a,), (b,) in batches)


def test_pruning_splits_as_training_did_unless_it_says_otherwise(row):
    trained = {"sparsity.gamma": 0.5, "sparsity.shares": "erk"}
    assert row("targeted", **trained).pruned.settings.shares == "erk"
    assert row("targeted", **trained, **{"prune.shares": "global"}).pruned.settings.shares == "global"
    assert row("targeted", **trained, **{"prune.granularity": "unit"}).pruned.settings.shares == "layer"
    assert row("targeted", "keep_per_filter = 3", **trained).pruned.settings.shares == "filter"
    keys = {row("targeted", **trained, **more).pruned.key for more in ({}, {"prune.shares": "global"}, {"prune.shares": "layer"})}
    assert len(keys) == 3


def test_one_training_feeds_many_prunings(runner, row):
    first, second = row(prune="fraction = 0.5"), row(prune="fraction = 0.25")
    assert first.train.key == second.train.key
    assert first.pruned.key != second.pruned.key
    made = runner.made
    runner.ensure(row(prune="fraction = 0.125").pruned)
    assert runner.made == made + 1


def test_units_are_pruned_by_layer_and_rounded_up_to_a_multiple(runner, row):
    def kept(**changes):
        planned = row("targeted", "fraction = 0.6", **{**UNITS, **changes})
        state = load_network(runner.ensure(planned.pruned)).state_dict()
        names = ("conv1.weight", "conv2.weight", "conv3.weight", "hidden.weight")
        return [int(state[name].flatten(1).any(1).sum()) for name in names]

    assert kept() == [4, 7, 7, 7]  # n - floor(0.6 n)
    assert kept(**{"prune.align": 4}) == [4, 8, 8, 8]


def test_whole_units_take_their_affine_along_and_filters_do_not(runner, row):
    for unit, affine_too in (("whole", True), ("filter", False)):
        planned = row("targeted", "fraction = 0.6", **UNITS, **{"prune.unit": unit})
        masks = load_file(runner.ensure(planned.pruned).file("masks.safetensors"))
        assert ("norm1.bias" in masks) == affine_too


def test_released_evaluation_prunes_every_candidate_of_the_training(runner, row):
    def masks(prune, **changes):
        planned = row("targeted", prune, **{"sparsity.gamma": 0.5, "sparsity.alpha": 0.5, **changes})
        return load_file(runner.ensure(planned.pruned).file("masks.safetensors"))

    released, plain = masks("fraction = 0.1", **{"prune.evaluation": "released"}), masks("fraction = 0.5")
    assert all(torch.equal(released[name], plain[name]) for name in plain)
    released, plain = masks("fraction = 0.75", **{"prune.evaluation": "released"}), masks("fraction = 0.75")
    assert all(torch.equal(released[name], plain[name]) for name in plain)


def test_an_analysis_of_the_released_evaluation_says_the_fraction_that_held(runner, plan):
    changes = {"sparsity.gamma": 0.5, "sparsity.alpha": 0.5, "prune.evaluation": "released", "analyse.bins": 2}
    released, plain = (
        runner.ensure(plan("targeted", f"fraction = {fraction}", **{**changes, "prune.evaluation": kind}).analyses[0]).record
        for fraction, kind in ((0.1, "released"), (0.5, "plain"))
    )
    assert released == plain
    assert released["fraction"] == 0.5


def test_masks_are_those_of_the_smallest_magnitudes(runner, row):
    planned = row(prune="fraction = 0.5")
    trained = load_file(runner.ensure(planned.train).file("model.safetensors"))
    masks = load_file(runner.ensure(planned.pruned).file("masks.safetensors"))
    for name, mask in masks.items():
        rows = trained[name].flatten(1).abs().numpy()
        dropped = np.argsort(rows, axis=1, kind="stable")[:, : rows.shape[1] // 2]
        expected = np.ones(rows.shape, bool)
        np.put_along_axis(expected, dropped, False, axis=1)
        np.testing.assert_array_equal(mask.flatten(1).numpy(), expected)
