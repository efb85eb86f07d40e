"""Widths rounded up: by hand on small networks, and on random ones."""

import json

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.shrinking.exact import shrink
from tdcompress.shrinking.rebuild import narrow


def kill(layer: nn.Module, units: list[int]) -> None:
    with torch.no_grad():
        layer.weight[units] = 0
        if layer.bias is not None:
            layer.bias[units] = 0


def certified(shrunk) -> bool:
    return shrunk.report.max_output > 0 and shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


def entry(shrunk, name):
    return next(item for item in shrunk.report.layers if item.name == name)


def rows(shrunk, name):
    return shrunk.kept["tensors"][name]["keep"]["0"]


def test_the_lowest_dead_channels_come_back_until_the_width_fits():
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3))
    kill(model[0], [1, 3, 5, 6, 7, 8, 11])
    x = torch.randn(2, 5)
    assert rows(shrink(model, x), "0.weight") == [0, 2, 4, 9, 10]
    shrunk = shrink(model, x, align=4)
    assert rows(shrunk, "0.weight") == [0, 1, 2, 3, 4, 5, 9, 10]
    assert certified(shrunk)
    assert entry(shrunk, "0").reasons == (("kept to align to 4", 3),)
    assert (entry(shrunk, "0").units_after, entry(shrunk, "0").dead_kept) == (8, 3)
    assert shrunk.report.parameters_after == 8 * 5 + 8 + 3 * 8 + 3
    assert not shrunk.model[0].weight[[1, 3, 5]].any()


def test_a_width_that_would_grow_beyond_the_full_one_stays_full_and_results_are_untouched():
    model = nn.Sequential(nn.Linear(5, 10), nn.ReLU(), nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, 3))
    kill(model[0], [0])
    kill(model[2], [0, 1, 2, 3])
    shrunk = shrink(model, torch.randn(2, 5), align=4)
    assert [layer.out_features for layer in shrunk.model[::2]] == [10, 4, 3]
    assert "0.weight" not in shrunk.kept["tensors"] or "0" not in shrunk.kept["tensors"]["0.weight"]["keep"]


def test_align_below_one_is_refused():
    with pytest.raises(ValueError, match="align = 0"):
        shrink(nn.Linear(2, 2), torch.randn(1, 2), align=0)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.second(self.first(x).relu())
        return self.head(x.relu().mean((2, 3)))


def test_a_stream_is_rounded_once_for_all_its_writers_and_readers():
    model = Residual()
    kill(model.stem, [2, 3, 4])
    kill(model.second, [2, 3, 4, 5])
    kill(model.first, [0, 1])
    x = torch.randn(2, 3, 6, 6)
    one, four = shrink(model, x), shrink(model, x, align=4)
    assert (one.model.stem.out_channels, one.model.first.out_channels) == (5, 6)
    assert (four.model.stem.out_channels, four.model.second.out_channels, four.model.head.in_features) == (8, 8, 8)
    assert four.model.first.out_channels == 8
    kill(model.stem, [5])
    four = shrink(model, x, align=4)  # 2, 3, 4, 5 are dead in both writers
    assert (four.model.stem.out_channels, four.model.second.out_channels, four.model.head.in_features) == (4, 4, 4)
    assert certified(four)
    assert entry(four, "stem").reasons == ()


def test_a_constant_that_stays_is_not_folded():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Sigmoid(), nn.Conv2d(6, 2, 3))
    kill(model[0], [0, 4, 5])
    shrunk = shrink(model, torch.randn(2, 3, 8, 8), align=2)  # 3 live; 0 comes back; 4 and 5 are folded
    assert rows(shrunk, "0.weight") == [0, 1, 2, 3]
    assert shrunk.report.folded_biases == ("2.bias",)
    assert certified(shrunk)


def test_the_groups_of_a_convolution_stay_equally_wide():
    model = nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 1, groups=8), nn.ReLU(), nn.Conv2d(32, 2, 1))
    dead = [4 * g + i for g in (0, 3, 5) for i in range(4)]  # 5 groups of 4 stay
    kill(model[0], dead)
    kill(model[2], dead)
    x = torch.randn(2, 3, 4, 4)
    assert (shrink(model, x).model[2].groups, shrink(model, x).model[2].out_channels) == (5, 20)
    shrunk = shrink(model, x, align=8)
    assert (shrunk.model[2].groups, shrunk.model[2].in_channels, shrunk.model[2].out_channels) == (6, 24, 24)
    assert rows(shrunk, "2.weight") == [*range(12), *range(16, 20), *range(24, 32)]  # group 0 is back
    assert certified(shrunk)


