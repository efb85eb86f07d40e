"""What holds for every method: it trains in every precision, resumes exactly, deploys what it evaluates, and leaves no trace."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from tdcompress.methods.base import TrainStep
from tdcompress.methods.registry import METHODS
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.masks import apply_masks, unit_masks, weight_masks
from tdcompress.sparsity.units import Slot, Targets, prunable_weights

DRAWING = ("dropout", "l0", "targeted", "variational")  # draw anew at each step
EVERY = list(itertools.product(METHODS, ("weight", "unit")))


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)


def test_the_registry_names_every_method():
    assert set(METHODS) == {"none", "dropout", "targeted", "l1", "l0", "variational", "smallify", "random_prune"}
    assert all(settings.name == name for name, settings in METHODS.items())


@pytest.mark.parametrize(("name", "granularity"), EVERY)
@pytest.mark.parametrize("bf16", [False, True])
def test_trains(make_net, run_steps, name: str, granularity: str, bf16: bool):
    net = make_net(name, granularity)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    losses = run_steps(net, sgd(net), torch.Generator().manual_seed(1), range(4), bf16)
    assert all(math.isfinite(loss) for loss in losses)
    assert all(bool(torch.isfinite(value.grad).all()) and bool(value.grad.any()) for value in net.parameters())
    assert all(not torch.equal(net.state_dict()[key], before[key]) for key in before if key.startswith("model.up"))
    assert all(math.isfinite(value) for value in net.method.metrics(TrainStep(epoch=1.0)).values())


@pytest.mark.parametrize(("name", "granularity"), EVERY)
def test_an_average_of_all_it_holds_is_evaluated_as_itself(make_net, run_steps, images, name: str, granularity: str):
    """As a training with train.average measures it, beside the parameters of the moment."""
    net, averaged = make_net(name, granularity), make_net(name, granularity)
    for each, steps in ((net, 1), (averaged, 3)):
        run_steps(each, sgd(each), torch.Generator().manual_seed(1), range(steps))
        each.eval()
    kept = {key: value.detach().clone() for key, value in averaged.state_dict().items()}
    pixels, _ = images
    expected = averaged(pixels)
    assert not torch.equal(net(pixels), expected)
    assert torch.equal(functional_call(net, kept, (pixels,)), expected)


# where gates are neither surely open nor surely closed, noise is felt, and costs are as large as the loss
UNDECIDED = {
    "l0": {"beta": 0.3, "initial_drop": 0.5},
    "smallify": {"strength": 0.05},
    "variational": {"beta": 0.3, "warmup": 0.0},
}


@pytest.mark.parametrize(("name", "granularity"), EVERY)
def test_gradients_against_finite_differences(make_net, images, check_gradients, name: str, granularity: str):
    """Of the loss and the penalties together, L1 among them, in the network's parameters and the method's own."""
    net = make_net(name, granularity, l1=0.3, **UNDECIDED.get(name, {})).double().train()
    net.model.bn.eval()  # so that a loss leaves nothing behind
    with torch.no_grad():
        for key, parameter in net.method.named_parameters():
            parameter.add_(6.0 if key.startswith("log_sigma2") else 0.0)

    def loss() -> torch.Tensor:
        net.begin_step(TrainStep(train_size=12), torch.Generator().manual_seed(3))
        return nn.functional.cross_entropy(net(images[0].double()), images[1]) + net.penalty()

    assert check_gradients(loss, dict(net.named_parameters())) > 40
    if net.method.penalty(net.parameters_by_name()) is not None:
        own = {key: parameter for key, parameter in net.named_parameters() if key.startswith("method.")}
        assert check_gradients(net.penalty, own, every=3) > 5


@pytest.mark.parametrize(("name", "granularity"), EVERY)
def test_resumes_exactly(make_net, run_steps, name: str, granularity: str):
    whole, generator = make_net(name, granularity), torch.Generator().manual_seed(1)
    optimizer = sgd(whole)
    first = run_steps(whole, optimizer, generator, range(3))
    state = copy.deepcopy((whole.state_dict(), optimizer.state_dict(), generator.get_state()))
    second = run_steps(whole, optimizer, generator, range(3, 6))
    assert len(first) == len(second) == 3

    resumed = make_net(name, granularity, seed=5)  # other first gates: the state has to replace them
    resumed.load_state_dict(state[0])
    optimizer = sgd(resumed)
    optimizer.load_state_dict(state[1])
    generator = torch.Generator()
    generator.set_state(state[2])
    assert run_steps(resumed, optimizer, generator, range(3, 6)) == second
    for (key, value), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, other), key


@pytest.mark.parametrize(("name", "granularity"), EVERY)
def test_the_plain_network_is_what_was_evaluated(make_net, run_steps, images, name: str, granularity: str):
    net = make_net(name, granularity)
    run_steps(net, sgd(net), torch.Generator().manual_seed(1), range(3))
    net.eval()
    with torch.no_grad():
        evaluated = net(images[0])
        plain = net.plain()(images[0])
    assert torch.equal(evaluated, plain)
    assert not any(torch.signbit(value[value == 0]).any() for value in net.model.parameters())


@pytest.mark.parametrize(("name", "granularity"), EVERY)
def test_the_network_is_left_as_it_was(make_net, run_steps, toy_network, name: str, granularity: str):
    net = make_net(name, granularity)
    run_steps(net, sgd(net), torch.Generator().manual_seed(1), range(2))
    assert net.model.state_dict().keys() == toy_network().state_dict().keys()
    assert not any(module._forward_hooks for module in net.model.modules())
    copy.deepcopy(net)


@pytest.mark.parametrize(("name", "granularity"), EVERY)
def test_the_same_draws_give_the_same_network_and_micro_batches_share_them(make_net, images, name: str, granularity: str):
    def outputs(seed: int):
        net = make_net(name, granularity).train()
        net.begin_step(TrainStep(train_size=12), torch.Generator().manual_seed(seed))
        return net(images[0]), net(images[0])

    (once, again), (same, _), (other, _) = outputs(3), outputs(3), outputs(4)
    assert torch.equal(once, again) == (name != "variational")  # its noise is on activations, another for each sample
    assert torch.equal(once, same)
    assert torch.equal(once, other) == (name not in DRAWING)


@pytest.mark.parametrize(("name", "granularity"), EVERY)
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9])
def test_prunes_by_its_own_importance(make_net, run_steps, targets, name: str, granularity: str, fraction: float):
    net = make_net(name, granularity)
    run_steps(net, sgd(net), torch.Generator().manual_seed(1), range(3))
    scores = net.method.scores(net.parameters_by_name())
    assert all(torch.isfinite(score).all() for score in scores.values())
    model = net.plain()
    params = {key: value.detach() for key, value in model.named_parameters()}
    if granularity == "weight":
        assert set(scores) <= {slot.parameter for slot in targets.weights}
        masks = weight_masks(params, targets.weights, scores=scores, fraction=fraction)
        assert int((~masks["fc.weight"]).sum()) == 8 * int(4 * fraction)
    else:
        assert set(scores) <= {group.name for group in targets.groups}
        masks = unit_masks(params, targets.groups, scores=scores, fraction=fraction)
        assert int((~masks["fc.bias"]).sum()) == int(8 * fraction)
    apply_masks(model, masks)
    assert all((dict(model.named_parameters())[key][~mask] == 0).all() for key, mask in masks.items())


@pytest.mark.parametrize(("name", "granularity"), EVERY)
def test_state_has_names_that_safetensors_and_torch_take(make_net, targets, name: str, granularity: str):
    state = make_net(name, granularity).method.state_dict()
    places = [slot.parameter for slot in targets.weights] if granularity == "weight" else [g.name for g in targets.groups]
    allowed = {place.replace(".", "/") for place in places}
    assert {key.split("/", 1)[1] for key in state} == (allowed if state else set())


@pytest.mark.parametrize("name", METHODS)
def test_l1_combines_with_any_method(make_net, name: str):
    net = make_net(name, l1=0.5)
    alone = net.method.penalty(net.parameters_by_name())
    params = net.parameters_by_name()
    mean = sum(float(params[key].detach().abs().mean()) for key in ("conv.weight", "up.weight", "fc.weight"))
    expected = 0.5 * mean + (0.0 if alone is None else float(alone.detach()))
    assert float(net.penalty().detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_negative_l1_strength_is_refused(name: str):
    with pytest.raises((ValueError, TypeError), match=r"l1|fraction"):
        METHODS[name](l1=-0.1)


class Recurrent(nn.Module):
    """One weight used in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


@pytest.mark.parametrize("name", METHODS)
def test_a_tied_weight_is_dropped_alike_in_both_places(make_settings, name: str):
    model = Recurrent()
    targets = Targets(weights=prunable_weights(model))
    assert targets.weights == (Slot(parameter="first.weight"),)
    net = SparseNet(model, make_settings(name).build(targets, model))
    net.train()
    net.begin_step(TrainStep(train_size=5), torch.Generator().manual_seed(0))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    output = net(x)
    output.sum().backward()
    assert model.second.weight is model.first.weight
    if name in ("dropout", "targeted", "l0", "smallify", "random_prune"):
        weight = net.method.effective(net.parameters_by_name())["first.weight"]
        hidden = torch.relu(torch.relu(x @ weight.T + model.first.bias) @ weight.T + model.second.bias)
        assert torch.allclose(output, hidden @ model.head.weight.T + model.head.bias, atol=1e-6)
