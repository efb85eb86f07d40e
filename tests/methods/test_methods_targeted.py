from dataclasses import replace

import pytest
import torch
from torch import nn

from tdcompress.methods.base import TrainStep
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.masks import unit_masks, weight_masks
from tdcompress.sparsity.schedule import schedule_by_name
from tdcompress.sparsity.units import Slot, Targets, UnitGroup


def drawn(net: SparseNet, seed: int = 0, epoch: float = 0.0) -> dict[str, torch.Tensor]:
    net.begin_step(TrainStep(epoch=epoch), torch.Generator().manual_seed(seed))
    return net.method.effective(net.parameters_by_name())


def linear(rows: list[list[float]], **options) -> SparseNet:
    layer = nn.Linear(len(rows[0]), len(rows))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
    group = UnitGroup(name="fc", size=len(rows), filters=(Slot(parameter="weight"),), tied=(Slot(parameter="bias"),))
    targets = Targets(weights=(Slot(parameter="weight"),), groups=(group,))
    return SparseNet(layer, TargetedSettings(**options).build(targets, layer))


def test_alpha_one_drops_exactly_the_candidates():
    net = linear([[1.0, -2.0, 3.0, -4.0], [-0.4, 0.3, 0.2, -0.1]], gamma=0.5, alpha=1.0)
    assert drawn(net)["weight"].tolist() == [[0.0, 0.0, 3.0, -4.0], [pytest.approx(-0.4), pytest.approx(0.3), 0.0, 0.0]]


def test_alpha_zero_and_gamma_zero_drop_nothing():
    for options in ({"gamma": 0.5, "alpha": 0.0}, {"gamma": 0.0, "alpha": 1.0}):
        net = linear([[1.0, 2.0]], **options)
        assert torch.equal(drawn(net)["weight"], net.model.weight)


def test_xtreme_keeps_so_many_of_each_filter():
    net = linear([[1.0, -2.0, 3.0, -4.0], [9.0, 8.0, 7.0, 6.0]], keep_per_filter=1, alpha=1.0)
    assert (drawn(net)["weight"] != 0).tolist() == [[False, False, False, True], [True, False, False, False]]


def test_xtreme_ramps_from_no_candidates_to_all_but_k():
    rows = [[float(value) for value in range(1, 11)]]
    net = linear(rows, keep_per_filter=2, alpha=1.0, schedule="ramp", ramp_epochs=(2.0, 2.0))
    counts = [net.method.counts(epoch).counts["weight"] for epoch in (0.0, 1.0, 2.0, 4.0, 9.0)]
    assert counts == [0, 3, 7, 8, 8]  # 0.475 * 8, 0.95 * 8
    assert linear([[1.0]], keep_per_filter=2).method.counts(9.0).counts == {"weight": 0}
    assert int((drawn(net, epoch=4.0)["weight"] == 0).sum()) == 8


def test_candidates_are_dropped_independently_with_probability_alpha():
    with torch.random.fork_rng():
        torch.manual_seed(100)  # not a seed of the draws below: the same numbers would decide on both
        layer = nn.Linear(400, 300)
    targets = Targets(weights=(Slot(parameter="weight"),))
    net = SparseNet(layer, TargetedSettings(gamma=0.75, alpha=0.66).build(targets, layer))
    candidates = drawn(SparseNet(layer, TargetedSettings(gamma=0.75, alpha=1.0).build(targets, layer)))["weight"] == 0
    assert candidates.sum(1).tolist() == [300] * 300
    draws = torch.stack([drawn(net, seed)["weight"] == 0 for seed in range(12)])
    assert not draws[:, ~candidates].any()
    chosen = draws[:, candidates].float()
    assert float(chosen.mean()) == pytest.approx(0.66, abs=0.002)
    assert float(chosen.mean(0).var()) == pytest.approx(0.66 * 0.34 / 12, rel=0.02)


def test_every_output_is_exactly_zero_or_the_weight(make_net):
    net = make_net("targeted", gamma=0.9, alpha=0.5)
    params = net.parameters_by_name()
    for name, value in drawn(net).items():
        assert bool(((value == 0) | (value == params[name])).all())


def test_whole_units_are_dropped_with_what_is_tied():
    net = linear([[3.0, 0.0], [0.0, 1.0], [0.0, 2.0], [5.0, 0.0]], granularity="unit", gamma=0.5, alpha=1.0)
    effective = drawn(net)
    assert (effective["weight"] == 0).all(1).tolist() == [False, True, True, False]
    assert (effective["bias"] == 0).tolist() == [False, True, True, False]