def test_unequal_groups_are_rounded_with_the_fewest_channels():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 64, 1, groups=4), nn.ReLU(), nn.Conv2d(64, 2, 1))
    kill(model[2], [16 * g + i for g in range(4) for i in range(11)])  # 4 groups of 5
    shrunk = shrink(model, torch.randn(2, 3, 4, 4), align=16)
    # One input a group: it goes as a whole or not at all, so that all 64 stay; with two, 4 groups of 8 make 32.
    assert shrunk.model[2].out_channels == 64
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 64, 1, groups=4), nn.ReLU(), nn.Conv2d(64, 2, 1))
    kill(model[2], [16 * g + i for g in range(4) for i in range(11)])
    shrunk = shrink(model, torch.randn(2, 3, 4, 4), align=16)
    assert (shrunk.model[2].groups, shrunk.model[2].out_channels) == (4, 32)
    assert rows(shrunk, "2.weight") == [16 * g + i for g in range(4) for i in (0, 1, 2, 11, 12, 13, 14, 15)]
    assert certified(shrunk)


def test_the_parts_of_a_chunk_and_the_halves_of_a_gate():
    class Gate(nn.Module):
        def __init__(self, separate: bool) -> None:
            super().__init__()
            self.a, self.b, self.c, self.separate = nn.Linear(5, 32), nn.Linear(16, 16), nn.Linear(16, 3), separate

        def forward(self, x: Tensor) -> Tensor:
            left, right = self.a(x).chunk(2, -1)
            return self.c((self.b(left) if self.separate else left) * right.sigmoid())

    for separate in (False, True):
        model = Gate(separate)
        kill(model.a, [half + i for half in (0, 16) for i in range(11)])
        shrunk = shrink(model, torch.randn(2, 5), align=8)
        assert shrunk.model.a.out_features % 8 == 0
        assert shrunk.model.a.out_features == 16 or separate
        assert certified(shrunk)


def test_a_residual_network_per_layer_gets_streams_of_whole_blocks():
    model, x = tdc.build_model("wide_resnet", classes=10, depth=16, width=2), torch.randn(2, 3, 32, 32)
    tdc.prune(model, granularity="unit", fraction=0.75, example_inputs=x, align=16)
    plain, shrunk = tdc.shrink(model, x), tdc.shrink(model, x, align=16)
    assert any(layer.units_after % 16 for layer in plain.report.layers if layer.name != "head")
    assert all(layer.units_after % 16 == 0 for layer in shrunk.report.layers if layer.name != "head")
    assert plain.report.macs_after < shrunk.report.macs_after < shrunk.report.macs_before
    assert certified(shrunk)


KINDS = ("plain", "residual", "branch", "depthwise", "grouped", "gate")


class Block(nn.Module):
    def __init__(self, kind: str, width: int, own: int) -> None:
        super().__init__()
        self.kind = kind
        self.width = width + own if kind == "branch" else own if kind == "plain" else width
        groups = {"depthwise": width, "grouped": 2 if width % 2 == 0 else 1}.get(kind, 1)
        inner = width if kind in ("depthwise", "grouped") else own
        self.a, self.norm = nn.Conv2d(width, inner, 1, groups=groups), nn.BatchNorm2d(inner)
        self.b = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.a(x)).relu()
        if self.kind == "residual":
            return x + self.b(y)
        if self.kind == "gate":
            return x * self.b(y).sigmoid()
        return torch.cat([x, y], 1) if self.kind == "branch" else y


class Network(nn.Module):
    def __init__(self, stem: int, blocks: list[tuple[str, int]]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, stem, 1)
        made, width = [], stem
        for kind, own in blocks:
            made.append(Block(kind, width, own))
            width = made[-1].width
        self.blocks, self.head = nn.Sequential(*made), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


@settings(derandomize=True, deadline=None, max_examples=4, phases=(Phase.explicit, Phase.generate))
@given(
    stem=st.integers(3, 12),
    blocks=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(3, 12)), min_size=1, max_size=4),
    dead=st.sampled_from((0.3, 0.6, 0.9)),
    seed=st.integers(0, 99),
)
def test_random_networks_keep_whole_blocks(stem, blocks, dead, seed):
    generator = torch.Generator().manual_seed(seed)
    model = Network(stem, blocks)
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
        if not name.startswith("head") and "norm" not in name and name.endswith("weight"):
            units = torch.rand(parameter.shape[0], generator=generator) < dead
            units[-1] = False
            parameter.data[units] = 0
            model.get_submodule(name.rpartition(".")[0]).bias.data = torch.zeros(parameter.shape[0])
    x = torch.randn(2, 2, 3, 3, generator=generator)
    found = {align: shrink(model, x, align=align) for align in (1, 2, 4)}
    for align, shrunk in found.items():
        assert certified(shrunk)
        for layer in shrunk.report.layers:
            assert layer.units_after % align == 0 or layer.units_after == layer.units_before
        full = dict(model.named_modules())
        for name, module in shrunk.model.named_modules():
            if isinstance(module, nn.Conv2d) and full[name].in_channels % align == 0:
                assert module.in_channels % align == 0
    assert [found[a].report.parameters_after for a in (1, 2, 4)] == sorted(s.report.parameters_after for s in found.values())
    again = narrow(model, json.loads(json.dumps(found[4].kept)))
    again.load_state_dict(found[4].model.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(x), found[4].model.eval()(x))
