"""What a network returns beside tensors, numbers made of widths, masks in transformers, and units that look alive, or dead."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import tdcompress as tdc
from tdcompress.errors import ModelError
from tdcompress.shrinking.groups import unit_groups
from tdcompress.sparsity.units import prunable_weights


def zero(layer: nn.Module, units: list[int], bias: float = 0.0) -> None:
    with torch.no_grad():
        layer.weight[units] = 0
        if layer.bias is not None:
            layer.bias[units] = bias


def certified(shrunk) -> None:
    assert shrunk.report.max_output > 0
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


def reasons(shrunk) -> dict[str, str]:
    return {item.name: "; ".join(reason for reason, _ in item.reasons) for item in shrunk.report.layers if item.reasons}


class Widths(nn.Module):
    """Layer a's width, or a function of it, as a number."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b, self.o = nn.Linear(4, 16), nn.Linear(16, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor):
        y = self.a(x).relu()
        z = self.o(self.b(y).relu())
        match self.kind:
            case "integer":
                return z, y.shape[1]
            case "root":
                return {"y": z, "scale": float(y.shape[1]) ** 0.5}
            case "flag":
                return z, y.shape[1] > 12
            case "fill":
                return z + x.new_full((3,), y.shape[1])
            case "range":
                return z + torch.arange(y.shape[1], device=x.device).sum()
            case _:
                return z + torch.zeros(x.shape[0], y.shape[1]).cos().sum(1, keepdim=True)


@pytest.mark.parametrize("kind", ["integer", "root", "flag", "fill", "range", "zeros"])
def test_a_width_that_serves_as_a_number_keeps_its_layer(kind):
    model = Widths(kind)
    zero(model.a, [0, 1, 2, 3, 4, 5])
    zero(model.b, [7])
    x = torch.randn(2, 4)
    shrunk = tdc.shrink(model, x)
    certified(shrunk)
    assert shrunk.model.a.out_features == 16
    if kind in ("integer", "fill", "range", "zeros"):
        assert shrunk.model.b.out_features == 8
        assert reasons(shrunk)["a"].endswith("a width as a number")
    else:
        assert reasons(shrunk)["b"] == "the network returns a number that follows from a width"
    if kind == "root":
        assert shrunk.model(x)["scale"] == 4.0
    elif kind in ("integer", "flag"):
        assert shrunk.model(x)[1] == model(x)[1]


@pytest.mark.filterwarnings("ignore:.*left whole:UserWarning")  # what LayerNorm reads
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("scope", ["layer", "group"])
def test_transformer_encoders_with_a_padding_mask_lose_heads_and_hidden_units(nested, scope):
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 4, 12, batch_first=True, dropout=0.0)
            self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested), nn.Linear(8, 3)

        def forward(self, x: Tensor, padding: Tensor) -> Tensor:
            return self.head(self.encoder(x, src_key_padding_mask=padding)[:, 0])

    model, x = Masked().eval(), (torch.randn(2, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2]))
    certified(tdc.shrink(model, x))
    groups = unit_groups(model, x, prunable_weights(model), scope=scope)
    offered = {slot.parameter for group in groups for slot in group.filters}
    assert "encoder.layers.0.linear1.weight" in offered
    assert ("encoder.layers.0.self_attn.in_proj_weight" in offered) == (scope == "group")
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=x, scope=scope)
    shrunk = tdc.shrink(model, x)
    certified(shrunk)
    first = shrunk.model.encoder.layers[0]
    assert first.linear1.out_features == 6
    if scope == "group":
        assert first.self_attn.num_heads == 2
    with torch.no_grad():  # in the mode in which nn.TransformerEncoder would choose its fused path
        torch.testing.assert_close(shrunk.model(*x), model(*x), rtol=1e-4, atol=1e-5)


def test_a_mask_of_torch_prune_has_to_be_made_permanent_first():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    torch_prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    model(torch.zeros(1, 4))
    with pytest.raises(ModelError, match=r"0 is masked by torch.nn.utils.prune.*torch.nn.utils.prune.remove"):
        tdc.shrink(model, torch.zeros(1, 4))
    torch_prune.remove(model[0], "weight")
    certified(tdc.shrink(model, torch.randn(1, 4)))


def test_a_network_in_its_wrapper_is_shrunk_as_the_plain_one():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    net = tdc.TargetedDropout(model, granularity="unit", gamma=0.5, example_inputs=torch.randn(2, 4))
    tdc.prune(net, granularity="unit", fraction=0.5, example_inputs=torch.randn(2, 4))
    shrunk = tdc.shrink(net, torch.randn(2, 4))
    assert type(shrunk.model) is nn.Sequential
    assert shrunk.model[0].out_features == 3
    assert tdc.narrow(net, shrunk.kept)[0].out_features == 3


class ZeroResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(5, 6, 1)
        self.n, self.o = nn.BatchNorm2d(6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.o((h + self.n(self.c(self.b(h.relu()).relu()))).mean((2, 3)))


def test_what_a_batch_norm_of_weight_0_is_given_needs_no_inputs(settle):
    model = settle(ZeroResidual())
    with torch.no_grad():
        model.n.weight.zero_()
    shrunk = tdc.shrink(model, torch.randn(2, 3, 5, 5))
    certified(shrunk)
    assert (shrunk.model.b.out_channels, shrunk.model.c.in_channels, shrunk.model.c.out_channels) == (1, 1, 6)
    assert {item.name: item.dead_kept for item in shrunk.report.layers}["c"] == 6


def test_what_else_reads_the_layer_before_a_batch_norm_of_weight_0_still_needs_it(settle):
    class Twice(ZeroResidual):
        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            y = self.c(self.b(h.relu()).relu())
            return self.o((h + self.n(y) + y.sigmoid()).mean((2, 3)))

    model = settle(Twice())
    with torch.no_grad():
        model.n.weight.zero_()
    shrunk = tdc.shrink(model, torch.randn(2, 3, 5, 5))
    certified(shrunk)
    assert shrunk.model.b.out_channels == 5


def test_the_answers_of_a_head_that_only_training_has_are_not_offered():
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
            self.aux = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
            self.unprunable = ("head",)

        def forward(self, x: Tensor):
            y = self.a(x).relu()
            return (self.head(y), self.aux(y)) if self.training else self.head(y)

    model, x = Auxiliary(), torch.randn(2, 4)
    for scope in ("layer", "group"):
        assert [group.name for group in unit_groups(model, x, prunable_weights(model), scope=scope)] == ["a", "aux.0"]


def test_grouped_transposed_convolutions_take_part_in_streams():
    model = nn.Sequential(
        nn.Conv1d(3, 16, 1), nn.ReLU(), nn.ConvTranspose1d(16, 24, 2, groups=8), nn.ReLU(), nn.Conv1d(24, 12, 1, groups=4),
        nn.ReLU(), nn.Conv1d(12, 2, 1),
    )  # fmt: skip
    x, kept = torch.randn(2, 3, 7), {}
    for scope in ("layer", "group"):
        pruned = nn.Sequential(*model)
        pruned.load_state_dict(model.state_dict())
        groups = unit_groups(pruned, x, prunable_weights(pruned), scope=scope)
        if scope == "group":
            ((_, transposed, last),) = [group.filters for group in groups]
            assert (transposed.axis, transposed.positions) == (0, tuple(tuple(range(4 * u, 4 * u + 4)) for u in range(4)))
            assert last.positions == tuple(tuple(range(3 * u, 3 * u + 3)) for u in range(4))
        tdc.prune(pruned, granularity="unit", fraction=0.5, example_inputs=x, scope=scope)
        shrunk = tdc.shrink(pruned, x)
        certified(shrunk)
        kept[scope] = shrunk.report.parameters_after
    assert kept["group"] <= kept["layer"]


def test_a_constant_that_an_operator_makes_vary_is_told():
    class Varied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.c, self.b, self.o = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 1)
            self.pool = nn.AvgPool2d(3, padding=1, stride=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.pool(self.a(x))) + self.o(self.c(x) * (x[:, :1] > 0).float())

    model = Varied()
    zero(model.a, [1], bias=0.5)
    zero(model.c, [2], bias=0.5)
    found = reasons(tdc.shrink(model, torch.randn(2, 3, 6, 6)))
    assert found["a"].startswith("avg_pool2d in pool (")
    assert found["a"].endswith("makes its constant vary; b reads it")
    assert found["c"].startswith("mul in ")


@pytest.mark.parametrize("align", [1.5, 0, True, "8"])
def test_align_is_a_whole_number(align):
    model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(2, 4)
    with pytest.raises(ValueError, match=r"align = 0: a whole number, at least 1|align has to be a whole number, and is "):
        tdc.shrink(model, x, align=align)
    with pytest.raises(ValueError, match=r"align = 0: a whole number, at least 1|align has to be a whole number, and is "):
        tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=x, align=align)


def test_a_network_of_its_last_layer_alone_says_so():
    with pytest.raises(ModelError, match="no layer to prune beside its only layer, which gives the result"):
        prunable_weights(nn.Linear(4, 2))


def test_an_rms_norm_keeps_its_stream_and_says_why():
    model = nn.Sequential(nn.Linear(4, 6), nn.RMSNorm(6), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    zero(model[0], [1])
    zero(model[2], [0])
    shrunk = tdc.shrink(model, torch.randn(3, 4))
    certified(shrunk)
    assert (shrunk.model[0].out_features, shrunk.model[2].out_features) == (6, 4)
    assert reasons(shrunk)["0"].endswith("normalises all channels together")


def test_projections_of_their_own_are_told_apart_in_the_report():
    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.o = nn.MultiheadAttention(8, 4, kdim=6, vdim=5, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return self.o(self.attention(x, key, value, need_weights=False)[0])

    shrunk = tdc.shrink(Cross(), (torch.randn(2, 5, 8), torch.randn(2, 7, 6), torch.randn(2, 7, 5)))
    certified(shrunk)
    names = [item.name for item in shrunk.report.layers]
    assert len(set(names)) == len(names) == 5
    assert names[0] == "attention.q_proj_weight"


class Gated(nn.Module):
    """A gate for each pixel, of all channels: its layers are used, though it has a channel of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.gate, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 1, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.out(y * self.gate(self.b(y).relu()).sigmoid())


class Padded(nn.Module):
    """A shortcut that fills its channels up with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(nn.functional.pad(self.a(x), (0, 0, 0, 0, 1, 1)))


@pytest.mark.parametrize("network", [Gated, Padded])
def test_what_a_gate_or_a_padding_of_channels_reads_is_not_called_dead(network):
    report = tdc.shrink(network(), torch.randn(2, 3, 4, 4)).report
    assert [layer.dead_kept for layer in report.layers] == [0] * len(report.layers)
