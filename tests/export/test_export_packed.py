"""From a torch module to its smallest file: the project's own ResNet-32, packed; a shrunk network, quantised."""

from pathlib import Path

import numpy as np
import onnx
import pair_sums
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from tdcompress.export.to_onnx import export_onnx, to_model_proto
from tdcompress.interface import prune
from tdcompress.models.registry import build_model
from tdcompress.onnxfile.load import infers_strictly, load_model
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.quantise import quantise_int8
from tdcompress.onnxfile.reports import PackValues
from tdcompress.onnxfile.verify import verify_onnx
from tdcompress.shrinking.exact import shrink


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def resnet32() -> tuple[nn.Module, onnx.ModelProto]:
    model = build_model("resnet32", classes=10, seed=0).eval()
    return model, to_model_proto(model, random(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("fraction", "values", "most"),
    [
        (0.75, "float32", 1.03), (0.9, "float32", 1.02), (0.95, "float32", 1.03), (0.99, "float32", 1.10),
        (0.75, "float16", 1.055), (0.9, "float16", 1.03), (0.95, "float16", 1.05), (0.99, "float16", 1.17),
    ],
)  # fmt: skip
def test_resnet32_is_near_the_bound(
    resnet32: tuple[nn.Module, onnx.ModelProto], fraction: float, values: PackValues, most: float
) -> None:
    model, exported = resnet32
    pruned = build_model("resnet32", classes=10, seed=0)
    pruned.load_state_dict(model.state_dict())
    prune(pruned, granularity="weight", fraction=fraction)
    dense = onnx.ModelProto()
    dense.CopyFrom(exported)
    weights = pruned.state_dict()
    for tensor in dense.graph.initializer:
        if tensor.name in weights and len(tensor.dims) > 1:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].numpy(), tensor.name))
    packed, report = pack_model(dense, values)
    zeros = sum(tensor.zeros for tensor in report.tensors if len(tensor.shape) == 4)
    assert zeros == pytest.approx(fraction * 1_849_344, rel=0.01)
    assert report.file_bytes <= most * report.bound_bytes
    assert infers_strictly(dense)
    assert infers_strictly(packed)


def test_a_shrunk_network_is_quantised(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        ).eval()  # fmt: skip
    images = random(32, 3, 8, 8)
    prune(net, granularity="unit", fraction=0.5, example_inputs=images[:2])
    small = shrink(net, images[:2]).model
    assert small[0].out_channels == 16
    export_onnx(small, images, tmp_path / "m.onnx")
    report = quantise_int8(tmp_path / "m.onnx", tmp_path / "q.onnx", images.numpy())
    assert report.quantised_weights == 3
    assert report.elements == 16 * 27 + 32 * 16 * 9 + 10 * 32
    assert report.file_bytes < report.source_bytes
    assert 0 < report.output_error < 0.1
    with torch.inference_mode():
        np.savez(tmp_path / "samples.npz", input=images.numpy(), output=net(images).numpy())
    assert verify_onnx(tmp_path / "q.onnx", tmp_path / "samples.npz").samples == 32
    pair_sums.check_portable(load_model(tmp_path / "q.onnx"), images.numpy()[:8])
