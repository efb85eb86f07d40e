import math

import pytest
import torch

from tdcompress.methods.base import TrainStep
from tdcompress.methods.l0 import L0Settings, estimated_gate, open_chance, sampled_gate


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def logit(u: float) -> float:
    return math.log(u / (1 - u))


@pytest.mark.parametrize(
    ("log_alpha", "u", "expected"),
    [
        (0.0, 0.5, 0.5),
        (1.0, 0.5, min(1.0, 1.2 * sigmoid(1.5) - 0.1)),
        (-1.0, 0.5, 1.2 * sigmoid(-1.5) - 0.1),
        (0.0, 0.1, 1.2 * sigmoid(1.5 * logit(0.1)) - 0.1 if 1.2 * sigmoid(1.5 * logit(0.1)) > 0.1 else 0.0),
        (0.0, 0.01, 0.0),
        (0.0, 0.99, 1.0),
        (6.9, 0.5, 1.0),
        (-6.9, 0.5, 0.0),
    ],
)
def test_sampled_gates_by_hand(log_alpha: float, u: float, expected: float):
    gate = sampled_gate(torch.tensor(log_alpha, dtype=torch.float64), torch.tensor(logit(u), dtype=torch.float64))
    assert float(gate) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("log_alpha", "expected"),
    [(0.0, 0.5), (2.0, 1.2 * sigmoid(2.0) - 0.1), (2.5, 1.0), (-2.4, 0.0), (-2.3, 1.2 * sigmoid(-2.3) - 0.1)],
)
def test_estimated_gates_by_hand(log_alpha: float, expected: float):
    assert float(estimated_gate(torch.tensor(log_alpha, dtype=torch.float64))) == pytest.approx(expected, abs=1e-12)


def test_the_chance_to_be_open_is_that_of_the_draws():
    log_alpha = torch.tensor([-2.0, 0.0, 1.5], dtype=torch.float64)
    expected = torch.sigmoid(log_alpha + 2 / 3 * math.log(11))
    assert torch.allclose(open_chance(log_alpha), expected, atol=1e-12)
    uniform = torch.rand(200_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn_open = (sampled_gate(log_alpha, uniform.logit()) > 0).double().mean(0)
    assert torch.allclose(drawn_open, expected, atol=0.004)


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_penalty_at_the_start(make_net, granularity: str):
    """beta / (training samples) times the expected number of weights behind open gates."""
    net = make_net("l0", granularity, beta=0.5)
    net.begin_step(TrainStep(train_size=50_000), torch.Generator().manual_seed(0))
    weights = 6 * 27 + 4 * 24 + 8 * 4
    chance = sigmoid(logit(0.999) + 2 / 3 * math.log(11))
    assert float(net.penalty().detach()) == pytest.approx(0.5 / 50_000 * weights * chance, rel=1e-4)


def test_gates_start_near_the_logit_of_the_initial_drop_rate(make_net):
    logits = make_net("l0", initial_drop=0.2).method.log_alpha("conv.weight").detach()
    assert float(logits.mean()) == pytest.approx(math.log(4), abs=0.01)
    assert float(logits.std()) == pytest.approx(0.01, rel=0.2)
    assert torch.equal(logits, make_net("l0", initial_drop=0.2).method.log_alpha("conv.weight"))
    assert not torch.equal(logits, make_net("l0", seed=1, initial_drop=0.2).method.log_alpha("conv.weight"))


def test_a_units_gate_multiplies_all_that_is_tied_to_it(make_net):
    net = make_net("l0", "unit")
    with torch.no_grad():
        net.method.log_alpha("conv").copy_(torch.tensor([-9.0, 0.0, 9.0, 0.0, 9.0, 9.0]))
    params, deployed = net.parameters_by_name(), net.method.deployed(net.parameters_by_name())
    gates = torch.tensor([0.0, 0.5, 1.0, 0.5, 1.0, 1.0])
    assert torch.equal(deployed["conv.weight"], params["conv.weight"] * gates[:, None, None, None])
    assert torch.equal(deployed["bn.weight"], params["bn.weight"] * gates)
    assert torch.equal(deployed["conv.bias"], params["conv.bias"] * gates)
    assert net.method.metrics(TrainStep())["open"] == pytest.approx(1 - 27 / 290)


def test_rankings(make_net):
    """The estimated final parameters rank by default; the gates' logits in the released variant."""
    assert make_net("l0").method.scores({}) == {}
    net = make_net("l0", ranking="gate")
    scores = net.method.scores(net.parameters_by_name())
    assert torch.equal(scores["fc.weight"], net.method.log_alpha("fc.weight"))
    assert not scores["fc.weight"].requires_grad
    assert make_net("l0", "unit", ranking="gate").method.scores({}).keys() == {"conv", "up", "fc"}


def test_before_the_first_step_training_is_dense(make_net):
    net = make_net("l0")
    assert net.method.effective(net.parameters_by_name()) == {}


@pytest.mark.parametrize(
    ("options", "key"), [({"beta": -1.0}, "beta"), ({"beta": math.inf}, "beta"), ({"initial_drop": 0.0}, "initial_drop")]
)
def test_values_out_of_range_are_refused(options: dict, key: str):
    with pytest.raises(ValueError, match=f"^{key}: "):
        L0Settings(**options)
