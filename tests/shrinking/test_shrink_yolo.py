"""YOLOv8's architecture, narrow: with scope "group" half of every unit that can leave dies, and all of it leaves."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from yolov8 import C2f, YoloV8

import tdcompress as tdc

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
SPARED = ("detect.cv2.0.2", "detect.cv2.1.2", "detect.cv2.2.2")  # a softmax reads these together


@pytest.fixture
def narrow_yolo(settle):
    torch.manual_seed(0)
    return settle(YoloV8(widths=(4, 8, 12, 16, 16), depths=(1, 2, 1, 1), classes=6)).eval()


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def test_the_full_size_is_the_published_one():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in YoloV8().parameters()) == 3_157_200


def test_half_of_every_stream_leaves(narrow_yolo):
    before = {name: module.out_channels for name, module in convolutions(narrow_yolo).items()}
    with pytest.warns(
        UserWarning, match=r"^3 layers left whole, since no unit could ever leave: detect\.cv2\.0\.2 \(detect .* splits it "
    ):
        tdc.prune(narrow_yolo, granularity="unit", scope="group", fraction=0.5, example_inputs=X)
    shrunk = tdc.shrink(narrow_yolo, X)
    returned = {f"detect.cv3.{level}.2" for level in range(3)} | {"detect.dfl"}
    for name, module in convolutions(shrunk.model).items():
        whole = name in returned or name in SPARED
        assert module.out_channels == (before[name] if whole else before[name] // 2), name
    assert all(layer.dead_kept == 0 for layer in shrunk.report.layers)
    assert 0 < shrunk.report.max_error <= 1e-10 * shrunk.report.max_output


class Returning(nn.Module):
    """A block that is followed by a head, and one whose map is returned too, as a detector does outside of an export."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.head = nn.Conv2d(3, 8, 1), C2f(8, 16, 2, True), C2f(16, 16, 1, True), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.b(self.a(self.stem(x)))
        return self.head(features), features


def test_maps_that_are_returned_beside_the_boxes_stay_whole(settle):
    torch.manual_seed(0)
    model = settle(Returning()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tdc.prune(model, granularity="unit", scope="group", fraction=0.5, example_inputs=X)
    shrunk = tdc.shrink(model, X)
    widths = {name: module.out_channels for name, module in convolutions(shrunk.model).items()}
    assert (widths["b.cv2.conv"], widths["head"]) == (16, 4)
    assert {widths[f"{block}.cv1.conv"] for block in "ab"} == {8}
    assert all(layer.dead_kept == 0 for layer in shrunk.report.layers)


GRIDS = {
    "by type": lambda x, y: torch.arange(y.shape[3], dtype=y.dtype, device=y.device) + 0.5,
    "of the type of a map": lambda x, y: torch.arange(y.shape[3]).type_as(y) + 0.5,
    "cast as a map is": lambda x, y: torch.arange(y.shape[3]).to(y) * 0.5,
    "filled": lambda x, y: y.new_full((y.shape[3],), 2.0) + y.new_ones(1),
    "like the images": lambda x, y: torch.ones_like(x).cumsum(2)[:, :1],
    "as wide as the images": lambda x, y: torch.arange(y.shape[3]).expand_as(x)[:, :1],
}


class Anchored(nn.Module):
    """Keeps its grid for the shape of the map that it was made for, channels included: detectors do, outside of training."""

    def __init__(self, grid: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.shape, self.grid, self.make = torch.Size(), torch.empty(0), grid

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.a(x).relu().chunk(2, 1)
        y = self.b(torch.cat((near, far), 1)).relu()
        if y.shape != self.shape:
            self.shape, self.grid = y.shape, self.make(x, y)
        return self.o(y) * self.grid


@pytest.mark.parametrize("called", [True, False])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_grid_that_is_made_anew_for_the_narrow_map_holds_nothing(grid, called):
    torch.manual_seed(0)
    model = Anchored(GRIDS[grid]).eval()
    if called:
        model(X)  # from here on the full network computes no grid, and the narrow one does
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tdc.prune(model, granularity="unit", scope="group", fraction=0.5, example_inputs=X)
    shrunk = tdc.shrink(model, X)
    assert {name: module.out_channels for name, module in convolutions(shrunk.model).items()} == {"a": 8, "b": 4, "o": 6}
    assert all(layer.dead_kept == 0 for layer in shrunk.report.layers)
    torch.testing.assert_close(shrunk.model(X), model(X), rtol=1e-4, atol=1e-5)
