"""Inputs of other sizes than the examples': numbers that the forward code reads from a shape are no constants."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tdcompress as tdc
from tdcompress.errors import VerificationError
from tdcompress.shrinking import propagate
from tdcompress.shrinking.certificate import differs_at
from tdcompress.shrinking.elsewhere import computes_otherwise
from tdcompress.shrinking.other_sizes import other_batches, other_lengths

SIZES = {
    "area": lambda y: y * (y.shape[2] * y.shape[3]) ** 0.5,
    "height": lambda y: y / y.shape[2],
    "batch": lambda y: y / y.shape[0],
    "added": lambda y: y + 0.01 * y.shape[3],
    "power": lambda y: y ** (1 / y.shape[2]),
    "clamp": lambda y: y.clamp(max=0.02 * y.shape[2]),
    "tensor": lambda y: y * torch.tensor(float(y.shape[2])),
    "full": lambda y: y * torch.full((1, 1, 1, 1), 1.0 / y.shape[2]).to(y),
    "new_full": lambda y: y * y.new_full((1,), 1.0 / y.shape[2]),
    "padding": lambda y: F.pad(y, (1, 1, 1, 1), value=0.5 * (y.shape[2] == 8)),
    "branch": lambda y: y * 0.5 if y.shape[2] == 8 else y + 1,
    "ratio": lambda y: y * (y.shape[2] / y.shape[3]),
    "whole": lambda y: y * (y.shape[2] // 7),
    "at least": lambda y: y * max(y.shape[2], 7),
    "cosine": lambda y: y * torch.cos(torch.tensor(float(y.shape[2]))),
    "array": lambda y: y * torch.from_numpy(np.array([y.shape[2]])),
    "arrays": lambda y: y * torch.arange(float(y.shape[2])).mean(),
}
# What is cut off at the examples' size, and at half and twice of it, shows elsewhere.
CUT_OFF = {
    "above": lambda y: F.relu6(y * y.shape[2]),
    "below": lambda y: F.relu(y * y.shape[2] - 40),
    "far below": lambda y: F.threshold(y * y.shape[2], 40.0, 0.0),
    "batch": lambda y: F.relu(y * y.shape[0] - 4),
    "at least": lambda y: F.relu(y * max(y.shape[2], 7) - 40),
    "ratio": lambda y: F.relu(y * (y.shape[2] / y.shape[3]) - 2),
    "square": lambda y: y if y.shape[2] == y.shape[3] else y * 2,
    "up to": lambda y: y if y.shape[2] <= 11 else y * 2,
    "plus": lambda y: y if y.shape[2] <= 11 else y + 1,
}


class Sized(nn.Module):
    """Constants of 0.5 behind a sigmoid meet a number that follows from the size."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.f, self.o = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = SIZES[self.kind](self.b(self.a(x).relu()).sigmoid())
        return self.o(self.f(y.mean((2, 3))).relu())


def pruned(model: nn.Module, x: Tensor) -> tuple[nn.Module, nn.Module]:
    model = model.double().eval()
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=x)
    return model, tdc.shrink(model, x).model


