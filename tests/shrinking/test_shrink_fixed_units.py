"""Units that can never leave are not pruned unless asked: what the network returns, and streams that nothing can narrow."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.errors import ModelError
from tdcompress.shrinking.groups import find_units, unit_groups
from tdcompress.sparsity.units import prunable_weights

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def dead(model: nn.Module, name: str) -> int:
    return int((~dict(model.named_parameters())[name].flatten(1).any(1)).sum())


def pruned(model: nn.Module, x: Tensor = X, **settings) -> nn.Module:
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=x, **settings)
    return model


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.seg, self.cls = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 6, 1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.a(x).relu()
        return {"maps": self.seg(y), "logits": self.cls(y.mean((2, 3)))}


class Pyramid(nn.Module):
    """Levels that are returned, each through a lateral and a smoothing convolution, and read by the next."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.top, self.side = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 1)
        self.smooth = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        a = self.a(x).relu()
        top = self.top(self.b(a).relu())
        return [self.smooth(self.side(a) + nn.functional.interpolate(top, scale_factor=2)), top]


class SegmentedWithGates(nn.Module):
    """A convolution as the head, and a squeeze-excitation block whose linear layers come last."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 6, 1)
        self.down, self.up = nn.Linear(16, 4), nn.Linear(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        gate = self.up(self.down(y.mean((2, 3))).relu()).sigmoid()
        return self.head(y * gate[:, :, None, None])


@pytest.mark.parametrize("scope", ["layer", "group"])
@pytest.mark.parametrize("unit", ["whole", "filter"])
def test_what_the_network_returns_stays_whole(scope, unit):
    for model, returned, inner in (
        (TwoHeads(), ("seg", "cls"), ("a",)),
        (Pyramid(), ("smooth", "top"), ("a", "b")),  # side shares the channels of top
        (SegmentedWithGates(), ("head",), ("a", "down")),
    ):
        pruned(model, scope=scope, unit=unit)
        assert [dead(model, f"{name}.weight") for name in returned] == [0] * len(returned)
        assert all(dead(model, f"{name}.weight") > 0 for name in inner)
        shrunk = tdc.shrink(model, X)
        assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output
    model = pruned(TwoHeads(), scope=scope, unit=unit, include=["seg"])
    assert dead(model, "seg.weight") == 3


def test_the_rows_of_a_layer_that_are_returned_are_spared_and_the_others_are_ranked():
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b, self.o = nn.Linear(5, 12), nn.BatchNorm1d(12), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            left, right = torch.split(self.norm(self.a(x)), (6, 6), 1)
            return left, self.o(self.b(right.relu()))

    model = Half()
    x = torch.randn(4, 5)
    (first, second) = unit_groups(model, x, prunable_weights(model))
    assert (first.name, first.size) == ("a", 6)
    assert [slot.positions for slot in first.filters] == [tuple((index,) for index in range(6, 12))]
    assert {slot.parameter: slot.positions[0] for slot in first.tied} == {"a.bias": (6,), "norm.weight": (6,), "norm.bias": (6,)}
    assert second.name == "b"
    with torch.no_grad():
        model.a.weight[:6] *= 1e-3  # the weakest, were they ranked
    pruned(model, x)
    assert model.a.weight[:6].any(1).all()
    assert int((~model.a.weight[6:].any(1)).sum()) == 3


class OneHead(nn.Module):
    """Attention of a single head, whose channels its scale counts."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.gate = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 1)
        self.b, self.out = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))
        return self.out(self.b(y * self.gate(y)).relu())


def test_a_stream_of_one_unit_is_left_whole_and_named():
    model, x = OneHead(), torch.randn(2, 3, 5)
    units = find_units(model, x, prunable_weights(model), scope="group")
    assert [(group.name, group.size) for group in units.groups] == [("b", 6)]
    assert units.fixed.pop("gate").endswith("repeats it over other channels")
    assert units.fixed == dict.fromkeys("qkv", "its channels go all together, or not at all")
    asked = find_units(model, x, prunable_weights(model), scope="group", include=["v"])
    assert [(group.name, group.size) for group in asked.groups] == [("v", 4), ("b", 6)]