def test_units_are_drawn_whole_by_default_and_by_weight_in_the_released_variant():
    rows = torch.randn(40, 50, generator=torch.Generator().manual_seed(0)).tolist()
    whole = drawn(linear(rows, granularity="unit", gamma=0.5, alpha=0.5))["weight"] == 0
    assert set(whole.float().mean(1).tolist()) == {0.0, 1.0}
    released = drawn(linear(rows, granularity="unit", gamma=0.5, alpha=0.5, draw="weight"))["weight"] == 0
    shares = released.float().mean(1)
    assert int((shares == 0).sum()) == 20
    assert float(shares[shares > 0].mean()) == pytest.approx(0.5, abs=0.06)
    assert 0 < float(shares[shares > 0].min()) < float(shares.max()) < 1


def test_even_gamma_one_leaves_a_unit():
    effective = drawn(linear([[1.0], [2.0], [3.0]], granularity="unit", gamma=1.0, alpha=1.0))
    assert (effective["weight"] != 0).flatten().tolist() == [False, False, True]


def test_candidates_follow_the_weights():
    net = linear([[1.0, 2.0, 3.0, 4.0]], gamma=0.5, alpha=1.0)
    assert (drawn(net)["weight"] != 0).tolist() == [[False, False, True, True]]
    with torch.no_grad():
        net.model.weight.copy_(torch.tensor([[9.0, 2.0, 3.0, 4.0]]))
    assert (drawn(net)["weight"] != 0).tolist() == [[True, False, False, True]]


def test_straight_mask_in_backward(make_net, images):
    net = make_net("targeted", gamma=0.75, alpha=0.5)
    net.train()
    effective = drawn(net)
    net(images[0]).square().sum().backward()
    grad = net.model.fc.weight.grad
    assert not grad[effective["fc.weight"] == 0].any()
    assert grad.any()


def test_the_ramp_reaches_gamma_and_alpha(make_net):
    net = make_net("targeted", gamma=0.99, alpha=0.9, schedule="ramp", ramp_epochs=(2.0, 2.0))
    assert net.method.metrics(TrainStep()) == {"gamma": 0.0, "alpha": 0.0}
    assert net.method.metrics(TrainStep(epoch=2.0)) == pytest.approx({"gamma": 0.9405, "alpha": 0.45})
    assert net.method.metrics(TrainStep(epoch=9.0)) == {"gamma": 0.99, "alpha": 0.9}
    assert not any((value == 0).any() for value in drawn(net, epoch=0.0).values())
    assert any((value == 0).any() for value in drawn(net, epoch=4.0).values())


def test_a_ramp_that_does_not_fit_is_refused_or_scaled():
    ramp = TargetedSettings(gamma=0.9, schedule="ramp")
    assert ramp.for_training(98) == ramp
    with pytest.raises(ValueError, match=r"^ramp_epochs: the ramp takes 98 epochs, the training has 97"):
        ramp.for_training(97)
    scaled = TargetedSettings(gamma=0.9, schedule="ramp", ramp_scale=True)
    # in proportion, also where the ramp would fit: at 128 epochs it ended behind three quarters, at 97 behind a third
    lengths = {epochs: scaled.for_training(epochs).make_schedule().length for epochs in (64, 97, 128, 256, 400)}
    assert lengths == {64: 24.5, 97: 98 * 97 / 256, 128: 49, 256: 98, 400: 98}
    assert schedule_by_name("ramp", 128).length == 49  # as TargetedDropout(schedule="ramp", epochs=128) has it
    with pytest.raises(ValueError, match=r"^ramp_epochs: the ramp takes 400 epochs, the training has 300; shorten it$"):
        replace(scaled, ramp_epochs=(200.0, 200.0)).for_training(300)
    assert scaled.for_training(0).make_schedule().length > 0  # an untrained network has a ramp too, if never used
    assert TargetedSettings(gamma=0.9).for_training(1).ramp_epochs == (49.0, 49.0)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "gamma"),
        ({"gamma": 0.5, "keep_per_filter": 3}, "keep_per_filter"),
        ({"gamma": 1.5}, "gamma"),
        ({"keep_per_filter": 0}, "keep_per_filter"),
        ({"keep_per_filter": 3, "granularity": "unit"}, "keep_per_filter"),
        ({"keep_per_filter": 3, "shares": "erk"}, "shares"),
        ({"gamma": 0.75, "granularity": "2:4"}, "gamma"),
        ({"keep_per_filter": 2, "granularity": "2:4"}, "keep_per_filter"),
        ({"gamma": 0.5, "granularity": "2:4", "shares": "erk"}, "shares"),
        ({"gamma": 0.5, "granularity": "unit", "shares": "filter"}, "shares"),
        ({"gamma": 0.5, "schedule": "cubic", "freeze_share": 0.45}, "freeze_share"),
        ({"gamma": 0.5, "alpha": -0.1}, "alpha"),
        ({"gamma": 0.5, "alpha": float("nan")}, "alpha"),
        ({"gamma": 0.5, "l1": float("inf")}, "l1"),
        ({"gamma": 0.5, "schedule": "ramp", "ramp_epochs": (0.0, 1.0)}, "ramp_epochs"),
    ],
)
def test_values_out_of_range_are_refused(options: dict, key: str):
    with pytest.raises(ValueError, match=f"^{key}"):
        TargetedSettings(**options)


