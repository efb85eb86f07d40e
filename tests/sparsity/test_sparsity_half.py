"""Networks in float16 and bfloat16 are ranked as their numbers say: norms are computed in float32."""

import numpy as np
import pytest
import torch
from torch import nn

import tdcompress as tdc
from tdcompress.methods.variational import VariationalSettings
from tdcompress.sparsity.scores import squares, unit_scores
from tdcompress.sparsity.units import Slot, Targets, UnitGroup

HALVES = [torch.float16, torch.bfloat16]
SCALES = [1e-4, 1e-2, 30.0, 300.0]  # in float16 the squares of the first are 0, those of the last infinite
X = torch.ones(2, 64)


def network(dtype: torch.dtype, scale: float) -> nn.Sequential:
    """Two layers of 32 and 16 units, the filters of different sizes."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype)
    with torch.no_grad():
        for layer in (model[0], model[2]):
            sizes = torch.linspace(0.5, 1.5, len(layer.weight))[:, None]
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * sizes * scale)
    return model


def exact(layer: nn.Linear) -> np.ndarray:
    weight: np.ndarray = layer.weight.detach().double().numpy()
    return weight


def assert_lowest_went(norms: np.ndarray, kept: np.ndarray, share: float) -> None:
    assert int((~kept).sum()) == int(share * kept.size)
    assert norms[~kept].max() <= norms[kept].min() * (1 + 1e-6)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("scale", SCALES)
def test_units_go_by_their_exact_norms(dtype, scale):
    model = network(dtype, scale)
    norms = [np.sqrt((exact(model[index]) ** 2).sum(1)) for index in (0, 2)]
    net = tdc.TargetedDropout(model, granularity="unit", gamma=0.5, alpha=1.0, example_inputs=X.to(dtype))
    for index, own in zip((0, 2), norms, strict=True):
        assert_lowest_went(own, ~net.method.dropped()[f"{index}.weight"][:, 0].numpy(), 0.5)
    masks = tdc.prune(net, granularity="unit", fraction=0.5, shares="global", example_inputs=X.to(dtype))
    assert_lowest_went(np.concatenate(norms), np.concatenate([masks[f"{i}.weight"][:, 0].numpy() for i in (0, 2)]), 0.5)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("scale", SCALES)
def test_blocks_go_by_their_exact_norms(dtype, scale):
    model = network(dtype, scale)
    blocks = np.sqrt((exact(model[0]).reshape(8, 4, 64) ** 2).sum(1))
    dropped = tdc.TargetedDropout(model, granularity="1x4", gamma=0.5, alpha=1.0).method.dropped()["0.weight"]
    masks = tdc.prune(model, granularity="1x4", fraction=0.5)
    assert torch.equal(~dropped, masks["0.weight"])
    for norms, kept in zip(blocks, masks["0.weight"].view(8, 4, 64)[:, 0].numpy(), strict=True):
        assert_lowest_went(norms, kept, 0.5)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_group_of_layers_adds_squares_up_in_float32(dtype):
    """300^2 + 400^2 = 500^2 from two writers, one of which is float32."""
    params = {"a": torch.tensor([[300.0, 0.0], [1.5e-4, 0.0]], dtype=dtype), "b": torch.tensor([[400.0], [2e-4]])}
    group = UnitGroup(name="a", size=2, filters=(Slot(parameter="a"), Slot(parameter="b")))
    scores = unit_scores(params, group)
    assert scores.dtype == torch.float32
    first, second = params["a"][:, 0].double().tolist()
    assert scores.tolist() == pytest.approx(
        [(first**2 + 400**2) ** 0.5, (second**2 + float(params["b"][1]) ** 2) ** 0.5], rel=1e-6
    )


@pytest.mark.parametrize("dtype", HALVES)
def test_variational_dropout_ranks_small_weights(dtype):
    """log sigma^2 - log(w^2 + 1e-8), which is infinite where the square of a small weight is 0 and so is 1e-8."""
    layer = nn.Linear(2, 1, bias=False).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2e-4, 3e-5]]))
    method = VariationalSettings().build(Targets(weights=(Slot(parameter="weight"),)), layer)
    (scores,) = method.scores(dict(layer.named_parameters())).values()
    expected = 10 + torch.log(layer.weight.detach().double() ** 2 + 1e-8)
    torch.testing.assert_close(scores.double(), expected, rtol=1e-6, atol=1e-6)


def test_squares_of_wider_types_stay_in_theirs():
    assert squares(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
    assert squares(torch.ones(1)).dtype == torch.float32