class Transformer(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.stem, self.norm = nn.Linear(6, 8), nn.LayerNorm(8)
        self.qkv, self.out, self.up, self.down = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, 4)).permute(2, 0, 3, 1, 4)
        x = x + self.out(((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2))
        return self.head(x + self.down(self.up(self.norm(x)).relu()))


@pytest.mark.parametrize("scope", ["layer", "group"])
@pytest.mark.parametrize("heads", [2, -1])
def test_streams_that_nothing_can_narrow_are_named_and_left_whole(scope, heads):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6)
    units = find_units(model := Transformer(heads), x, prunable_weights(model), scope=scope)
    assert set(units.fixed) == {"stem", "out", "down", *(["qkv"] if heads == 2 else [])}
    assert "normalises all channels together" in units.fixed["out"]
    assert heads == -1 or "size written as a number" in units.fixed["qkv"]
    assert {group.name for group in units.groups} == {"up", *(["qkv"] if heads == -1 else [])}
    with pytest.warns(UserWarning, match=r"layers left whole, since no unit could ever leave: .*norm .*include") as said:
        pruned(model, x, scope=scope)
    assert said[0].filename == __file__
    assert dead(model, "stem.weight") == dead(model, "out.weight") == dead(model, "down.weight") == 0
    assert dead(model, "up.weight") == 8
    with pytest.warns(UserWarning, match="left whole"):
        pruned(model := Transformer(heads), x, scope=scope, include=["out"])
    assert dead(model, "out.weight") == 4
    with pytest.raises(ModelError, match="include = 'oout' names no prunable layer of Transformer; it has stem, qkv"):
        pruned(model, x, include=["oout"])


