"""Which units go together: per layer with the BatchNorm that sees them alone, per stream with all its writers."""

import pytest
import torch
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.errors import ModelError
from tdcompress.shrinking.groups import unit_groups
from tdcompress.sparsity.units import Slot, prunable_weights


class PreActivation(nn.Module):
    """A pre-activation block with a projection of the activated input, then concatenation with a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.bn1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3, padding=1)
        self.shortcut = nn.Conv2d(4, 5, 1)
        self.branch, self.bn3 = nn.Conv2d(5, 2, 1), nn.BatchNorm2d(7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.stem(x)).relu()
        x = self.conv2(self.bn2(self.conv1(x)).relu()) + self.shortcut(x)
        x = self.bn3(torch.cat([x, self.branch(x)], 1)).relu()
        return self.head(x.mean((2, 3)))


X = torch.zeros(2, 3, 8, 8)


class Residual(nn.Module):
    """A stem and two branches that write into one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)
        self.inner, self.outer, self.last = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.outer(self.inner(x).relu())
        return self.head((x + self.last(x)).relu().mean((2, 3)))


def as_dict(groups):
    return {group.name: group for group in groups}


def test_layer_scope_ties_biases_and_the_batch_norm_that_sees_a_layer_alone():
    model = PreActivation()
    groups = as_dict(unit_groups(model, X, prunable_weights(model)))
    assert list(groups) == ["stem", "conv1", "conv2", "shortcut", "branch"]
    assert [slot.parameter for slot in groups["stem"].tied] == ["stem.bias", "bn1.weight", "bn1.bias"]
    assert [slot.parameter for slot in groups["conv1"].tied] == ["bn2.weight", "bn2.bias"]
    assert [slot.parameter for slot in groups["conv2"].tied] == ["conv2.bias"]  # bn3 sees the sum
    # The branch is alone at the last two channels of bn3.
    assert groups["branch"].tied[1] == Slot(parameter="bn3.weight", positions=((5,), (6,)))
    assert groups["conv1"].size == 6
    assert groups["conv1"].filters == (Slot(parameter="conv1.weight"),)


def test_group_scope_joins_the_writers_of_a_stream_and_ties_its_batch_norm():
    model = PreActivation()
    groups = as_dict(unit_groups(model, X, prunable_weights(model), scope="group"))
    assert list(groups) == ["stem", "conv1", "conv2", "branch"]
    stream = groups["conv2"]
    assert stream.size == 5
    assert [slot.parameter for slot in stream.filters] == ["conv2.weight", "shortcut.weight"]
    tied = {slot.parameter: slot for slot in stream.tied}
    assert set(tied) == {"conv2.bias", "shortcut.bias", "bn3.weight", "bn3.bias"}
    assert tied["bn3.weight"].positions == ((0,), (1,), (2,), (3,), (4,))


def test_a_stream_with_an_unprunable_writer_is_not_claimed():
    model = PreActivation()
    weights = prunable_weights(model, exclude=("shortcut",))
    groups = as_dict(unit_groups(model, X, weights, scope="group"))
    assert [slot.parameter for slot in groups["conv2"].filters] == ["conv2.weight"]
    assert [slot.parameter for slot in groups["conv2"].tied] == ["conv2.bias"]


def test_filter_units_tie_nothing():
    model = PreActivation()
    for scope in ("layer", "group"):
        assert all(group.tied == () for group in unit_groups(model, X, prunable_weights(model), scope=scope, unit="filter"))


def test_depthwise_and_grouped_convolutions_in_group_scope():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 1, groups=4),
        nn.Flatten(),
        nn.Linear(432, 2),
    )
    groups = unit_groups(model, X, prunable_weights(model), scope="group")
    # Two inputs and three outputs of each of the four groups of the last convolution are one unit.
    assert [(group.name, group.size) for group in groups] == [("0", 4)]
    filters = {slot.parameter: slot.positions for slot in groups[0].filters}
    assert filters["1.weight"] == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert filters["3.weight"] == ((0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11))


def test_transposed_convolution_counts_units_along_axis_1():
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(405, 2))
    group = unit_groups(model, X, prunable_weights(model))[0]
    assert (group.size, group.filters[0].axis) == (5, 1)
    assert [slot.parameter for slot in group.tied] == ["0.bias", "1.weight", "1.bias"]


def test_a_weight_that_forward_never_reads_is_refused():
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.used(x))

    model = Spare()
    with pytest.raises(ModelError, match=r"spare.weight is not used"):
        unit_groups(model, torch.zeros(2, 3), prunable_weights(model))


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_a_weight_that_is_computed_is_refused_and_can_be_excluded(granularity):
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    x = torch.randn(2, 3)
    with pytest.raises(ModelError, match=r"the weight of 0 is computed .*, or leave the layer out: exclude = \['0'\]"):
        tdc.prune(model, granularity=granularity, fraction=0.5, example_inputs=x)
    masks = tdc.prune(model, granularity=granularity, fraction=0.5, example_inputs=x, exclude=["0"])
    assert "2.weight" in masks
    assert not any(name.startswith("0.") for name in masks)
    shrunk = tdc.shrink(model, x)
    assert shrunk.report.layers[0].units_after == (2 if granularity == "unit" else 4)


