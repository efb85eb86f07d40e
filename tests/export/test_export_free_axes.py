"""Free axes: a file holds for every length that the network takes, or the condition that binds it is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.errors import TdcompressError, UnsupportedError, VerificationError
from tdcompress.export.check import OnnxNetwork, check_agreement

Change = Callable[[Tensor], Tensor]


class After(nn.Module):
    """A layer, and what is done with its output."""

    def __init__(self, layer: nn.Module, change: Change) -> None:
        super().__init__()
        self.layer, self.change = layer, change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.layer(x))


def rows(change: Change) -> tuple[nn.Module, Tensor, tuple[int, ...]]:
    return After(nn.Linear(4, 2), change), torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), (0,)


def images(change: Change, size: int = 16) -> tuple[nn.Module, Tensor, tuple[int, ...]]:
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return After(nn.Conv2d(3, 4, 3, padding=1), change), x, (0, 2, 3)


BOUND = {
    "batch <= 100": rows(lambda y: y if y.shape[0] <= 100 else y * 2),
    "batch != 100": rows(lambda y: y if y.shape[0] != 100 else y * 2),
    "batch == 2": rows(lambda y: torch.stack(list(y))),
    "axis_2 >= 9": images(lambda y: y if y.shape[2] > 8 else y * 2),
    "axis_3 == axis_2": images(lambda y: y if y.shape[2] == y.shape[3] else y * 2),
    "axis_2 <= 40": images(lambda y: y if y.shape[2] <= 40 else y * 2),
    "(axis_2 % 2) == 0": images(lambda y: y[:, :, : y.shape[2] // 2 * 2] if y.shape[2] % 2 else y * 2),
    "(axis_3 % 4) == 0": images(lambda y: nn.functional.pad(y, (0, 1)) if y.shape[3] % 4 else y),
    "axis_2 == 16": images(lambda y: y * float(y.shape[2])),
}


@pytest.mark.parametrize("said", BOUND)
def test_what_a_forward_does_with_a_size_is_found_in_the_trace(said: str, tmp_path: Path) -> None:
    network, x, free = BOUND[said]
    with pytest.raises(UnsupportedError) as refused:
        tdc.export_onnx(network, x, tmp_path / "m.onnx", free_axes=free)
    message = str(refused.value)
    assert message.startswith("After cannot be exported to ONNX with a free batch size")
    assert f": the file would be right where {said} alone (test_export_free_axes.py, line " in message
    assert message.endswith(
        "; take the condition out of forward, or leave the axis out of free_axes: () fixes the shapes of the examples"
    )
    assert not list(tmp_path.iterdir())
    assert network.training


@pytest.mark.parametrize("said", BOUND)
def test_it_is_exported_with_fixed_shapes(said: str, tmp_path: Path) -> None:
    network, x, _ = BOUND[said]
    tdc.export_onnx(network, x, tmp_path / "m.onnx", free_axes=())


def test_a_branch_is_refused_though_outputs_agree(tmp_path: Path) -> None:
    network, x, free = images(lambda y: y if y.shape[2] <= 40 else y.abs().relu() - (-y).relu() - y.relu() + y)
    with pytest.raises(UnsupportedError, match=r"where axis_2 <= 40 alone .*, not at shape \(2, 3, 41, 16\);"):
        tdc.export_onnx(network, x, tmp_path / "m.onnx", free_axes=free)


def test_a_branch_beyond_what_can_be_tried_is_refused(tmp_path: Path) -> None:
    network, x, free = images(lambda y: y if y.shape[0] <= 10**6 else y * 2)
    with pytest.raises(UnsupportedError, match=r"where batch <= 1000000 alone .*, not at shape \(1000001, 3, 16, 16\);"):
        tdc.export_onnx(network, x, tmp_path / "m.onnx", free_axes=free)


def test_a_branch_that_another_condition_hides_is_refused(tmp_path: Path) -> None:
    """At 41, the nearest length, torch refuses what it is given for another reason: the image has to be even."""

    def halves(y: Tensor) -> Tensor:
        y = nn.functional.interpolate(nn.functional.max_pool2d(y, 2), scale_factor=2.0) + y
        return y if y.shape[2] <= 40 else y * 2

    network, x, free = images(halves)
    with pytest.raises(UnsupportedError, match="where axis_2 <= 40 alone"):
        tdc.export_onnx(network, x, tmp_path / "m.onnx", free_axes=free)


FREE = {
    "kernels larger than an image": (
        nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3)),
        [(1, 3, 11, 30), (5, 3, 40, 10)],
    ),
    "images that have to be even": (
        After(
            nn.Conv2d(3, 4, 3, padding=1),
            lambda y: nn.functional.interpolate(nn.functional.max_pool2d(y, 2), scale_factor=2.0) + y,
        ),
        [(1, 3, 2, 30), (5, 3, 40, 10)],
    ),
    "blocks of pixels": (nn.PixelUnshuffle(2), [(1, 3, 2, 2), (5, 3, 6, 18)]),
    "padding that is computed": (
        images(lambda y: nn.functional.pad(y, (0, -y.shape[3] % 4, 0, -y.shape[2] % 4)))[0],
        [(1, 3, 5, 31), (2, 3, 4, 4)],
    ),
    "numbers that are computed": (
        images(lambda y: y * min(y.shape[2], 20) * (y.shape[3] <= 40))[0],
        [(1, 3, 30, 9), (1, 3, 2, 50)],
    ),
    "an average": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), [(1, 3, 3, 3), (200, 3, 9, 4)]),
}


@pytest.mark.parametrize("kind", FREE)
def test_what_torch_refuses_too_or_a_file_computes_stays_free(kind: str, tmp_path: Path) -> None:
    network, shapes = FREE[kind]
    tdc.export_onnx(network, torch.randn(2, 3, 16, 16), tmp_path / "m.onnx", free_axes=(0, 2, 3))
    (entry,) = onnx.load(tmp_path / "m.onnx").graph.input
    assert [dim.dim_param or dim.dim_value for dim in entry.type.tensor_type.shape.dim] == ["batch", 3, "axis_2", "axis_3"]
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    for shape in shapes:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = network.eval()(x).numpy()
        np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], expected, rtol=1e-4, atol=1e-4)


def test_attention_is_free_in_batch_and_length(tmp_path: Path) -> None:
    network = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    tdc.export_onnx(network, torch.randn(2, 3, 8), tmp_path / "m.onnx", free_axes=(0, 1))
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    for shape in ((1, 1, 8), (1, 7, 8), (130, 2, 8)):
        x = torch.randn(shape)
        with torch.inference_mode():
            np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], network(x), atol=1e-4)


class TwoRows(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        y = a + b
        return y if y.shape[0] <= 70 else y * 2


def test_inputs_share_their_axes_and_a_line_of_several_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"where batch <= 70 alone \(.*: `return y if y\.shape\[0\] <= 70 else y \* 2`\)"):
        tdc.export_onnx(TwoRows(), (torch.randn(2, 4), torch.randn(2, 4)), tmp_path / "m.onnx")


def test_sizes_that_torch_refuses_say_what_to_do(tmp_path: Path) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    with pytest.raises(VerificationError) as refused:
        tdc.export_onnx(flat, torch.randn(2, 3, 16, 16), tmp_path / "m.onnx", free_axes=(0, 2, 3))
    assert str(refused.value) == (
        "m.onnx: cannot be compared with torch: the network does not take shape (1, 3, 32, 32): mat1 and mat2 shapes cannot be "
        "multiplied (1x3072 and 768x4); free_axes says that axes may have any length: leave out of it those that may not "
        "(() fixes the shapes of the examples)"
    )


def test_sizes_that_the_file_alone_refuses_say_what_to_do(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4))
    with pytest.raises(UnsupportedError) as refused:
        tdc.export_onnx(pooled, torch.randn(2, 3, 16, 16), tmp_path / "m.onnx", free_axes=(0, 2, 3))
    assert str(refused.value).startswith(
        "Sequential cannot be exported to ONNX with a free batch size and a free axis 2 and axis 3"
    )
    assert str(refused.value).endswith("leave the axis out of free_axes: () fixes the shapes of the examples")
    assert capfd.readouterr() == ("", "")
    tdc.export_onnx(pooled, torch.randn(2, 3, 16, 16), tmp_path / "m.onnx", free_axes=())
    with pytest.raises(
        VerificationError, match=r"^m\.onnx at shape \(2, 3, 18, 16\): torch takes it, and onnxruntime does not: "
    ):
        check_agreement(pooled, [torch.randn(2, 3, 18, 16)], OnnxNetwork(tmp_path / "m.onnx", "m.onnx"), free_axes=())


def test_complex_outputs_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **keywords: pytest.fail("traced"))
    network, x, _ = rows(torch.fft.rfft)
    with pytest.raises(
        TdcompressError, match=r"the network returns complex numbers, which .*: let it return torch\.view_as_real"
    ):
        tdc.export_onnx(network, x, tmp_path / "m.onnx")


class Detector(nn.Module):
    """Scores and boxes of every place; the five best."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        o = self.head(self.stem(x).relu()).flatten(2).transpose(1, 2)
        places = torch.arange(o.shape[1], dtype=o.dtype)[None, :, None]
        scores, best = o[..., 4].topk(5, 1)
        boxes = o[..., :4] + places
        return {"scores": scores, "boxes": boxes.gather(1, best[..., None].expand(-1, -1, 4))}


@pytest.mark.parametrize("seed", range(4))
def test_a_detector_is_compared_where_no_scores_tie(seed: int, tmp_path: Path) -> None:
    """An image repeated as it is has each score several times, and top-k may choose any of them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Detector()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    tdc.export_onnx(network, x, tmp_path / "m.onnx", free_axes=(0, 2, 3))


class BestOfBatch(nn.Module):
    """The best row of a batch for each unit, and where it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        values, best = self.layer(x).topk(1, 0)
        return {"values": values, "best": best}


def test_rows_of_a_batch_do_not_tie(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = BestOfBatch()
    tdc.export_onnx(network, torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y * float(np.sqrt(y.shape[2])),
        lambda y: y * {8: 1, 16: 2}.get(y.shape[2], 3),
        lambda y: y * float(y.shape[2]),
    ],
)
def test_a_refusal_is_its_message_alone(change: Change, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network, x, free = images(change)
    with pytest.raises(UnsupportedError, match="right where axis_2 == 16 alone"):
        tdc.export_onnx(network, x, tmp_path / "m.onnx", free_axes=free)
    assert capfd.readouterr() == ("", "")
