import pytest
import torch
from torch import nn

from tdcompress.methods.base import TrainStep
from tdcompress.methods.dropout import DropoutSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.units import Slot, Targets, UnitGroup


def drawn(net: SparseNet, seed: int = 0) -> dict[str, torch.Tensor]:
    net.begin_step(TrainStep(), torch.Generator().manual_seed(seed))
    return net.method.effective(net.parameters_by_name())


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.9])
def test_every_weight_is_exactly_zero_or_itself(make_net, targets, alpha: float):
    net = make_net("dropout", alpha=alpha)
    params, effective = net.parameters_by_name(), drawn(net)
    assert set(effective) == {slot.parameter for slot in targets.weights}
    for name, value in effective.items():
        assert bool(((value == 0) | (value == params[name])).all())


def test_the_released_variant_rescales(make_net):
    net = make_net("dropout", alpha=0.25, rescale=True)
    params, effective = net.parameters_by_name(), drawn(net)
    factor = torch.tensor(1 / 0.75)
    for name, value in effective.items():
        assert bool(((value == 0) | (value == params[name] * factor)).all())


def test_the_share_dropped_is_alpha():
    layer = nn.Linear(500, 400)
    targets = Targets(weights=(Slot(parameter="weight"),))
    net = SparseNet(layer, DropoutSettings(alpha=0.3).build(targets, layer))
    shares = torch.stack([(drawn(net, seed)["weight"] == 0).float() for seed in range(10)])
    assert float(shares.mean()) == pytest.approx(0.3, abs=3 * (0.21 / 2e6) ** 0.5 * 1.5)
    assert float(shares.mean(0).std()) == pytest.approx((0.21 / 10) ** 0.5, rel=0.02)  # each entry alone, anew each step


@pytest.mark.parametrize("rescale", [False, True])
def test_whole_units_are_dropped(make_net, targets, rescale: bool):
    net = make_net("dropout", "unit", alpha=0.5, rescale=rescale)
    params = net.parameters_by_name()
    seen = set()
    for seed in range(5):
        effective = drawn(net, seed)
        assert set(effective) == {s.parameter for g in targets.groups for s in (*g.filters, *g.tied)}
        for unit in range(6):
            off = {bool((effective[name][unit] == 0).all()) for name in ("conv.weight", "conv.bias", "bn.weight")}
            assert len(off) == 1
            seen |= off
            if not off.pop():
                factor = 2.0 if rescale else 1.0
                assert torch.equal(effective["conv.weight"][unit], params["conv.weight"][unit] * factor)
                assert torch.equal(effective["bn.weight"][unit], params["bn.weight"][unit] * factor)
        assert bool(((effective["up.weight"] == 0).all(dim=(0, 2, 3)) == (effective["up.bias"] == 0)).all())
    assert seen == {True, False}


def test_a_dropped_whole_unit_gives_nothing_and_a_rescaled_one_twice_its_output(make_net, images):
    """(X * M) W of section 2.2: the unit's output is multiplied, through BatchNorm too."""
    net = make_net("dropout", "unit", alpha=0.5, rescale=True)
    model = net.model
    with torch.no_grad():
        model.bn.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
        model.bn.bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    effective = drawn(net, 1)
    outputs = []
    for parameters in ({}, effective):
        conv = nn.functional.conv2d(
            images[0], parameters.get("conv.weight", model.conv.weight), parameters.get("conv.bias", model.conv.bias), padding=1
        )
        scale, shift = (parameters.get(f"bn.{name}", getattr(model.bn, name)) for name in ("weight", "bias"))
        outputs.append(nn.functional.batch_norm(conv, None, None, scale, shift, training=True))
    gates = (effective["bn.weight"] / model.bn.weight)[None, :, None, None]
    assert set(gates.flatten().tolist()) == {0.0, 2.0}
    assert torch.allclose(outputs[1], outputs[0] * gates, atol=1e-3)


def test_the_filter_alone(toy_network):
    model = toy_network()
    group = UnitGroup(name="conv", size=6, filters=(Slot(parameter="conv.weight"),))
    targets = Targets(weights=(Slot(parameter="conv.weight"),), groups=(group,))
    net = SparseNet(model, DropoutSettings(granularity="unit", unit="filter", alpha=0.5).build(targets, model))
    assert set(drawn(net)) == {"conv.weight"}


def test_gradient_reaches_what_was_kept_alone(make_net, images):
    net = make_net("dropout", alpha=0.5)
    net.train()
    effective = drawn(net)
    net(images[0]).square().sum().backward()
    assert bool((net.model.fc.weight.grad[effective["fc.weight"] == 0] == 0).all())
    assert bool(net.model.fc.weight.grad.any())


def test_evaluation_is_dense(make_net, images):
    net = make_net("dropout", alpha=0.9).eval()
    drawn(net)
    assert torch.equal(net(images[0]), net.model(images[0]))


@pytest.mark.parametrize("alpha", [-0.1, 1.0, float("nan")])
def test_rates_out_of_range_are_refused(alpha: float):
    with pytest.raises(ValueError, match=r"^alpha: "):
        DropoutSettings(alpha=alpha)
