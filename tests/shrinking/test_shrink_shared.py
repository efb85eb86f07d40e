"""Shrinking where layers share what they hold: attention, its weights, a buffer, a weight that another place applies."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tdcompress as tdc


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Attending(nn.Module):
    """Two blocks of attention on (B, L, 8), of which the first two of eight head channels are dead in query, key and value.

    Args:
        held: "twice", one layer under two names; or "apart", two layers that share their projections.
    """

    def __init__(self, held: str) -> None:
        super().__init__()
        self.first = nn.MultiheadAttention(8, 4, batch_first=True)
        self.second = self.first if held == "twice" else nn.MultiheadAttention(8, 4, batch_first=True)
        self.second.in_proj_weight, self.second.in_proj_bias = self.first.in_proj_weight, self.first.in_proj_bias
        self.second.out_proj.weight = self.first.out_proj.weight
        self.head = nn.Linear(8, 3)
        with torch.no_grad():
            self.first.in_proj_weight.unflatten(0, (3, 8))[:, :2] = 0
            self.first.in_proj_bias.unflatten(0, (3, 8))[:, :2] = 0

    def forward(self, x: Tensor) -> Tensor:
        for block in (self.first, self.second):
            x = x + block(x, x, x, need_weights=False)[0]
        return self.head(x)


@pytest.mark.parametrize("held", ["twice", "apart"])
def test_attention_layers_that_share_their_weights_get_narrow_together(held: str) -> None:
    model, x = Attending(held).eval(), drawn(2, 5, 8)
    shrunk = tdc.shrink(model, x)
    assert shrunk.kept["narrow_attention"] == (["first"] if held == "twice" else ["first", "second"])
    assert shrunk.model.first.in_proj_weight.shape == (18, 8)
    assert shrunk.model.second.in_proj_weight is shrunk.model.first.in_proj_weight
    assert shrunk.model.second.out_proj.weight.shape == (8, 6)
    torch.testing.assert_close(shrunk.model(x), model(x))
    again = tdc.narrow(Attending(held), shrunk.kept).eval()
    again.load_state_dict(shrunk.model.state_dict())
    assert torch.equal(again(x), shrunk.model(x))


class Scaled(nn.Module):
    """A scale of the hidden units, which is one tensor under two names of one module."""

    def __init__(self, *, trained: bool) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(5, 6), nn.Linear(6, 4)
        values = torch.arange(1.0, 7.0)
        scale = nn.Parameter(values)
        for name in ("scale", "again"):
            if trained:
                self.register_parameter(name, scale)
            else:
                self.register_buffer(name, values)
        with torch.no_grad():
            self.inner.weight[:2], self.inner.bias[:2] = 0, 0

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x).relu() * self.scale * self.again)


@pytest.mark.parametrize("trained", [True, False], ids=["parameter", "buffer"])
def test_a_tensor_under_two_names_of_one_module_is_cut_under_both(trained: bool) -> None:
    model, x = Scaled(trained=trained).eval(), drawn(3, 5)
    shrunk = tdc.shrink(model, x).model
    assert shrunk.scale.tolist() == [3.0, 4.0, 5.0, 6.0]
    assert shrunk.again is shrunk.scale
    torch.testing.assert_close(shrunk(x), model(x))


class AppliedElsewhere(nn.Module):
    """The weight of a layer without a bias that itself is not called; a constant reaches it.

    Args:
        by: "layer", another one that has the weight too; or "function".
    """

    def __init__(self, by: str) -> None:
        super().__init__()
        self.owner, self.inner = nn.Linear(6, 4, bias=False), nn.Linear(5, 6)
        if by == "layer":
            self.user = nn.Linear(6, 4, bias=False)
            self.user.weight = self.owner.weight
        with torch.no_grad():
            self.inner.weight[:2], self.inner.bias[:2], self.inner.weight[2], self.inner.bias[2] = 0, 1.5, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inner(x).relu()
        return self.user(hidden) if hasattr(self, "user") else F.linear(hidden, self.owner.weight)


@pytest.mark.parametrize("by", ["layer", "function"])
def test_a_layer_gets_no_bias_that_the_place_which_applies_its_weight_would_not_add(by: str) -> None:
    model, x = AppliedElsewhere(by).eval(), drawn(3, 5)
    shrunk = tdc.shrink(model, x)
    assert shrunk.kept["new_biases"] == []
    assert shrunk.model.inner.weight.shape == (5, 5)  # the constants 1.5 stay, and the constant 0 goes
    torch.testing.assert_close(shrunk.model(x), model(x))


def test_a_layer_under_two_names_gets_its_bias_whichever_runs_and_the_optimizer_trains_it() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.early, self.inner = nn.Linear(6, 4, bias=False), nn.Linear(5, 6)
            self.late = self.early
            with torch.no_grad():
                self.inner.weight[:2], self.inner.bias[:2] = 0, 1.5

        def forward(self, x: Tensor) -> Tensor:
            return self.late(self.inner(x).relu())

    model, x = Late().eval(), drawn(3, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    shrunk = tdc.shrink(model, x)
    assert shrunk.kept["new_biases"] == ["early.bias"]
    torch.testing.assert_close(shrunk.model(x), model(x))
    tdc.narrow_state(optimizer, model, shrunk.model, shrunk.kept)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in shrunk.model.parameters()}
