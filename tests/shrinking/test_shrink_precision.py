"""Forward code that names types, and the float64 certificate: casts, defaults, recurrences, autocast, inference mode."""

import pytest
import torch
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.shrinking.float64 import in_float64


def zero(layer: nn.Module, units: list[int]) -> None:
    with torch.no_grad():
        layer.weight[units] = 0
        layer.bias[units] = 0


def certified(shrunk) -> None:
    assert shrunk.report.max_output > 0
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


class Cast(nn.Module):
    """Casts before, between and behind layers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b, self.o = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 4)
        self.literal = torch.linspace(-1, 1, 8)  # no buffer: stays float32

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "bytes":
            return self.o(self.b(self.a(x.float() / 255).relu()).relu())
        if self.kind == "half":
            return self.o(self.b(self.a(x.half().float()).relu()).to(torch.float32).relu())
        if self.kind == "default":
            return self.o(self.b(self.a(x + torch.ones(8)).relu()).relu() * torch.tensor(2.0))
        if self.kind == "literal":
            return self.o(self.b(self.a(x * torch.outer(x @ self.literal, self.literal)).relu()).relu())
        if self.kind == "mask":
            return self.o(self.b(self.a(x).relu() * (x.sum(1, keepdim=True) > 0).float()).relu())
        if self.kind == "frozen":
            with torch.no_grad():
                y = self.a(x).relu_()
            return self.o(self.b(y).relu())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.a(x)
            y = y.relu_() if self.kind == "in place" else y.relu()
            with torch.autocast("cpu", enabled=False):
                return self.o(self.b(y.float()).relu())


@pytest.mark.parametrize("kind", ["bytes", "half", "default", "literal", "mask", "frozen", "autocast", "in place"])
def test_casts_hinder_nothing(kind):
    model = Cast(kind)
    x = torch.randint(0, 256, (3, 8), dtype=torch.uint8) if kind == "bytes" else torch.randn(3, 8)
    certified(tdc.shrink(model, x))
    zero(model.a, [0, 3])
    zero(model.b, [1])
    shrunk = tdc.shrink(model, x)
    certified(shrunk)
    assert (shrunk.model.a.out_features, shrunk.model.b.out_features) == (14, 11)
    torch.testing.assert_close(shrunk.model(x), model(x), rtol=1e-2, atol=1e-2)


def test_a_recurrence_with_a_first_state_of_zeros_stays_whole_and_the_rest_shrinks():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gru, self.b, self.o = nn.Linear(4, 6), nn.GRU(6, 8), nn.Linear(8, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            y, _ = self.gru(self.a(x), torch.zeros(1, x.shape[1], 8))
            return self.o(self.b(y).relu())

    model = Recurrent()
    zero(model.b, [0, 4])
    shrunk = tdc.shrink(model, torch.randn(7, 3, 4))
    certified(shrunk)
    assert (shrunk.model.b.out_features, shrunk.model.gru.hidden_size) == (3, 8)


def test_float64_reaches_casts_factories_and_literals_and_ends_with_the_block():
    literal = torch.full((2,), 1 / 3)
    with in_float64():
        x = torch.rand(2)
        assert x.dtype == x.float().dtype == x.half().dtype == torch.zeros(1, dtype=torch.bfloat16).dtype == torch.float64
        assert (literal @ x).dtype == torch.float64
        assert x.long().dtype == torch.int64
        assert literal.add_(1).dtype == torch.float32  # in place: the tensor itself
    assert torch.zeros(1).dtype == torch.float32


def test_a_network_shrinks_under_inference_mode_and_can_be_trained_afterwards():
    model = Cast("mask")
    zero(model.a, [0])
    with torch.inference_mode():
        x = torch.randn(3, 8)
        shrunk = tdc.shrink(model, x)
        tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=x)
    certified(shrunk)
    shrunk.model(x.clone()).sum().backward()
    assert shrunk.model.a.weight.grad.shape == (15, 8)


def test_a_constant_that_is_rounded_is_not_taken_for_what_it_was():
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.o = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.o(self.a(x).to(torch.int32).float())

    model = Rounded()
    zero(model.a, [2])
    with torch.no_grad():
        model.a.bias[2] = 1.7
    certified(tdc.shrink(model, torch.randn(3, 4) * 5))