@pytest.mark.parametrize(
    ("granularity", "options", "said"),
    [
        (
            "weight",
            {"gamma": 0.99, "shares": "global"},
            'gamma = 0.99, shares = "global": 287 of 290 weights were to be candidates, and 272 are (93.79%): '
            "one weight of each filter stays",
        ),
        (
            "unit",
            {"gamma": 0.95, "shares": "erk", "schedule": "ramp"},
            'gamma = 0.95, shares = "erk": 17 of 18 units were to be candidates, and 15 are (83.33%): '
            "one unit of each layer stays",
        ),
        (
            "unit",
            {"gamma": 0.1},
            'gamma = 0.1, shares = "layer": none of 18 units are candidates: '
            "the share comes to less than one, and is rounded down",
        ),
        (
            "weight",
            {"gamma": None, "keep_per_filter": 27},
            "keep_per_filter = 27: none of 290 weights are candidates: no filter has more than stay",
        ),
        ("weight", {"gamma": None, "keep_per_filter": 26}, None),
        ("weight", {"gamma": 1.0, "shares": "global"}, None),
        ("weight", {"gamma": 0.0}, None),
    ],
)
def test_what_the_shapes_do_not_allow_is_said(make_net, granularity, options, said):
    """162 + 96 + 32 weights in 6 filters of 27, 4 of 24 and 8 of 4."""
    assert make_net("targeted", granularity, **options).method.unreached() == said


@pytest.mark.parametrize("shares", ["layer", "erk", "global"])
@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_alpha_one_drops_exactly_what_pruning_with_the_same_shares_takes(make_net, granularity, shares):
    net = make_net("targeted", granularity, gamma=0.7, alpha=1.0, shares=shares)
    params, targets = {name: value.detach() for name, value in net.parameters_by_name().items()}, net.method.targets
    if granularity == "weight":
        masks = weight_masks(params, targets.weights, fraction=0.7, shares=shares)
    else:
        masks = unit_masks(params, targets.groups, fraction=0.7, shares=shares)
    effective = drawn(net)
    assert effective.keys() == masks.keys()
    for name, mask in masks.items():
        assert torch.equal(effective[name], params[name] * mask)
        assert torch.equal(net.method.dropped()[name].expand_as(mask), ~mask)


def test_a_cubic_freezes_with_every_candidate_dropped(make_net):
    settings = TargetedSettings(gamma=0.75, alpha=0.5, schedule="cubic").for_training(10)
    model = nn.Linear(8, 2)
    targets = Targets(weights=(Slot(parameter="weight"),))
    net = SparseNet(model, settings.build(targets, model))
    assert net.method.rates(6.5) == (0.75, 0.5)
    assert net.method.rates(7.0) == (0.75, 1.0)
    assert [net.method.frozen(epoch) for epoch in (0.0, 6.9, 7.0)] == [False, False, True]
    assert [net.method.counts(epoch).counts["weight"] for epoch in (0.0, 2.25, 9.0)] == [0, 5, 6]  # 0.875 * 0.75 * 8
    assert int((drawn(net, epoch=7.0)["weight"] == 0).sum()) == 12


NEVER_FROZEN = (
    "freeze_share: 0.1 is less than one step of this training, which has 6 steps: its masks are never frozen; raise it, or set 0"
)
NOTHING = "drops nothing in this training, which has"


