import pytest
import torch

from tdcompress.methods.base import TrainStep
from tdcompress.methods.smallify import SmallifySettings


def set_switch(net, name: str, value: float) -> None:
    with torch.no_grad():
        net.method.get_parameter(f"switch/{name}").fill_(value)


def state(net, kind: str, name: str = "fc/weight") -> torch.Tensor:
    return net.method.get_buffer(f"{kind}/{name}")


def test_starts_uniform_with_averages_at_the_sign(make_net):
    net = make_net("smallify")
    switch = net.method.get_parameter("switch/conv/weight").detach()
    assert 0 <= float(switch.min()) < 0.1
    assert 0.9 < float(switch.max()) < 1
    assert bool((state(net, "mean_sign") == 1).all())
    assert not state(net, "deviation").any()
    assert not state(net, "off").any()
    assert not torch.equal(switch, make_net("smallify", seed=1).method.get_parameter("switch/conv/weight"))


def test_the_averages_by_hand(make_net):
    """From (1, 0) a step at -1: mean 0.9 - 0.1, deviation 0.1 * (-1 - 1)^2; then 0.62 and 0.9 * 0.4 + 0.1 * 1.8^2."""
    net = make_net("smallify")
    set_switch(net, "fc/weight", -0.3)
    net.end_step()
    assert state(net, "mean_sign")[0, 0].item() == pytest.approx(0.8)
    assert state(net, "deviation")[0, 0].item() == pytest.approx(0.4)
    assert not state(net, "off").any()
    net.end_step()
    assert state(net, "mean_sign")[0, 0].item() == pytest.approx(0.62)
    assert state(net, "deviation")[0, 0].item() == pytest.approx(0.684)
    assert state(net, "off").all()
    assert not state(net, "off", "conv/weight").any()


def test_a_switch_that_keeps_its_sign_stays_and_one_flip_is_forgiven(make_net):
    net = make_net("smallify")
    for value in (0.4, -0.4, *[0.4] * 60):
        set_switch(net, "fc/weight", value)
        net.end_step()
    assert not state(net, "off").any()
    assert state(net, "mean_sign")[0, 0].item() == pytest.approx(1.0, abs=0.01)


def test_off_is_for_good(make_net, images):
    net = make_net("smallify")
    set_switch(net, "fc/weight", -0.3)
    net.end_step()
    net.end_step()
    set_switch(net, "fc/weight", 5.0)  # as an optimizer's momentum might
    assert not net.method.effective(net.parameters_by_name())["fc.weight"].any()
    net.train()
    net(images[0]).sum().backward()
    assert not net.method.get_parameter("switch/fc/weight").grad.any()
    net.end_step()
    assert not net.method.get_parameter("switch/fc/weight").any()
    deployed = net.method.deployed(net.parameters_by_name())["fc.weight"]
    assert not deployed.any()
    assert not torch.signbit(deployed).any()
    assert net.method.metrics(TrainStep())["off"] == pytest.approx(32 / (6 * 27 + 4 * 24 + 32))


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_penalty_is_lambda_times_the_sum_of_switches(make_net, granularity: str):
    net = make_net("smallify", granularity, strength=0.01)
    total = sum(float(parameter.detach().abs().sum()) for parameter in net.method.parameters())
    assert float(net.penalty().detach()) == pytest.approx(0.01 * total, rel=1e-6)
    net.penalty().backward()
    assert all(torch.allclose(p.grad, torch.full_like(p, 0.01)) for p in net.method.parameters())


def test_weights_times_switches(make_net):
    net = make_net("smallify")
    params, effective = net.parameters_by_name(), net.method.effective(net.parameters_by_name())
    switch = net.method.get_parameter("switch/up/weight")
    assert torch.equal(effective["up.weight"], params["up.weight"] * switch)
    assert torch.equal(net.method.deployed(params)["up.weight"], effective["up.weight"])
    assert net.method.scores(params) == {}  # the magnitude of what is deployed ranks: |weight * switch|


def test_a_units_switch_multiplies_its_filter_and_what_is_tied(make_net):
    net = make_net("smallify", "unit")
    params, effective = net.parameters_by_name(), net.method.effective(net.parameters_by_name())
    switch = net.method.get_parameter("switch/up")
    assert switch.shape == (4,)
    assert torch.equal(effective["up.weight"], params["up.weight"] * switch[None, :, None, None])
    assert torch.equal(effective["up.bias"], params["up.bias"] * switch)


@pytest.mark.parametrize(
    ("options", "key"), [({"strength": -1.0}, "strength"), ({"decay": 1.0}, "decay"), ({"threshold": 0.0}, "threshold")]
)
def test_values_out_of_range_are_refused(options: dict, key: str):
    with pytest.raises(ValueError, match=f"^{key}: "):
        SmallifySettings(**options)
