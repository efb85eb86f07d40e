"""Constants of comparisons, choices, casts and spreads: known wherever no rounding decides them."""

import pytest
import torch
from torch import Tensor, nn

import tdcompress as tdc

X = torch.randn(2, 3, 15, 15, generator=torch.Generator().manual_seed(0))
EYE = torch.eye(15, dtype=torch.bool)


def spread_out(z: Tensor) -> Tensor:
    return (z - z.mean((2, 3), keepdim=True)) / z.std((2, 3), keepdim=True).clamp_min(1e-5)


def by_variance(z: Tensor) -> Tensor:
    variance, mean = torch.var_mean(z, (2, 3), keepdim=True)
    return (z - mean) / (variance + 1e-5).sqrt()


# Of maps y (2, 8, 15, 15) and z = relu(y). Units of y are constants.
ANY_CONSTANT = {
    "leaky": lambda y, z: torch.where(y > 0, y, 0.1 * y),
    "elu": lambda y, z: torch.where(z > 0, z, z.exp() - 1),
    "threshold": lambda y, z: torch.where(z > 0.1, z, torch.zeros_like(z)),
    "made": lambda y, z: torch.where(z > 0.1, torch.full((), 0.3), torch.zeros(1)),
    "literal": lambda y, z: torch.where(z > torch.tensor(0), z, torch.tensor(1)),
    "flags": lambda y, z: torch.where(torch.ones_like(z, dtype=torch.bool), z, z + 1),
    "numbers": lambda y, z: torch.where(z > 0.1, 1, 0) * 2.5 + z,
    "masked": lambda y, z: z.masked_fill(z < 0.1, 0.0),
    "masked in place": lambda y, z: z.clone().masked_fill_(z < 0.1, 2.0),
    "finite": lambda y, z: torch.where(torch.isfinite(z), z, torch.zeros_like(z)),
    "not a number": lambda y, z: torch.where(z.isnan(), 0.0, z),
    "logical": lambda y, z: torch.where((z > 0.1).logical_and(z < 2) | ~(y > -1), z, 0.0),
    "integers": lambda y, z: (z > 0.1).int() // (1 + (y > 0).int()) + z,
    "to integers": lambda y, z: (z * 4).to(torch.int64) * 0.25,
    "to flags": lambda y, z: z + z.bool().type_as(z),
    "any and all": lambda y, z: z + z.any(2, keepdim=True) * 2 + (z > 0.1).all(3, keepdim=True),
    "promoted": lambda y, z: z * ((y > 0) + (y <= 0) * 0.1) + (z > 0.1) / 3 + (z * 4).int() / 7 + torch.full((1,), 2) / 3,
    "promoted by a function": lambda y, z: z * torch.sigmoid((y > 0).int()) + (z > 0.1).exp() + torch.tensor(3).sqrt(),
    "selu": lambda y, z: (y >= 0) * 1.0507 * y + (y < 0) * 1.7581 * (y.exp() - 1),
    "standard deviation": lambda y, z: spread_out(z),
    "variance": lambda y, z: by_variance(z),
}
# Where y equals z exactly, and where a mask has its own pixels: these leave if y is 0.
ZERO = {
    "of two": lambda y, z: torch.where(y > z, y, z * 2),
    "equal": lambda y, z: (y == z).float() + y,
    "own pixels": lambda y, z: torch.where(EYE, z, 0.0) + z.masked_fill(EYE, 0.0),
    "and": lambda y, z: torch.where((z > 0.1) & EYE, z, 0.5),
}
NEVER = {
    "other pixels": lambda y, z: z.masked_fill(EYE, 1.0),
    "half": lambda y, z: (z * 0 + 0.5).round(),
    "sign of zero": lambda y, z: torch.copysign(torch.ones_like(z), z * 0),
    "inexact literal": lambda y, z: z * 0 + torch.tensor(0.3),
    "single": lambda y, z: z.flatten(2)[:, :, :1].std(2, correction=0).add(0.5).round()[:, :, None, None] + z,
}