@pytest.mark.parametrize(
    ("options", "steps", "epochs", "said"),
    [
        ({"schedule": "cubic", "freeze_share": 0.1}, 6, 1, NEVER_FROZEN),
        ({"schedule": "cubic", "freeze_share": 0.1}, 3, 2, NEVER_FROZEN),
        ({"schedule": "cubic", "freeze_share": 0.1}, 10, 1, None),
        ({"schedule": "cubic", "freeze_share": 0.17}, 6, 1, None),
        ({"schedule": "cubic", "freeze_share": 0.0}, 2, 1, None),
        ({"schedule": "cubic", "freeze_share": 0.0, "ramp_share": (1.0, 1.0)}, 6, 1, f'schedule: "cubic" {NOTHING} 6 steps'),
        ({"schedule": "cubic", "freeze_share": 0.0, "alpha_share": (1.0, 1.0)}, 6, 1, f'schedule: "cubic" {NOTHING} 6 steps'),
        ({"schedule": "ramp", "ramp_epochs": (0.5, 0.5)}, 1, 1, f'schedule: "ramp" {NOTHING} 1 step;'),
        ({"schedule": "ramp", "ramp_epochs": (0.5, 0.5), "alpha": 0.0}, 1, 1, None),
        ({"schedule": "ramp", "ramp_epochs": (0.5, 0.5)}, 2, 1, None),
        ({"schedule": "cubic", "freeze_share": 0.1}, 6, 0, None),
        ({}, 1, 1, None),
    ],
)
def test_what_no_step_of_a_schedule_comes_to_is_said(options, steps: int, epochs: int, said: str | None):
    settings = TargetedSettings(**{"gamma": 0.5, **options}).for_training(epochs)
    model = nn.Linear(8, 2)
    method = settings.build(Targets(weights=(Slot(parameter="weight"),)), model)
    found = method.missed(steps, epochs)
    assert found is None if said is None else found is not None and found.startswith(said)
    times = [step / steps for step in range(steps * epochs)]
    if said == NEVER_FROZEN:
        assert not any(method.frozen(epoch) for epoch in times)
    elif said is not None:
        assert all(0 in (method.gamma_share(epoch), method.rates(epoch)[1]) for epoch in times)
    elif options.get("freeze_share"):
        assert any(method.frozen(epoch) for epoch in times) or not times


def test_a_cubic_has_the_length_of_its_training():
    cubic = TargetedSettings(gamma=0.9, schedule="cubic")
    assert cubic.for_training(60).schedule_epochs == 60
    assert cubic.for_training(60).for_training(60).schedule_epochs == 60
    untrained = cubic.for_training(0)
    assert untrained.schedule_epochs == 1  # an untrained network has a schedule too, if never used
    assert untrained.for_training(0) == untrained
    with pytest.raises(ValueError, match=r"^schedule_epochs: 60, but the training has 61 epochs"):
        cubic.for_training(60).for_training(61)
    with pytest.raises(ValueError, match=r"^schedule_epochs: .* has to know its epochs"):
        cubic.build(Targets(weights=()), nn.Linear(2, 2))


@pytest.mark.parametrize(("granularity", "shares"), [("2:4", None), ("1x4", None), ("1x4", "erk"), ("1x4", "global")])
def test_patterns_are_dropped_as_they_are_pruned(granularity, shares):
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ConvTranspose2d(8, 4, 2), nn.Linear(8, 12))
    targets = Targets(weights=(Slot(parameter="0.weight"), Slot(parameter="1.weight", axis=1), Slot(parameter="2.weight")))
    params = {name: value.detach() for name, value in model.named_parameters()}

    def net(alpha: float) -> SparseNet:
        settings = TargetedSettings(granularity=granularity, shares=shares, gamma=0.5, alpha=alpha)
        return SparseNet(model, settings.build(targets, model))

    masks = weight_masks(params, targets.weights, fraction=0.5, shares=shares or "filter", pattern=granularity)
    for name, effective in drawn(net(1.0)).items():
        assert torch.equal(effective, params[name] * masks[name])
    some = {name: effective != 0 for name, effective in drawn(net(0.5)).items()}
    assert all(bool((some[name] | ~mask)[mask].all()) for name, mask in masks.items())  # what is no candidate stays
    share = sum(int((~kept).sum()) for kept in some.values()) / sum(int((~mask).sum()) for mask in masks.values())
    assert 0.3 < share < 0.7
    if granularity == "1x4":  # a block goes as one
        blocks = some["0.weight"].reshape(2, 4, -1)
        assert torch.equal(blocks.all(1), blocks.any(1))


def test_methods_with_numbers_of_their_own_have_no_patterns(make_settings):
    for name in ("dropout", "l0", "variational", "smallify", "random_prune"):
        with pytest.raises(ValueError, match=f'^granularity: method = "{name}" has no "1x4"'):
            make_settings(name, "1x4")
