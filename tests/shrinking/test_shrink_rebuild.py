"""kept_channels: through JSON and back, on the right network only; and the certificate and counts by themselves."""

import copy
import json

import pytest
import torch
from torch import nn

from tdcompress.errors import ModelError, VerificationError
from tdcompress.shrinking.certificate import certify
from tdcompress.shrinking.count import parameters_and_macs
from tdcompress.shrinking.exact import shrink
from tdcompress.shrinking.rebuild import narrow


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Sigmoid(), nn.Conv2d(8, 6, 1, groups=2), nn.Flatten(), nn.Linear(216, 4)
    )


@pytest.fixture
def shrunk():
    model = network()
    with torch.no_grad():
        model[0].weight[[0, 5]] = 0
        model[0].bias[[0, 5]] = 0
    return shrink(model, torch.randn(2, 3, 8, 8))


def test_json_round_trip_rebuilds_the_same_module(shrunk):
    assert shrunk.report.folded_biases == ("3.bias",)
    assert shrunk.report.parameters_after < shrunk.report.parameters_before
    again = narrow(network(), json.loads(json.dumps(shrunk.kept)))
    again.load_state_dict(shrunk.model.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(again.eval()(x), shrunk.model.eval()(x))
    assert str(again) == str(shrunk.model)


def test_another_network_is_refused(shrunk):
    other = network()
    other[0] = nn.Conv2d(3, 9, 3)
    with pytest.raises(ModelError, match=r"0.weight has shape"):
        narrow(other, shrunk.kept)
    with pytest.raises(ModelError, match="has no tensor"):
        narrow(nn.Linear(2, 2), shrunk.kept)


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept.update(format=2),
        lambda kept: kept.pop("tensors"),
        lambda kept: kept["tensors"]["0.weight"].update(keep={"0": [0, 99]}),
        lambda kept: kept["tensors"]["0.weight"].update(keep={"0": []}),
        lambda kept: kept["tensors"]["0.weight"].update(keep={"7": [0]}),
        lambda kept: kept["tensors"]["0.weight"].update(keep={"0": [1, 0]}),
        lambda kept: kept["tensors"]["0.weight"].update(keep={"0": ["a"]}),
        lambda kept: kept["tensors"]["0.weight"].update(groups=0),
        lambda kept: kept.update(narrow_attention=["0"]),
        lambda kept: kept.update(new_biases=["nowhere.bias"]),
    ],
)
def test_a_damaged_description_is_refused(shrunk, damage):
    kept = copy.deepcopy(shrunk.kept)
    damage(kept)
    with pytest.raises(ModelError):
        narrow(network(), kept)


def test_the_certificate_fails_on_any_difference():
    model = network().eval()
    x = torch.randn(2, 3, 8, 8)
    assert certify(model, copy.deepcopy(model), x).max_error == 0
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[5].bias[0] += 1e-6
    with pytest.raises(VerificationError, match="changed its outputs"):
        certify(model, other, x)
    with torch.no_grad():
        other[5].bias[0] = float("nan")
    with pytest.raises(VerificationError):
        certify(model, other, x)
    with pytest.raises(VerificationError, match="returns"):
        certify(model, model[:4], x)


def test_parameters_and_macs_by_hand():
    # 6x6 outputs: 3*9*8 and 8/2*6 products each; then 216*4.
    expected = 36 * 216 + 36 * 24 + 864
    assert parameters_and_macs(network(), torch.zeros(5, 3, 8, 8)) == (224 + 16 + 30 + 868, expected)


def test_macs_of_attention_by_hand():
    class Attention(nn.Module):
        def forward(self, q: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(q, q, v)

    # 3 heads: 5 * 5 scores of 4 products each, then 5 * 5 weights for each channel of v
    for channels in (4, 2):
        inputs = torch.zeros(2, 3, 5, 4), torch.zeros(2, 3, 5, channels)
        assert parameters_and_macs(Attention(), inputs) == (0, 3 * 5 * 5 * (4 + channels))