def test_the_heads_of_multi_head_attention_are_units_in_group_scope():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 4, 12, batch_first=True, dropout=0.0)
    x = torch.randn(2, 5, 8)
    groups = as_dict(unit_groups(model, x, prunable_weights(model), scope="group"))
    heads = groups["self_attn"]
    assert (heads.size, groups["linear1"].size) == (4, 12)
    assert heads.filters == (
        Slot(
            parameter="self_attn.in_proj_weight", positions=tuple((a, a + 1, a + 8, a + 9, a + 16, a + 17) for a in (0, 2, 4, 6))
        ),
    )
    assert [slot.parameter for slot in heads.tied] == ["self_attn.in_proj_bias"]
    assert "self_attn" not in as_dict(unit_groups(model, x, prunable_weights(model), scope="layer"))
    assert "self_attn" not in as_dict(unit_groups(model, x, prunable_weights(model, ["self_attn"]), scope="group"))
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=x, scope="group", exclude=["self_attn.out_proj"])
    assert model.self_attn.in_proj_weight.all()
    with pytest.warns(
        UserWarning, match=r"1 layer left whole, .*: self_attn\.out_proj \(norm1 .*normalises all channels together"
    ):
        tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=x, scope="group")
    shrunk = tdc.shrink(model, x)
    assert shrunk.model.self_attn.num_heads == 2
    assert shrunk.model.linear1.out_features == 6
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


class LiteralHeads(nn.Module):
    """Attention whose number of heads follows from the weights, or is a number."""

    def __init__(self, literal: bool) -> None:
        super().__init__()
        self.stem, self.qkv, self.out, self.head = nn.Linear(6, 8), nn.Linear(8, 24), nn.Linear(8, 7), nn.Linear(7, 2)
        self.heads = 2 if literal else -1

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.stem(x).relu()).unflatten(-1, (3, self.heads, 4)).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.head(self.out(mixed.transpose(1, 2).flatten(2)).relu())


def test_units_that_a_literal_number_would_keep_are_not_offered_in_group_scope():
    x = torch.randn(2, 5, 6)
    sizes = {}
    for literal in (True, False):
        groups = unit_groups(model := LiteralHeads(literal), x, prunable_weights(model), scope="group")
        sizes[literal] = {group.name: group.size for group in groups}
    assert sizes == {True: {"stem": 8, "out": 7}, False: {"stem": 8, "qkv": 2, "out": 7}}
    model = LiteralHeads(True)
    with pytest.raises(
        ModelError, match=r"LiteralHeads has no unit that could leave: qkv: unflatten in .* has a size written as a number"
    ):
        unit_groups(model, x, prunable_weights(model, ["stem", "out"]), scope="group")


def test_unknown_scope_is_refused():
    with pytest.raises(ModelError, match="scope"):
        unit_groups(PreActivation(), X, (), scope="all")  # type: ignore[arg-type]


def test_the_units_of_a_grouped_transposed_convolution_are_its_groups():
    model = nn.Sequential(nn.ConvTranspose2d(6, 12, 2, groups=3), nn.BatchNorm2d(12), nn.Flatten(), nn.Linear(972, 2))
    group = unit_groups(model, torch.zeros(2, 6, 8, 8), prunable_weights(model))[0]
    assert (group.size, group.filters) == (3, (Slot(parameter="0.weight", groups=3, positions=((0, 1), (2, 3), (4, 5))),))
    fours = ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11))
    assert group.tied == tuple(Slot(parameter=name, positions=fours) for name in ("0.bias", "1.weight", "1.bias"))
    depthwise = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ConvTranspose2d(3, 3, 2, groups=3), nn.Flatten(), nn.Linear(243, 2))
    _, group = unit_groups(depthwise, X, prunable_weights(depthwise))
    assert (group.size, group.filters, group.tied) == (3, (Slot(parameter="1.weight", groups=3),), (Slot(parameter="1.bias"),))
    with pytest.raises(ModelError, match="has no unit that could leave: 1: the input of 1 has a fixed size"):
        unit_groups(depthwise[1:], X, prunable_weights(depthwise[1:]))


def test_a_network_with_grouped_transposed_convolutions_is_pruned_and_shrunk():
    torch.manual_seed(0)  # which units are weakest decides
    for scope in ("layer", "group"):
        model = nn.Sequential(
            nn.Conv2d(3, 6, 1), nn.ReLU(), nn.ConvTranspose2d(6, 12, 2, groups=3), nn.ReLU(), nn.Flatten(), nn.Linear(972, 2)
        )
        tdc.prune(model, granularity="unit", fraction=0.34, example_inputs=X, scope=scope)
        shrunk = tdc.shrink(model, X)
        assert (shrunk.model[2].groups, shrunk.model[2].out_channels) == (2, 8)
        assert shrunk.report.max_output > 0
        assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


@pytest.mark.parametrize(
    ("exclude", "widths"),
    [
        ((), {"stem": 4, "inner": 4, "outer": 4, "last": 4}),
        (("stem",), {"stem": 8, "inner": 4, "outer": 8, "last": 8}),
        (("stem", "outer", "last"), {"stem": 8, "inner": 4, "outer": 8, "last": 8}),
    ],
)
def test_what_an_excluded_layer_writes_into_stays_wide(exclude, widths):
    torch.manual_seed(0)
    model, x = Residual(), torch.randn(2, 3, 8, 8)
    stem = model.stem.weight.detach().clone()
    tdc.prune(model, granularity="unit", scope="group", fraction=0.5, example_inputs=x, exclude=exclude)
    assert torch.equal(stem, model.stem.weight) == bool(exclude)
    shrunk = tdc.shrink(model, x)
    assert {name: getattr(shrunk.model, name).out_channels for name in widths} == widths
    stayed = {layer.name: (layer.dead_kept, layer.reasons) for layer in shrunk.report.layers if layer.dead_kept}
    pruned_beside = {"outer", "last"} - set(exclude) if exclude else set()
    assert set(stayed) == pruned_beside
    for dead, ((reason, count),) in stayed.values():
        assert (dead, count) == (4, 4)
        assert reason.startswith("stem writes into the same channel")
