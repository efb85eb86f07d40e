"""Outputs that are small because large numbers cancel: rounding is told from errors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.errors import VerificationError
from tdcompress.export import to_onnx
from tdcompress.export.check import OnnxNetwork, check_agreement
from tdcompress.export.rounding import STEPS, rounding_limits

EPSILON = 2.0**-23


class Cancelled(nn.Module):
    """A convolution, and its mean: of numbers of both signs, so a hundredth of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm([4, 16, 16])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.conv(x)
        return {"b": y, "a": y.mean(), "nothing": self.norm(y).mean((1, 2, 3))}


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Cancelled()


X = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_small_output_of_large_numbers_is_exported(network: nn.Module, tmp_path: Path) -> None:
    tdc.export_onnx(network, X, tmp_path / "m.onnx")


@pytest.mark.parametrize("output", ["a", "nothing"])
def test_an_error_of_a_small_output_is_refused(
    output: str, network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By 0.00001, where the output is about 0.01, or 0 but for rounding."""
    save = to_onnx.save_model

    def save_other(proto: onnx.ModelProto, target: Path) -> int:
        (node,) = (node for node in proto.graph.node if output in node.output)
        node.output[list(node.output).index(output)] = "before"
        proto.graph.initializer.append(onnx.helper.make_tensor("shift", onnx.TensorProto.FLOAT, [], [1e-5]))
        proto.graph.node.append(onnx.helper.make_node("Add", ["before", "shift"], [output]))
        return save(proto, target)

    monkeypatch.setattr(to_onnx, "save_model", save_other)
    with pytest.raises(
        VerificationError, match=rf"^m\.onnx, '{output}' at batch 1: outputs differ by 1e-05, more than .* \(what rou"
    ):
        tdc.export_onnx(network, X, tmp_path / "m.onnx")


class Sums(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return x * 3, x.mean(), x.sum(), x - x, x.argmax()


def test_limits_are_rounding_steps_of_what_is_computed() -> None:
    """A product is off by a step of itself, a mean and a sum by one of the mean and the sum of absolute values."""
    x = torch.tensor([4.0, -4.0] * 8)
    product, mean, total, nothing, whole = rounding_limits(Sums(), [x], 5)
    assert 0.5 * STEPS * 12 * EPSILON < product <= STEPS * 12 * EPSILON
    assert 0.1 * STEPS * 4 * EPSILON < mean <= STEPS * 4 * EPSILON
    assert 0.1 * STEPS * 64 * EPSILON < total <= STEPS * 64 * EPSILON
    assert (nothing, whole) == (0, 0)


class Float32Alone(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.ones(4, 4)


def test_a_network_that_has_no_float64_has_no_limits_and_is_not_changed(network: nn.Module) -> None:
    assert rounding_limits(Float32Alone(), [torch.ones(2, 4)], 1) == [0.0]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert all(limit > 0 for limit in rounding_limits(network, [X], 3))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}


class AfterJump(nn.Module):
    """A layer on what an operator that jumps makes of x / 8."""

    def __init__(self, jump: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.jump = nn.Linear(48, 4), jump

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.jump(x / 8).flatten(1))
        return y


JUMPS: dict[str, Callable[[Tensor], Tensor]] = {
    "floor": lambda y: torch.floor(y) * 8 / 255,
    "ceil": lambda y: torch.ceil(y) * 8 / 255,
    "round": lambda y: torch.round(y + 0.5) * 8 / 255,
    "remainder": lambda y: torch.remainder(y, 1.0),
    "whole": lambda y: y.long().float() / 32,
    "compared": lambda y: (y >= 16).float(),
    "where": lambda y: torch.where(y > 16, y / 32, -y / 32),
    "sign": lambda y: torch.sign(y - 16),
}


@pytest.mark.parametrize("jump", JUMPS)
def test_rounding_before_a_jump_hides_no_error(jump: str) -> None:
    """All pixels are multiples of 8, where `floor` jumps; among the 240 is 128."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AfterJump(JUMPS[jump]).eval()
    x = torch.randint(0, 32, (5, 3, 4, 4), generator=torch.Generator().manual_seed(0)).float() * 8
    if jump == "remainder":
        x += 1
        x[:, 0] -= 1
    assert (x == 128).any() or jump == "remainder"
    proto = to_onnx.to_model_proto(network, x)
    check_agreement(network, [x], OnnxNetwork(proto, "right"))
    (weight,) = (each for each in proto.graph.initializer if list(each.dims) in ([48, 4], [4, 48]))
    values = onnx.numpy_helper.to_array(weight)
    for factor in (1.5, 1.1, 1.01, 1.001):
        weight.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(factor), weight.name))
        with pytest.raises(VerificationError, match=r"^wrong at batch 1: outputs differ by .*, more than .* of the largest\)$"):
            check_agreement(network, [x], OnnxNetwork(proto, "wrong"))


class Floors(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.floor(x * 2), torch.floor(x * 2) * 0.5 + x, (x * 2 >= 2).double(), x.mean()


STEP = 2.0**-52  # of float64


def test_a_jump_allows_nothing() -> None:
    x = torch.tensor([1.0, -1.0] * 8, dtype=torch.float64)
    *jumps, mean = rounding_limits(Floors(), [x], 4)
    assert jumps == [0, 0, 0]
    assert 0.1 * STEPS * STEP < mean <= 1.001 * STEPS * STEP


def test_a_jump_that_is_near_allows_what_rounding_does_beside_it() -> None:
    """1e-9 from its boundary: the coarse error crosses it, the fine one does not."""
    x = torch.tensor([1.0, -1.0] * 8, dtype=torch.float64) + 1e-9
    floor, both, flag, _ = rounding_limits(Floors(), [x], 4)
    assert 0 < floor <= 1.001 * STEPS * 2 * STEP
    assert 0 < both <= 1.001 * STEPS * 5 * STEP
    assert 0 < flag <= 1.001 * STEPS * STEP
