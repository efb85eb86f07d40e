import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from tdcompress.errors import UnsupportedError, VerificationError
from tdcompress.export import to_onnx
from tdcompress.export.check import OnnxNetwork, check_agreement
from tdcompress.export.to_onnx import FromPixels, export_onnx


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, a, b):
        return self.left(a) + self.right(b)


class WithNan(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return torch.log(self.layer(x) * 0 - 1)


class BatchInTheGraph(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x) + (1.0 if x.shape[0] == 2 else 2.0)


class ValueInTheGraph(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x * 3


class Pixels(nn.Module):
    def forward(self, pixels):
        return (pixels.permute(0, 3, 1, 2).float() - 100.0) / 50.0


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)
        )
        model(torch.randn(8, 2, 4, 4))
    return model


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(path, *inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {entry.name: value.numpy() for entry, value in zip(session.get_inputs(), inputs, strict=True)})[0]


def test_one_example_is_enough_for_any_batch(net, tmp_path):
    path = tmp_path / "m.onnx"
    agreement = export_onnx(net, random(1, 2, 4, 4), path, {"classes": ["a", "b"], "note": "x"})
    assert agreement.batches == (1, 7, 64)
    assert agreement.max_error <= 1e-5 * agreement.max_output
    assert net.training  # the module is as it was
    with torch.inference_mode():
        for batch in (1, 2, 5, 33):
            x = random(batch, 2, 4, 4, seed=batch)
            np.testing.assert_allclose(run(path, x), net.eval()(x).numpy(), rtol=1e-4, atol=1e-5)
            net.train()
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


def test_the_file_is_stripped_and_says_what_it_is(net, tmp_path):
    path = tmp_path / "m.onnx"
    export_onnx(net, random(3, 2, 4, 4), path, {"classes": ["a", "b"], "note": "x"})
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["note"] == "x"
    assert json.loads(metadata["classes"]) == ["a", "b"]
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["output"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert b"stack_trace" not in path.read_bytes()
    assert b"test_export_onnx" not in path.read_bytes()
    assert not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    assert path.stat().st_size < 4 * sum(p.numel() for p in net.parameters()) + 4000


def test_several_inputs(tmp_path):
    net = TwoInputs()
    export_onnx(net, (random(1, 4), random(1, 5)), tmp_path / "m.onnx")
    a, b = random(6, 4), random(6, 5)
    np.testing.assert_allclose(run(tmp_path / "m.onnx", a, b), net(a, b).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_preprocessing_inside_the_graph(net, tmp_path):
    whole = FromPixels(Pixels(), net).eval()
    pixels = torch.randint(0, 256, (5, 4, 4, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    export_onnx(whole, pixels, tmp_path / "m.onnx")
    (entry,) = onnx.load(tmp_path / "m.onnx").graph.input
    assert entry.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_value for dim in entry.type.tensor_type.shape.dim][1:] == [4, 4, 2]
    with torch.inference_mode():
        expected = net.eval()(Pixels()(pixels)).numpy()
    np.testing.assert_allclose(run(tmp_path / "m.onnx", pixels), expected, rtol=1e-4, atol=1e-5)


def test_a_file_that_differs_from_torch_is_not_published(net, tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    export_onnx(net, random(3, 2, 4, 4), path)
    before = path.read_bytes()
    save = to_onnx.save_model

    def save_other(proto, target):
        weight = next(tensor for tensor in proto.graph.initializer if list(tensor.dims) == [3, 64])
        values = onnx.numpy_helper.to_array(weight).copy()
        values[1, 5] += 0.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return save(proto, target)

    monkeypatch.setattr(to_onnx, "save_model", save_other)
    with pytest.raises(VerificationError, match=r"^m\.onnx at batch \d+: outputs differ by"):
        export_onnx(net, random(3, 2, 4, 4), path)
    assert path.read_bytes() == before
    with pytest.raises(VerificationError, match="outputs differ by"):
        export_onnx(net, random(3, 2, 4, 4), tmp_path / "new.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


def test_outputs_that_are_not_numbers_are_not_published(tmp_path):
    with pytest.raises(VerificationError, match="NaN"):
        export_onnx(WithNan(), random(3, 4), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("net", [BatchInTheGraph(), ValueInTheGraph()], ids=lambda net: type(net).__name__)
def test_what_cannot_be_exported_with_a_free_batch_is_refused(net, tmp_path):
    with pytest.raises(UnsupportedError, match=f"^{type(net).__name__} cannot be exported to ONNX with a free batch size: .+"):
        export_onnx(net, random(2, 4), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_that_raises_is_a_failure(net, tmp_path):
    path = tmp_path / "m.onnx"
    export_onnx(net, random(3, 2, 4, 4), path)
    for other in (random(3, 2, 5, 5), random(3, 4)):
        with pytest.raises(VerificationError, match="cannot be compared with torch"):
            check_agreement(net, [other], OnnxNetwork(path, path.name))
    path.write_bytes(b"not a model")
    with pytest.raises(VerificationError, match=r"^m\.onnx: onnxruntime does not load the model"):
        check_agreement(net, [random(3, 2, 4, 4)], OnnxNetwork(path, path.name))
    assert net.training


@pytest.mark.parametrize(
    ("layer", "kind"), [(nn.Conv2d(2, 2, 3), "Conv2d"), (nn.AvgPool2d(2), "AvgPool2d"), (nn.LeakyReLU(), "LeakyReLU")]
)
def test_a_layer_that_onnxruntime_has_in_float32_alone_is_refused_before_the_trace(layer, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **keywords: pytest.fail("traced"))
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(layer)).double()
    with pytest.raises(UnsupportedError, match=rf"^1\.0, a {kind}, is in float64, .*: export model\.float\(\)$"):
        export_onnx(network, torch.randn(2, 2, 6, 6, dtype=torch.float64), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_what_onnxruntime_has_in_float64_is_exported(tmp_path):
    network = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).double()
    agreement = export_onnx(network, torch.randn(2, 4, dtype=torch.float64), tmp_path / "x.onnx")
    assert agreement.max_error <= 1e-15


def test_a_function_that_onnxruntime_has_in_float32_alone_is_named(tmp_path):
    network = nn.Sequential(nn.Linear(4, 4), nn.GELU()).double()
    with pytest.raises(
        VerificationError, match=r"it has no Erf for float64 on a CPU; export the network in float32: model\.float"
    ):
        export_onnx(network, torch.randn(2, 4, dtype=torch.float64), tmp_path / "x.onnx")


def test_linear_layers_on_sequences_keep_their_names(tmp_path):
    network = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 4, bias=False)).eval()
    export_onnx(network, torch.randn(2, 3, 8), tmp_path / "x.onnx")
    shapes = {tensor.name: list(tensor.dims) for tensor in onnx.load(tmp_path / "x.onnx").graph.initializer}
    expected = {"linear1.weight": [8, 16], "linear2.weight": [16, 8], "self_attn.in_proj_weight": [8, 24]}
    assert {name: shapes[f"0.{name}"] for name in expected} == expected
    assert shapes["1.weight"] == [8, 4]
