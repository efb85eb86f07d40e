import pytest
import torch
from torch import Tensor, nn

from tdcompress.methods.base import Method, TrainStep
from tdcompress.methods.l1 import L1Settings, l1_penalty
from tdcompress.methods.none import NoneSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.units import Slot, Targets

TARGETS = Targets(weights=(Slot(parameter="0.weight"), Slot(parameter="1.weight")))


class Scaled(Method):
    """Twice the weights in training, three times in deployment."""

    def effective(self, params) -> dict[str, Tensor]:
        return {"0.weight": params["0.weight"] * 2}

    def deployed(self, params) -> dict[str, Tensor]:
        return {"0.weight": params["0.weight"] * 3}


def two_layers() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 0.5]]))
        model[1].weight.copy_(torch.tensor([[1.0, -3.0]]))
    return model


def test_training_runs_with_effective_and_evaluation_with_deployed_parameters():
    net = SparseNet(two_layers(), Scaled(TARGETS))
    x = torch.tensor([[1.0, 1.0]])
    plain = float(net.model(x).detach())
    assert plain == -1.0 - 3.0
    assert float(net.train()(x).detach()) == 2 * plain
    assert float(net.eval()(x).detach()) == 3 * plain
    assert float(net.model(x).detach()) == plain


def test_gradients_reach_the_dense_weights():
    net = SparseNet(two_layers(), Scaled(TARGETS)).train()
    net(torch.tensor([[1.0, 1.0]])).sum().backward()
    assert net.model[0].weight.grad.tolist() == [[2.0, 2.0], [-6.0, -6.0]]


def test_plain_bakes_what_is_deployed_into_the_same_module():
    model = two_layers()
    net = SparseNet(model, Scaled(TARGETS))
    weight = model[0].weight
    assert net.plain() is model
    assert model[0].weight is weight
    assert weight.tolist() == [[3.0, -6.0], [1.5, 1.5]]


def test_l1_by_hand():
    """beta times the sum over layers of mean |w|: 4 / 4 and 4 / 2."""
    model = two_layers()
    params = dict(model.named_parameters())
    assert float(l1_penalty(params, TARGETS.weights, 0.5).detach()) == 0.5 * (1.0 + 2.0)
    net = SparseNet(model, L1Settings(l1=0.5).build(TARGETS, model), l1=0.5)
    penalty = net.penalty()
    assert float(penalty.detach()) == 1.5
    penalty.backward()
    assert model[0].weight.grad.tolist() == [[0.125, -0.125], [0.125, 0.125]]
    assert model[1].weight.grad.tolist() == [[0.25, -0.25]]


def test_no_method_changes_nothing():
    model = two_layers()
    net = SparseNet(model, NoneSettings().build(TARGETS, model))
    net.begin_step(TrainStep(), torch.Generator())
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net.train()(x), model(x))
    assert net.penalty() is None
    assert net.method.scores(net.parameters_by_name()) == {}
    net.end_step()


@pytest.mark.parametrize("l1", [0.0, -1.0, float("nan")])
def test_l1_needs_a_strength(l1: float):
    with pytest.raises(ValueError, match=r"^l1: "):
        L1Settings(l1=l1)


def test_state_dict_is_the_networks_and_the_methods():
    model = two_layers()
    net = SparseNet(model, NoneSettings().build(TARGETS, model))
    assert set(net.state_dict()) == {"model.0.weight", "model.1.weight"}
