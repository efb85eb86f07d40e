import math

import pytest
import torch
from torch import nn

from tdcompress.errors import UnsupportedError
from tdcompress.methods.base import TrainStep
from tdcompress.methods.variational import VariationalSettings, kl_divergence
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.units import Slot, Targets, UnitGroup, prunable_weights


def single(layer: nn.Module, **options) -> SparseNet:
    targets = Targets(weights=(Slot(parameter="weight", axis=1 if "Transpose" in type(layer).__name__ else 0),))
    return SparseNet(layer, VariationalSettings(**options).build(targets, layer))


@pytest.mark.parametrize("log_alpha", [-8.0, -1.0, 0.0, 3.0, 8.0])
def test_kl_by_hand(log_alpha: float):
    negative = 0.63576 / (1 + math.exp(-(1.8732 + 1.48695 * log_alpha))) - 0.5 * math.log1p(math.exp(-log_alpha)) - 0.63576
    found = kl_divergence(torch.tensor(log_alpha, dtype=torch.float64))
    assert float(found) == pytest.approx(-negative, rel=1e-9)


def test_kl_approximates_the_integral():
    """E over N(1, alpha) of log |e| gives the true KL up to a constant: Molchanov's fit is within 0.01 of it."""
    normal = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    differences = []
    for log_alpha in (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0):
        alpha = math.exp(log_alpha)
        true = -0.5 * log_alpha + float((1 + math.sqrt(alpha) * normal).abs().log().mean())
        differences.append(float(kl_divergence(torch.tensor(log_alpha, dtype=torch.float64))) - true)
    assert max(differences) - min(differences) < 0.02


def test_kl_falls_to_zero_as_alpha_grows():
    values = kl_divergence(torch.linspace(-8, 8, 50))
    assert bool((values.diff() < 0).all())
    assert 0 <= float(values[-1]) < 1e-3


@pytest.mark.parametrize(("done", "share"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.8, 1.0)])
@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_penalty_and_its_warm_up(make_net, granularity: str, done: float, share: float):
    net = make_net("variational", granularity)
    step = TrainStep(share=done, train_size=50_000)
    net.begin_step(step, torch.Generator())
    params = net.parameters_by_name()
    log_alpha = net.method.log_alpha(params)
    sizes = {"conv": 27, "up": 24, "fc": 4}
    total = sum(float(kl_divergence(value.detach().double()).sum()) * sizes.get(name, 1) for name, value in log_alpha.items())
    assert float(net.penalty().detach()) == pytest.approx(share * 0.01 / 50_000 * total, rel=1e-5)
    assert net.method.metrics(step) == {"kl_share": share}


@pytest.mark.parametrize(("done", "factor"), [(0.0, 0.01), (0.25, 0.1), (0.5, 1.0), (1.0, 100.0)])
def test_the_released_warm_up_goes_on(toy_network, done: float, factor: float):
    method = single(nn.Linear(3, 2), warmup_curve="exponential").method
    assert method.kl_share(TrainStep(share=done)) == pytest.approx(factor)


def test_log_alpha_by_hand(toy_network):
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.1, 0.0], [math.exp(-7), math.exp(-1), 2.0]]))
    method = single(layer).method
    raw = method.raw_log_alpha(dict(layer.named_parameters()))["weight"]
    assert raw[0].tolist() == pytest.approx([-10.0, -10 + math.log(100), -10 - math.log(1e-8)], abs=1e-4)
    clipped = method.log_alpha(dict(layer.named_parameters()))["weight"]
    assert clipped.tolist()[0] == pytest.approx([-8.0, -10 + math.log(100), 8.0], abs=1e-4)
    deployed = method.deployed(dict(layer.named_parameters()))["weight"]
    assert (deployed == 0).tolist() == [[False, False, True], [True, False, False]]  # e^-7: log_alpha = 4
    scores = method.scores(dict(layer.named_parameters()))["weight"]
    assert scores.flatten().argsort().tolist()[:2] == [2, 3]


def test_a_unit_has_one_alpha_of_its_mean_square():
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 1.0, 1.0, 1.0], [1e-3, 1e-3, 1e-3, 1e-3]]))
    group = UnitGroup(name="fc", size=2, filters=(Slot(parameter="weight"),), tied=(Slot(parameter="bias"),))
    targets = Targets(weights=(Slot(parameter="weight"),), groups=(group,))
    method = VariationalSettings(granularity="unit").build(targets, layer)
    params = dict(layer.named_parameters())
    raw = method.raw_log_alpha(params)["fc"].tolist()
    assert raw == pytest.approx([-10 - math.log(3.0), -10 - math.log(1e-6 + 1e-8)], abs=1e-4)
    variance = method.variances(params)["weight"].detach()
    assert torch.allclose(variance[0], math.exp(-8) * layer.weight[0].detach().square())
    deployed = method.deployed(params)
    assert (deployed["weight"] == 0).all(1).tolist() == [False, True]
    assert (deployed["bias"] == 0).tolist() == [False, True]
    assert method.scores(params)["fc"].tolist() == [-raw[0], -raw[1]]


