"""Heads of attention as practitioners write it: rotated by angles, normalised each by itself, and with grouped keys."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tdcompress as tdc
from tdcompress.errors import ModelError
from tdcompress.shrinking.groups import find_units
from tdcompress.sparsity.units import prunable_weights

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
WIDTH = 4  # of a head
Change = Callable[[Tensor], Tensor]


def rotated(x: Tensor) -> Tensor:
    """Rotary position embeddings (Su et al., 2021) of (B, heads, tokens, d)."""
    angles = torch.outer(torch.arange(x.shape[-2], dtype=x.dtype), 10.0 ** -torch.arange(0, WIDTH // 2, dtype=x.dtype))
    angles = torch.cat((angles, angles), -1)
    first, second = x[..., : WIDTH // 2], x[..., WIDTH // 2 :]
    return x * angles.cos() + torch.cat((-second, first), -1) * angles.sin()


class Rotary(nn.Module):
    """The same by a table of more tokens, kept as buffers, and by the halves of a chunk."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(9.0), 10.0 ** -torch.arange(0, WIDTH // 2))
        angles = torch.cat((angles, angles), -1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * self.cos[: x.shape[-2]] + torch.cat((-second, first), -1) * self.sin[: x.shape[-2]]


class Scaled(nn.Module):
    """RMSNorm as forward code writes it, with one scale for all heads."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH, generator=torch.Generator().manual_seed(0)) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


class Attention(nn.Module):
    """Attention whose number of heads follows from the weights.

    Args:
        change: of queries and of keys, (B, heads, tokens, d) each.
        spread: of keys and of values, to as many heads as queries have.
        groups: heads of keys and values; queries have four.
        options: of scaled_dot_product_attention.
    """

    def __init__(self, change: Change | None = None, spread: Change | None = None, groups: int = 4, **options: bool) -> None:
        super().__init__()
        self.change, self.spread, self.options = change or nn.Identity(), spread or nn.Identity(), options
        self.q, self.k, self.v = (nn.Linear(8, heads * WIDTH) for heads in (4, groups, groups))
        self.out = nn.Linear(4 * WIDTH, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, WIDTH)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k, v = self.change(q), self.spread(self.change(k)), self.spread(v)
        return self.out(F.scaled_dot_product_attention(q, k, v, **self.options).transpose(1, 2).flatten(2))


def shared(x: Tensor) -> Tensor:
    """As HuggingFace's repeat_kv."""
    return x[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2)


ATTENTION = {
    "rotated": lambda: Attention(rotated),
    "rotated by a table": lambda: Attention(Rotary()),
    "normalised and scaled": lambda: Attention(Scaled()),
    "normalised, scaled and rotated, keys for two heads": lambda: Attention(
        nn.Sequential(Scaled(), Rotary()), lambda x: x.repeat_interleave(2, 1), groups=2
    ),
    "LayerNorm of each head": lambda: Attention(nn.LayerNorm(WIDTH)),
    "RMSNorm of each head": lambda: Attention(nn.RMSNorm(WIDTH)),
    "softmax of each head": lambda: Attention(nn.Softmax(-1)),
    "mean square of each head": lambda: Attention(lambda x: x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()),
    "norm of each head": lambda: Attention(lambda x: F.normalize(x, dim=-1)),
    "keys for two heads, expanded": lambda: Attention(spread=shared, groups=2),
    "keys for two heads, repeated": lambda: Attention(spread=lambda x: x.repeat_interleave(2, 1), groups=2),
    "keys for two heads, by torch": lambda: Attention(groups=2, enable_gqa=True),
    "rotated keys for two heads": lambda: Attention(rotated, lambda x: x.repeat_interleave(2, 1), groups=2),
}


@pytest.mark.parametrize("kind", ATTENTION)
def test_half_of_the_heads_leave(kind):
    torch.manual_seed(0)
    model = ATTENTION[kind]()
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=X, scope="group")
    shrunk = tdc.shrink(model, X)
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output
    assert sum(layer.dead_kept for layer in shrunk.report.layers) == 0
    assert (shrunk.model.q.out_features, shrunk.model.out.in_features) == (8, 8)
    assert shrunk.model.k.out_features == shrunk.model.v.out_features == model.k.out_features // 2


def test_a_table_that_heads_share_is_as_wide_as_the_widest_of_them():
    class Columns(nn.Module):
        """Four heads of what they have left, each channel with a scale of the table."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Linear(8, 4 * WIDTH), nn.Linear(4 * WIDTH, 2)
            self.scale = nn.Parameter(torch.rand(WIDTH) + 0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.out((self.a(x).unflatten(-1, (4, -1)) * self.scale).flatten(-2))

    torch.manual_seed(0)
    model = Columns()
    with torch.no_grad():
        for part in (model.a.weight, model.a.bias):
            part.view(4, WIDTH, -1)[:, 1] = 0  # a channel of each head
            part.view(4, WIDTH, -1)[:3, 2] = 0  # one that the last head still has
    shrunk = tdc.shrink(model, X)
    assert (shrunk.model.a.out_features, shrunk.model.out.in_features) == (12, 12)
    assert torch.equal(shrunk.model.scale, model.scale[[0, 2, 3]])


def test_values_are_left_whole_where_their_heads_stay():
    class Normalised(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / x.square().mean((1, 3), keepdim=True).sqrt()  # over the heads too

    model = Attention(Normalised())
    units = find_units(model, X, prunable_weights(model), scope="group", include=["q"])
    assert [group.name for group in units.groups] == ["q"]
    assert {name: reason.partition(") ")[2] for name, reason in units.fixed.items()} == dict.fromkeys(
        ("k", "v"), "reduces over channels"
    )


class Picked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.out(torch.stack([y[:, 3], y[:, 0], y[:, 2], y[:, 1]], 1).relu())


def test_channels_that_are_picked_by_number_are_not_offered():
    model = Picked()
    assert find_units(model, torch.randn(2, 3, 4, 4), prunable_weights(model), include=["a"]).groups[0].name == "a"
    with pytest.raises(ModelError, match="takes an index by its number"):
        find_units(model, torch.randn(2, 3, 4, 4), prunable_weights(model))


class Placed(nn.Module):
    """Tokens with a place of a longer table; all channels of a token are normalised together."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 9, 6))
        self.a, self.norm, self.b, self.out = nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.b(self.norm(self.a(x) + self.table[:, : x.shape[1]])).relu())


def test_tokens_are_no_heads():
    units = find_units(Placed(), X, prunable_weights(Placed()))
    assert [group.name for group in units.groups] == ["b"]
    assert "normalises all channels together" in units.fixed["a"]
