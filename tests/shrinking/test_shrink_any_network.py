"""Networks as people bring them: whatever their modules hold, they are shrunk exactly, or refused in one line."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import tdcompress as tdc
from tdcompress.errors import ModelError
from tdcompress.sparsity.units import prunable_weights

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(first: nn.Module) -> nn.Sequential:
    second = nn.Conv2d(8, 16, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def certified(shrunk) -> None:
    assert shrunk.report.max_output > 0
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


def old(kind: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return getattr(nn.utils, kind)(nn.Conv2d(3, 8, 3))


class Cached(nn.Module):
    """Keeps what it computed, in an attribute and inside containers."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.last, self.cache = network(nn.Conv2d(3, 8, 3)), None, {}

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.net(x)
        self.cache["features"] = [self.last]
        return self.last


COMPUTED = {
    "weight_norm": lambda: old("weight_norm"),
    "spectral_norm": lambda: old("spectral_norm"),
    "parametrized weight_norm": lambda: parametrizations.weight_norm(nn.Conv2d(3, 8, 3)),
    "parametrized spectral_norm": lambda: parametrizations.spectral_norm(nn.Conv2d(3, 8, 3)),
    "parametrized orthogonal": lambda: parametrizations.orthogonal(nn.Conv2d(3, 8, 3)),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ran", [True, False], ids=["after a forward pass", "new"])
@pytest.mark.parametrize("kind", COMPUTED)
def test_layers_whose_weight_is_computed_stay_and_the_rest_is_shrunk(kind, ran, training):
    torch.manual_seed(0)
    model = network(COMPUTED[kind]()).train(training)
    if ran:
        model(X)
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=X, exclude=["0"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shrunk = tdc.shrink(model, X)
    certified(shrunk)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())  # also what power iteration stores
    assert (shrunk.model[0].out_channels, shrunk.model[2].out_channels, shrunk.model.training) == (8, 8, training)
    with torch.no_grad():
        torch.testing.assert_close(shrunk.model.eval()(X), model.eval()(X), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4)], ids=["batch", "group"])
def test_normalisation_by_a_computed_weight_makes_no_constants(layer):
    torch.manual_seed(0)
    nn.init.normal_(layer.bias)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        parametrizations.weight_norm(layer, dim=None),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 2, 1),
    )
    with torch.no_grad():
        for unit in (0, 1):  # a constant in front of the normalisation, and one behind
            model[0].weight[unit], model[3].weight[unit] = 0, 0
    shrunk = tdc.shrink(model, X)
    certified(shrunk)
    assert (shrunk.model[0].out_channels, shrunk.model[3].out_channels) == (4, 2)


def test_a_cached_feature_does_not_stand_in_the_way():
    model = Cached()
    model(X)
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=X)
    shrunk = tdc.shrink(model, X)
    certified(shrunk)
    assert shrunk.model.net[2].out_channels == 8
    assert model.last.grad_fn is not None  # ours is a copy


def test_networks_made_in_inference_mode_are_pruned_and_shrunk_but_not_trained():
    with torch.inference_mode():
        model = network(nn.Conv2d(3, 8, 3))
    masks = tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=X)
    assert not model[0].weight[~masks["0.weight"]].any()
    shrunk = tdc.shrink(model, X)
    certified(shrunk)
    shrunk.model(X).sum().backward()  # an ordinary network
    with pytest.raises(ModelError, match=r"inference_mode and cannot be changed"):
        tdc.TargetedDropout(model, gamma=0.5)


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_networks_without_values_are_refused(granularity):
    for model, said in (
        (network(nn.Conv2d(3, 8, 3)).to("meta"), r"0\.weight of Sequential is on the meta device"),
        (network(nn.LazyConv2d(8, 3)), r"0\.weight of Sequential has no shape yet"),
    ):
        with pytest.raises(ModelError, match=said):
            tdc.prune(model, granularity=granularity, fraction=0.5, example_inputs=X)
        with pytest.raises(ModelError, match=said):
            tdc.shrink(model, X)


def test_a_network_that_cannot_be_copied_is_refused():
    model = network(nn.Conv2d(3, 8, 3))
    model.source = (i for i in range(3))  # a generator
    with pytest.raises(ModelError, match="Sequential cannot be copied: TypeError"):
        tdc.shrink(model, X)


class Conv1D(nn.Module):
    """As HuggingFace's GPT-2 has it: a linear layer whose weight is (inputs, outputs)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf) * 0.2), nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        size = (*x.size()[:-1], self.nf)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


class Gpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(11, 6), nn.LayerNorm(6), nn.Linear(6, 11)
        self.fc, self.proj = Conv1D(24, 6), Conv1D(6, 24)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        return self.head(x + self.proj(nn.functional.gelu(self.fc(self.norm(x)))))


@pytest.mark.parametrize("scope", ["layer", "group"])
def test_the_transposed_linear_layer_of_gpt2_is_a_weight_matrix(scope):
    torch.manual_seed(0)
    model, tokens = Gpt(), torch.randint(0, 11, (2, 5))
    assert {slot.parameter: slot.axis for slot in prunable_weights(model)} == {
        "fc.weight": 1,
        "proj.weight": 1,
    }
    with pytest.warns(UserWarning, match=r"1 layer left whole, .*: proj \(norm "):
        masks = tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=tokens, scope=scope)
    assert int((~masks["fc.weight"]).all(0).sum()) == 12
    shrunk = tdc.shrink(model, tokens)
    certified(shrunk)
    assert (shrunk.model.fc.nf, tuple(shrunk.model.proj.weight.shape), shrunk.model.proj.nx) == (12, (12, 6), 12)
    masks = tdc.prune(Gpt(), fraction=0.5)
    assert (~masks["fc.weight"]).sum(0).tolist() == [3] * 24  # the share of each filter