LAYERS = [
    (lambda: nn.Linear(5, 4), (6, 5)),
    (lambda: nn.Linear(5, 4, bias=False), (6, 3, 5)),
    (lambda: nn.Conv1d(2, 3, 3, stride=2), (4, 2, 9)),
    (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (3, 4, 5, 5)),
    (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (3, 2, 5, 5)),
    (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1), (3, 2, 4, 4)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_noise_has_the_mean_and_variance_that_noisy_weights_give(make, shape):
    """Monte Carlo over the weights themselves, N(w, alpha w^2), against the added noise, entry by entry."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = make()
    net = single(layer)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        net.method.get_parameter("log_sigma2/weight").fill_(-3.0)
        params = dict(layer.named_parameters())
        alpha = net.method.log_alpha(params)["weight"].exp()
        mean = layer(x)
        swapped = {"weight": alpha * layer.weight**2}
        swapped |= {"bias": torch.zeros_like(layer.bias)} if layer.bias is not None else {}
        variance = torch.func.functional_call(layer, swapped, x**2)
        net.train()
        generator = torch.Generator().manual_seed(2)
        net.begin_step(TrainStep(), generator)
        local = torch.stack([net(x) for _ in range(400)])
        sampled = torch.stack(
            [
                torch.func.functional_call(
                    layer, {"weight": layer.weight * (1 + alpha.sqrt() * torch.randn(alpha.shape, generator=generator))}, x
                )
                for _ in range(400)
            ]
        )
    noisy = variance > 1e-6  # an output padding that no weight reaches has none
    for draws in (local, sampled):
        standard = ((draws - mean) / variance.sqrt())[:, noisy]
        assert float(standard.mean(0).abs().max()) < 0.3
        assert float((standard.square().mean(0) - 1).abs().max()) < 0.45
    standard = (local - mean) / (variance + 1e-8).sqrt()
    assert abs(float((standard[:, 0] * standard[:, 1]).mean())) < 0.1  # each sample has noise of its own


def test_a_layer_that_is_called_by_keyword_gets_the_same_noise():
    layer = nn.ConvTranspose2d(2, 3, 3, stride=2)
    net = single(layer)
    net.train()
    x = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    outputs = []
    for call in (lambda: net(x, output_size=(10, 10)), lambda: net(output_size=(10, 10), input=x)):
        net.begin_step(TrainStep(), torch.Generator().manual_seed(2))
        outputs.append(call())
    assert torch.equal(*outputs)


def test_no_noise_outside_a_training_step(make_net, images):
    net = make_net("variational")
    net.train()
    net.model.bn.eval()
    dense = net(images[0])
    net.begin_step(TrainStep(), torch.Generator().manual_seed(0))
    assert not torch.equal(net(images[0]), dense)
    net.end_step()
    assert torch.equal(net(images[0]), dense)
    net.begin_step(TrainStep(), torch.Generator().manual_seed(0))
    net.eval()
    assert torch.equal(net(images[0]), net(images[0]))


def test_hooks_go_even_when_the_network_fails(make_net):
    net = make_net("variational")
    net.train()
    net.begin_step(TrainStep(), torch.Generator().manual_seed(0))
    with pytest.raises(RuntimeError):
        net(torch.zeros(1, 2, 3, 3))
    assert not any(module._forward_hooks for module in net.model.modules())


def test_attention_is_refused():
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2)
            self.head = nn.Linear(4, 2)

    model = Attending()
    with pytest.raises(UnsupportedError, match="exclude 'attention' or choose another method"):
        VariationalSettings().build(Targets(weights=prunable_weights(model)), model)
    shared = nn.ModuleDict({"layer": nn.Linear(4, 4), "inner": model})  # the weight has the layer's name
    shared["layer"].weight = model.attention.out_proj.weight
    with pytest.raises(UnsupportedError, match=r"exclude 'inner\.attention' or choose another method"):
        VariationalSettings().build(Targets(weights=prunable_weights(shared)), shared)


@pytest.mark.parametrize(
    ("options", "key"),
    [({"beta": -1.0}, "beta"), ({"warmup": 1.5}, "warmup"), ({"lr_scale": 0.0}, "lr_scale"), ({"threshold": 9.0}, "threshold")],
)
def test_values_out_of_range_are_refused(options: dict, key: str):
    with pytest.raises(ValueError, match=f"^{key}: "):
        VariationalSettings(**options)


def test_a_forward_pass_asks_no_parametrization_for_its_weight_but_once():
    """In training each time takes a step of spectral_norm's power iteration."""
    stored = []
    for noisy in (True, False):
        torch.manual_seed(0)
        normed = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        model = nn.Sequential(nn.Linear(4, 4), normed, nn.Linear(4, 3))
        targets = Targets(weights=prunable_weights(model, ["1"]))
        net = SparseNet(model, VariationalSettings().build(targets, model)) if noisy else model
        if noisy:
            net.begin_step(TrainStep(), torch.Generator())
        net(torch.ones(2, 4))
        stored.append(normed.parametrizations.weight[0]._u)
    assert torch.equal(*stored)