def agree(full: nn.Module, small: nn.Module, *shape: int) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(small(x), full(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", SIZES)
def test_a_number_that_is_read_from_a_shape_is_no_constant(kind):
    torch.manual_seed(0)
    full, small = pruned(Sized(kind), torch.randn(2, 3, 8, 8, dtype=torch.float64))
    for shape in ((2, 3, 8, 8), (5, 3, 8, 8), (3, 3, 12, 12), (1, 3, 24, 10)):
        agree(full, small, *shape)
    assert (small.a.out_channels, small.f.out_features) == (4, 4)  # zeros behind a ReLU meet no such number


class Constant(nn.Module):
    """Constants of a convolution meet an operator, with no other behind the next convolution."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.between = between
        self.a, self.b, self.o = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)
        with torch.no_grad():
            self.a.weight[:4] = 0.0
            self.a.bias[:4] = torch.tensor([1.0, 1.5, 2.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.b(self.between(self.a(x))).mean((2, 3)))


@pytest.mark.parametrize("kind", CUT_OFF)
def test_a_number_that_is_read_from_a_shape_is_no_constant_where_its_effect_is_cut_off(kind):
    torch.manual_seed(0)
    full = Constant(CUT_OFF[kind]).double().eval()
    small = tdc.shrink(full, torch.randn(2, 3, 8, 8, dtype=torch.float64)).model
    for shape in ((2, 3, 8, 8), (64, 3, 8, 8), (2, 3, 3, 3), (1, 3, 10, 30), (1, 3, 40, 40)):
        agree(full, small, *shape)
    assert small.a.out_channels == (8 if kind == "plus" else 7)  # 0 times a number is 0


# Numbers that are the same, or change nothing, at half and at twice the examples' size; with how many units stay.
HIDDEN = {
    "odd": (lambda s, y: y + y.shape[2] % 2, 8),
    "small": (lambda s, y: y * min(y.shape[2], 4), 7),
    "place in a table": (lambda s, y: y * s.table[y.shape[2]], 7),
    "part of a table": (lambda s, y: F.relu6(y * s.table[y.shape[2] - 1 : y.shape[2]]), 7),
    "rows that are added": (lambda s, y: torch.cat([y, y.new_zeros(*y.shape[:2], -y.shape[2] % 4, y.shape[3])], 2), 7),
    "border": (lambda s, y: F.pad(y, (0, -y.shape[3] % 4, 0, -y.shape[2] % 4)), 7),
    "border of a pooling": (lambda s, y: F.avg_pool2d(y, 3, 1, y.shape[2] % 2), 7),
    "border of a convolution": (lambda s, y: F.conv2d(y, s.c.weight, s.c.bias, padding=y.shape[2] % 2), 7),
    "part of the map": (lambda s, y: y[:, :, y.shape[2] // 2 :], 4),
}


class Hidden(Constant):
    def __init__(self, kind: str) -> None:
        super().__init__(nn.Identity())
        self.kind, self.c = kind, nn.Conv2d(8, 8, 1)
        self.register_buffer("table", torch.zeros(64))
        self.table[9:12] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.b(HIDDEN[self.kind][0](self, self.a(x))).mean((2, 3)))


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_number_that_shows_neither_at_half_nor_at_twice_the_size_is_found(kind):
    torch.manual_seed(0)
    full = Hidden(kind).double().eval()
    small = tdc.shrink(full, torch.randn(2, 3, 8, 8, dtype=torch.float64)).model
    for height in (3, 4, 5, 7, 8, 9, 10, 11, 12, 16, 17):
        agree(full, small, 2, 3, height, height)
        agree(full, small, 3, 3, height, 8)
    assert small.a.out_channels == HIDDEN[kind][1]


def test_inputs_of_one_length_are_also_resized_one_by_one_and_by_little():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.b(self.a(x) * (x.shape[1] / y.shape[1]))

    class Narrow(Two):
        def forward(self, x: Tensor) -> Tensor:
            if not 4 <= x.shape[1] <= 6:
                raise ValueError("a length of 4 to 6")
            return self.b(self.a(x) * x.shape[1])

    torch.manual_seed(0)
    x = torch.randn(2, 5, 6)
    for model, inputs in ((Two(), (x, x)), (Narrow(), (x,))):
        with torch.no_grad():
            model.a.weight[:3], model.a.bias[:3] = 0.0, 1.0
        small = tdc.shrink(model, inputs).model
        assert small.a.out_features == 8
        torch.testing.assert_close(small(x[:, :4], *inputs[1:]), model(x[:, :4], *inputs[1:]))


def test_a_number_that_is_cut_off_but_written_stays_a_constant():
    full = Constant(lambda y: F.relu6(y * 8)).double().eval()
    small = tdc.shrink(full, torch.randn(2, 3, 8, 8, dtype=torch.float64)).model
    agree(full, small, 3, 3, 12, 10)
    assert small.a.out_channels == 4


def test_a_network_runs_at_other_sizes_only_as_often_as_something_new_shows():
    x = torch.randn(2, 3, 8, 8)

    def shapes(kind: Callable[[Tensor], Tensor]) -> list[tuple[int, ...]]:
        return [tuple(inputs[0].shape) for inputs in computes_otherwise(Constant(kind), [x])]

    assert shapes(lambda y: y * 8) == []
    assert shapes(lambda y: y * y.shape[0]) == [(3, 3, 8, 8)]
    assert shapes(lambda y: y * y.shape[2] / y.shape[3]) == [(2, 3, 4, 4)]
    assert shapes(lambda y: y / y.shape[0] * y.shape[2]) == [(3, 3, 8, 8), (2, 3, 4, 4)]
    assert shapes(lambda y: y * (y.shape[2] / y.shape[3])) == [(2, 3, 16, 8)]
    assert shapes(lambda y: y if y.shape[2] <= 11 else y + 1) == [(2, 3, 16, 16)]
    assert shapes(lambda y: y if y.shape[2] <= 11 else y + y.shape[3]) == [(2, 3, 16, 16), (2, 3, 16, 8)]
    # shapes, places and windows are no numbers that values are computed with
    assert shapes(lambda y: F.interpolate(y[:, :, : y.shape[2] // 2].reshape(y.shape[0], 8, -1, 1), size=y.shape[2:])) == []
    assert shapes(lambda y: y + torch.ones(y.shape[2:]) + y.new_full(y.shape[:1], 2.0)[0]) == []
    assert shapes(lambda y: y + torch.full(y.shape[2:], y.shape[0])) == [(3, 3, 8, 8)]
    assert shapes(lambda y: y + F.pad(F.avg_pool2d(y, y.shape[2]), (0, y.shape[3] - 1, 0, y.shape[2] - 1))) == []


def test_constants_that_forward_code_computes_for_a_size_are_told_from_its_branches():
    """As the anchors of a detector: more operators at one size than at another, none of which reads the inputs."""
    grid = {}

    def cached(y: Tensor) -> Tensor:
        if y.shape[2] not in grid:
            grid[y.shape[2]] = torch.arange(float(y.shape[2]), dtype=y.dtype).add(0.5).mean() if y.shape[2] > 8 else torch.ones(1)
        return y.relu() * grid[y.shape[2]]

    full = Constant(cached).double().eval()
    small = tdc.shrink(full, torch.randn(2, 3, 8, 8, dtype=torch.float64)).model
    for size in (4, 8, 12, 16):
        agree(full, small, 2, 3, size, size)
    assert small.a.out_channels == 7  # the zero leaves


def test_zero_times_a_size_is_zero():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.o = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x).relu() / x.shape[2] * x.shape[3]
            return self.o(self.b(y).sigmoid() / x.shape[2])

    full, small = pruned(Scaled(), torch.randn(2, 3, 8, 8, dtype=torch.float64))
    agree(full, small, 3, 3, 6, 10)
    assert (small.a.out_channels, small.b.out_channels) == (4, 8)


def test_a_number_that_is_written_stays_a_constant_and_so_does_a_size_that_cannot_change():
    class Fixed(nn.Module):
        def __init__(self, literal: bool) -> None:
            super().__init__()
            self.literal = literal
            self.a, self.o = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            if not self.literal and tuple(x.shape) != (2, 3, 8, 8):
                raise ValueError("one size only")
            return self.o(self.a(x).sigmoid() / (8 if self.literal else x.shape[2]))

    for literal in (True, False):
        _, small = pruned(Fixed(literal), torch.randn(2, 3, 8, 8, dtype=torch.float64))
        assert small.a.out_channels == 4


def test_tokens_are_kept_valid_and_lengths_change_in_all_inputs_together():
    tokens, mask, image = torch.tensor([[3, 1, 4, 1]]), torch.ones(1, 1, 4, 4), torch.zeros(1, 5, 6)
    batches = list(other_batches((tokens, mask)))
    assert [tuple(item.shape) for item in batches[0]] == [(2, 4), (2, 1, 4, 4)]
    assert [len(inputs[0]) for inputs in batches] == [2, 3]
    (lengths,) = other_lengths((tokens, mask))
    half, twice, longer, quarter, *alone = lengths
    assert half[0].tolist() == [[3, 1]]
    assert twice[0].tolist() == [[3, 1, 4, 1, 3, 1, 4, 1]]
    assert [tuple(item.shape) for item in (half[1], twice[1])] == [(1, 1, 2, 2), (1, 1, 8, 8)]
    assert [tuple(map(tuple, (item.shape for item in each))) for each in (longer, quarter)] == [
        ((1, 5), (1, 1, 5, 5)),
        ((1, 1), (1, 1, 1, 1)),
    ]
    assert [tuple(map(tuple, (item.shape for item in each))) for each in alone] == [
        ((1, 8), (1, 1, 8, 4)),
        ((1, 4), (1, 1, 4, 8)),
        ((1, 8), (1, 1, 4, 4)),
        ((1, 4), (1, 1, 8, 8)),
    ]
    assert [[tuple(item[0].shape) for item in lot] for lot in other_lengths((image,))] == [
        [(1, 2, 6), (1, 10, 6), (1, 6, 6), (1, 1, 6)],
        [(1, 5, 3), (1, 5, 12), (1, 5, 7), (1, 5, 1)],
    ]


def test_networks_that_differ_at_another_size_alone_are_told_apart():
    class Mean(nn.Module):
        def __init__(self, length: int | None) -> None:
            super().__init__()
            self.length = length

        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1) / (self.length or x.shape[1])

    x = torch.zeros(2, 6)
    found = differs_at(Mean(None), Mean(6), x)
    assert found is not None
    assert [tuple(item.shape) for item in found.inputs] == [(2, 3)]
    assert "changed its outputs" in found.reason
    assert differs_at(Mean(None), Mean(None), x) is None


def test_what_still_differs_elsewhere_is_not_returned(monkeypatch):
    monkeypatch.setattr(propagate, "varying", lambda program, others: frozenset())
    monkeypatch.setattr(propagate, "agreed", lambda readers, others: readers)
    torch.manual_seed(0)  # one whose ReLU does not hide it
    model = Sized("height").double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=x)
    with pytest.raises(VerificationError, match=r"with inputs of shape \(2, 3, 4, 4\): .*changed its outputs"):
        tdc.shrink(model, x)