def test_a_flattened_size_that_is_a_number_keeps_its_convolution():
    class Literal(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.a, self.b, self.f, self.o = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(576, 8), nn.Linear(8, 2)
            self.size = size

        def forward(self, x: Tensor) -> Tensor:
            return self.o(self.f(self.b(self.a(x).relu()).relu().view(-1 if self.size else x.shape[0], self.size or 576)).relu())

    model = Literal(576)
    with pytest.warns(UserWarning, match=r"1 layer left whole, .*: b \(view in .* has a size written as a number\)"):
        pruned(model)
    assert (dead(model, "a.weight"), dead(model, "b.weight"), dead(model, "f.weight")) == (2, 0, 4)


def test_dropout_in_training_spares_what_pruning_spares():
    net = tdc.TargetedDropout(TwoHeads(), granularity="unit", gamma=1.0, alpha=1.0, example_inputs=X)
    assert set(net.method.keep) == {"a.weight", "a.bias"}


class Split(nn.Module):
    """C2f with a shortcut: both parts of a chunk are read, and the second has more writers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.cv1, self.cv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 32, 1), nn.Conv2d(48, 16, 1)
        self.m = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
        self.norm, self.o = nn.BatchNorm2d(32), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.norm(self.cv1(self.stem(x).relu())).relu().chunk(2, 1)
        return self.o(self.cv2(torch.cat([a, b, b + self.m(b)], 1)).relu().mean((2, 3)))


class SplitBySlices(Split):
    """The same, with bounds that follow from the width."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.cv1(self.stem(x).relu())).relu()
        half = y.shape[1] // 2
        a, b = y[:, :half], y.narrow(1, half, half)
        return self.o(self.cv2(torch.cat([a, y[:, half:], b + self.m(b)], 1)).relu().mean((2, 3)))


@pytest.mark.parametrize("network", [Split, SplitBySlices])
def test_parts_that_stay_equally_wide_are_ranked_apart_and_all_that_dies_leaves(network):
    torch.manual_seed(0)
    model = network()
    groups = {group.name: group for group in unit_groups(model, X, prunable_weights(model), scope="group")}
    assert {name: group.size for name, group in groups.items()} == {"stem": 8, "cv1": 16, "cv1:2": 16, "cv2": 16, "m.0": 16}
    assert [slot.parameter for slot in groups["cv1"].filters] == ["cv1.weight"]
    assert [slot.parameter for slot in groups["cv1:2"].filters] == ["cv1.weight", "m.2.weight"]
    assert groups["cv1"].filters[0].positions[:2] == ((0,), (1,))
    assert groups["cv1:2"].filters[0].positions[:2] == ((16,), (17,))
    net = tdc.TargetedDropout(model, granularity="unit", gamma=0.5, alpha=1.0, scope="group", example_inputs=X)
    assert int((net.method.keep["cv1.weight"] == 0).sum()) == 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruned(model, scope="group")
    shrunk = tdc.shrink(model, X)
    assert all(item.dead_kept == 0 for item in shrunk.report.layers)
    assert (shrunk.model.cv1.out_channels, shrunk.model.m[2].out_channels, shrunk.model.cv2.in_channels) == (16, 8, 24)
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


class SplitByNumbers(Split):
    """As YOLO's C2f.forward_split: the halves are as wide as numbers say, which shrinking cannot change."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.norm(self.cv1(self.stem(x).relu())).relu().split((16, 16), 1)
        return self.o(self.cv2(torch.cat([a, b, b + self.m(b)], 1)).relu().mean((2, 3)))


class SlicedByNumbers(Split):
    """The same with slices."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.cv1(self.stem(x).relu())).relu()
        b = y[:, 16:]
        return self.o(self.cv2(torch.cat([y[:, :16], b, b + self.m(b)], 1)).relu().mean((2, 3)))


class Quarter(nn.Module):
    """As FasterNet (Chen et al., 2023): a convolution of the first quarter of a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.part = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.out, self.head = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        quarter = x.shape[1] // 4
        return self.head(x + self.out(torch.cat([self.part(x[:, :quarter]), x[:, quarter:]], 1)))


@pytest.mark.parametrize(("align", "left"), [(1, 12), (8, 16)])
def test_a_quarter_of_a_stream_stays_a_quarter(align, left):
    torch.manual_seed(0)
    model = Quarter()
    groups = unit_groups(model, X, prunable_weights(model), scope="group")
    assert {group.name: group.size for group in groups} == {"stem": 4, "stem:2": 4, "stem:3": 4, "stem:4": 4, "part": 4}
    with torch.no_grad():
        for layer in (model.stem, model.part, model.out):
            for index in (0, 5, 6, 10, 15):
                if index < len(layer.weight):
                    layer.weight[index], layer.bias[index] = 0, 0
    shrunk = tdc.shrink(model, X, align=align)
    assert (shrunk.model.stem.out_channels, shrunk.model.part.in_channels) == (left, left // 4)
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


@pytest.mark.parametrize(("network", "operator"), [(SplitByNumbers, "split_with_sizes"), (SlicedByNumbers, "slice")])
@pytest.mark.parametrize("scope", ["layer", "group"])
def test_halves_whose_widths_are_numbers_are_left_whole(scope, network, operator):
    """A unit of one half alone is no trial: the halves have to stay equally wide, so that none would leave."""
    torch.manual_seed(0)
    model = network()
    with pytest.warns(UserWarning, match=rf"2 layers left whole, .*: cv1 \({operator} in .* as a number\), m\.2 \({operator} in"):
        pruned(model, scope=scope)
    assert [dead(model, f"{name}.weight") for name in ("stem", "cv1", "m.0", "m.2", "cv2")] == [4, 0, 8, 0, 8]
    shrunk = tdc.shrink(model, X)
    assert all(item.dead_kept == 0 for item in shrunk.report.layers)


class Conv1D(nn.Module):
    """As HuggingFace's: every layer of GPT-2 fails in the same line."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf) * 0.2), nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view((*x.size()[:-1], self.nf))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.proj, self.fc, self.back = Conv1D(24, 8), Conv1D(8, 8), Conv1D(32, 8), Conv1D(8, 32)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.attn(self.norm(x)).split(8, 2)
        q, k, v = (part.view(part.shape[0], part.shape[1], -1, 4).transpose(1, 2) for part in parts)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape[0], x.shape[1], -1)
        x = x + self.proj(y)
        return x + self.back(self.fc(x).relu())


@pytest.mark.parametrize("scope", ["layer", "group"])
def test_a_layer_is_not_blamed_for_the_numbers_of_another_of_its_class(scope):
    """GPT-2 splits queries, keys and values by a number; its hidden layers can lose units all the same."""
    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block(), nn.LayerNorm(8), nn.Linear(8, 3))
    x = torch.randn(2, 5, 8)
    with pytest.warns(UserWarning, match=r"0\.attn .* size written as a number"):
        pruned(model, x, scope=scope)
    shrunk = tdc.shrink(model, x)
    assert [block.fc.weight.shape for block in shrunk.model[:2]] == [(8, 16), (8, 16)]
    assert [block.attn.weight.shape for block in shrunk.model[:2]] == [(8, 24), (8, 24)]
    assert all(item.dead_kept == 0 for item in shrunk.report.layers)