class Choice(nn.Module):
    def __init__(self, operator) -> None:
        super().__init__()
        self.operator = operator
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.c(self.b(self.operator(y, y.relu())).mean((2, 3)))


def width(operator, constants: list[float]) -> int:
    """Of layer a after its first units became constants."""
    torch.manual_seed(0)
    model = Choice(operator)
    with torch.no_grad():
        model.a.weight[: len(constants)] = 0
        model.a.bias[: len(constants)] = torch.tensor(constants)
    shrunk = tdc.shrink(model, X)
    assert shrunk.report.max_output > 0
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output
    torch.testing.assert_close(shrunk.model(X), model(X), rtol=1e-4, atol=1e-5)
    return shrunk.model.a.out_channels


@pytest.mark.parametrize("name", ANY_CONSTANT)
def test_any_constant_leaves(name):
    assert width(ANY_CONSTANT[name], [0.0, 0.0, -0.7, 0.7]) == 4


@pytest.mark.parametrize("name", ZERO)
def test_zeros_leave_where_another_constant_may_vary(name):
    assert width(ZERO[name], [0.0, 0.0, 0.7]) in (5, 6)
    assert width(ZERO[name], [0.0, 0.0, 0.0]) == 5


@pytest.mark.parametrize("name", NEVER)
def test_constants_that_vary_or_hang_on_rounding_stay(name):
    assert width(NEVER[name], [0.0, 0.0, 0.7]) == 8


@pytest.mark.parametrize("name", [*ANY_CONSTANT, *ZERO])
@pytest.mark.parametrize("scope", ["layer", "group"])
def test_half_of_the_units_leave_after_pruning(name, scope):
    torch.manual_seed(0)
    model = Choice((ANY_CONSTANT | ZERO)[name])
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=X, scope=scope)
    shrunk = tdc.shrink(model, X)
    assert shrunk.model.a.out_channels == 4
    assert shrunk.report.layers[0].dead_kept == 0


@pytest.mark.parametrize("constant", [0.1, 0.1 + 1e-8, 0.1 - 5e-8])
@pytest.mark.parametrize(
    "operator",
    [
        lambda y, z: torch.where(y > 0.1, y, y + 1),
        lambda y, z: y.masked_fill(y <= 0.1, 3.0),
        lambda y, z: (y == 0.1).float() + z,
        lambda y, z: (y * 10).int().float(),
        lambda y, z: (y * 10).floor(),
        lambda y, z: (y - 0.1).sign(),
        lambda y, z: (y - 0.1).bool() * 2.0 + z,
        lambda y, z: torch.div(y, 0.1, rounding_mode="floor"),
        lambda y, z: y.remainder(0.1),
        lambda y, z: nn.functional.hardshrink(y, 0.1),
    ],
)
def test_what_rounding_decides_is_no_constant(operator, constant):
    assert width(operator, [constant]) == 8
    assert width(operator, [0.75]) == 7


def test_integers_that_float64_does_not_hold_are_no_constants():
    big = 2**53
    assert width(lambda y, z: ((z > 0.1).long() * big + 1 - big).float(), [0.0, 0.7]) == 7  # 2**53 + 1 is none
    assert width(lambda y, z: (z * 1e19).long().float() * 1e-19, [0.0, 0.7]) == 7  # no int64 holds it
    assert width(lambda y, z: (z * 1000).to(torch.uint8).float(), [0.0, 0.7]) == 7  # nor a byte


@pytest.mark.filterwarnings("ignore:std:UserWarning")
def test_a_standard_deviation_of_one_number_is_no_number_and_none_of_0_numbers_is_0():
    assert width(lambda y, z: z.mean((2, 3), keepdim=True).std((2, 3), keepdim=True).nan_to_num(2.0) + z, [0.0, 0.7]) == 8
    assert width(lambda y, z: z.mean((2, 3), keepdim=True).std((2, 3), correction=0, keepdim=True) + z, [0.0, 0.7]) == 6
