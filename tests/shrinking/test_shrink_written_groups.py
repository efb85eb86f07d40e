"""Numbers of groups: what the forward code writes as a number keeps its channels; what follows from a width does not."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tdcompress as tdc
from tdcompress.shrinking.groups import find_units
from tdcompress.sparsity.units import prunable_weights

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

WRITTEN = {
    "group_norm": (lambda s, y: F.group_norm(y, 4), None),
    "group_norm of two": (lambda s, y: F.group_norm(y, 2), None),
    "group_norm of one each": (lambda s, y: F.group_norm(y, 16), None),
    "group_norm with an affine": (lambda s, y: F.group_norm(y, 4, s.scale, s.shift), None),
    "group_norm without an affine": (lambda s, y: s.layer(y), nn.GroupNorm(4, 16, affine=False)),
    "conv2d": (lambda s, y: F.conv2d(y, s.layer.weight, s.layer.bias, groups=4), nn.Conv2d(16, 16, 1, groups=4)),
    "conv_transpose2d": (lambda s, y: F.conv_transpose2d(y, s.layer.weight, groups=4), nn.ConvTranspose2d(16, 16, 1, groups=4)),
}
FOLLOWS = {
    "group_norm": (lambda s, y: F.group_norm(y, y.shape[1] // 4), None),
    "group_norm layer": (lambda s, y: s.layer(y), nn.GroupNorm(4, 16)),
    "conv2d": (
        lambda s, y: F.conv2d(y, s.layer.weight, groups=y.shape[1] // s.layer.weight.shape[1]),
        nn.Conv2d(16, 16, 1, groups=4, bias=False),
    ),
    "conv2d layer": (lambda s, y: s.layer(y), nn.Conv2d(16, 16, 1, groups=4)),
    "instance_norm": (lambda s, y: F.instance_norm(y, weight=s.scale, bias=s.shift), None),
    "pixel_shuffle": (lambda s, y: F.pixel_shuffle(F.pixel_unshuffle(y, 2), 2), None),
    "channel_shuffle": (lambda s, y: F.channel_shuffle(y, 4), None),
}


class Grouped(nn.Module):
    """Layer a, what has groups, and b, which may lose units whatever becomes of a's."""

    def __init__(self, between, layer: nn.Module | None) -> None:
        super().__init__()
        self.between = between
        self.a, self.b, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 1), nn.Linear(8, 2)
        self.scale, self.shift = nn.Parameter(torch.linspace(0.5, 2, 16)), nn.Parameter(torch.linspace(-1, 1, 16))
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y = self.between(self, y)
        return self.head(self.b(y).relu().mean((2, 3)))


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("scope", ["layer", "group"])
def test_a_number_of_groups_that_is_written_keeps_its_channels(name, scope):
    torch.manual_seed(0)
    model = Grouped(*WRITTEN[name])
    fixed = find_units(model, X, prunable_weights(model), scope=scope).fixed
    assert fixed["a"].startswith(f"{name.split()[0]} in ")
    assert fixed["a"].endswith("has its number of groups written as a number")
    with pytest.warns(UserWarning, match=r"left whole.*its number of groups written as a number"):
        tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=X, scope=scope)
    shrunk = tdc.shrink(model, X)
    assert (shrunk.model.a.out_channels, shrunk.model.b.out_channels) == (16, 4)
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


@pytest.mark.parametrize("name", WRITTEN)
def test_dead_channels_before_a_number_of_groups_that_is_written_stay_with_the_reason(name):
    torch.manual_seed(0)
    model = Grouped(*WRITTEN[name])
    with torch.no_grad():
        for layer in (model.a, model.b):
            layer.weight[:8] = 0
            layer.bias[:8] = 0
        model.b.weight[4] = 1
    model.scale.data[:8] = 0
    model.shift.data[:8] = 0
    if isinstance(model.layer, nn.Conv2d | nn.ConvTranspose2d):
        model.layer.weight.data[:8] = 0
        model.layer.bias.data[:8] = 0
    shrunk = tdc.shrink(model, X)
    assert (shrunk.model.a.out_channels, shrunk.model.b.out_channels) == (16, 1)
    reasons = {reason for layer in shrunk.report.layers if layer.name == "a" for reason, _ in layer.reasons}
    assert any(reason.endswith("has its number of groups written as a number") for reason in reasons)


@pytest.mark.parametrize("name", FOLLOWS)
def test_half_of_the_channels_leave_where_the_number_follows_from_the_width(name):
    torch.manual_seed(0)
    model = Grouped(*FOLLOWS[name])
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=X, scope="group")
    shrunk = tdc.shrink(model, X)
    assert (shrunk.model.a.out_channels, shrunk.model.b.out_channels) == (8, 4)
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


@pytest.mark.parametrize(
    "operator",
    [
        lambda y: F.layer_norm(y.movedim(1, -1), (16,)).movedim(-1, 1),
        lambda y: F.rms_norm(y.movedim(1, -1), (16,)).movedim(-1, 1),
        lambda y: F.local_response_norm(y, 3),
    ],
)
def test_what_normalises_all_channels_together_is_spared_by_name(operator):
    model = Grouped(lambda s, y: operator(y), None)
    assert list(find_units(model, X, prunable_weights(model)).fixed) == ["a"]
