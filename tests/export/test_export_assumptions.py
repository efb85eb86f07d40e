"""Conditions of a trace, and lengths that break them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tdcompress.export.assumptions import Assumption, FreeLengths, breaking, read_assumptions

BATCH, HEIGHT, WIDTH = "batch", "height", "width"


def assumption(said: str, holds: Callable[[FreeLengths], bool], *axes: str, numbers: tuple[int, ...] = ()) -> Assumption:
    return Assumption(said=said, axes=axes, holds=holds, numbers=numbers)


SHORT = assumption("height <= 40", lambda of: of[HEIGHT] <= 40, HEIGHT, numbers=(40,))
EVEN = assumption("(height % 2) == 0", lambda of: of[HEIGHT] % 2 == 0, HEIGHT, numbers=(2,))
SQUARE = assumption("height == width", lambda of: of[HEIGHT] == of[WIDTH], HEIGHT, WIDTH)
ALWAYS = assumption("0 < height*width", lambda of: of[HEIGHT] * of[WIDTH] > 0, HEIGHT, WIDTH, numbers=(0,))
NOT_ONE = assumption("width != 1", lambda of: of[WIDTH] != 1, WIDTH, numbers=(1,))
LENGTHS = {HEIGHT: 16, WIDTH: 16}


@pytest.mark.parametrize(
    ("broken", "others", "expected"),
    [
        (SHORT, [], [(41, 16), (80, 16)]),
        (SHORT, [EVEN], [(48, 16), (80, 16)]),  # the nearest that is even
        (EVEN, [SHORT], [(15, 16), (17, 16), (1, 16), (33, 16)]),
        (SQUARE, [], [(15, 16), (17, 16), (16, 1), (16, 64)]),
        (NOT_ONE, [], [(16, 1)]),
        (ALWAYS, [], []),
    ],
)
def test_lengths_that_break_one_condition(broken: Assumption, others: list[Assumption], expected: list[tuple[int, int]]) -> None:
    found = breaking(broken, [broken, *others], LENGTHS)
    assert [(lengths[HEIGHT], lengths[WIDTH]) for lengths in found] == expected


class Sum(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x * 2, []),
        (lambda x: x if x.shape[1] * x.shape[2] <= 300 else x * 2, ["height*width <= 300"]),
        (lambda x: x if x.shape[1] == x.shape[2] + 0 else x * 2, ["width == height"]),
        (lambda x: x if x.shape[1] + 2 == x.shape[2] + 2 else x * 2, ["width == height"]),
        (lambda x: x * int(x.shape[2]), ["width == 16"]),
    ],
)
def test_conditions_are_read_from_a_program(change: Callable[[Tensor], Tensor], expected: list[str]) -> None:
    names = {0: BATCH, 1: HEIGHT, 2: WIDTH}
    shapes = (dict.fromkeys(names, torch.export.Dim.AUTO),)
    program = torch.export.export(Sum(change), (torch.ones(2, 16, 16),), dynamic_shapes=shapes)
    found = [each for each in read_assumptions(program, (names,)) if set(each.axes) != {BATCH}]
    said = [each.said for each in found if each.said not in {f"{name} >= 2" for name in names.values()}]
    assert said == expected
    assert all(each.holds({BATCH: 2, **LENGTHS}) for each in found)
