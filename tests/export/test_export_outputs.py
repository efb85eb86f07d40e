"""Whatever a network returns, in whatever precision, inside whatever wrapper: exported and compared output by output."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.errors import ModelError, UnsupportedError, VerificationError
from tdcompress.export import to_onnx
from tdcompress.export.check import OnnxNetwork, check_agreement
from tdcompress.export.outputs import named_outputs

Pair = namedtuple("Pair", ["boxes", "scores"])
X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class ModelOutput(OrderedDict):
    """As HuggingFace has it: a mapping of its own class."""


@dataclass
class Record:
    logits: Tensor
    hidden: Tensor | None = None


class Returns(nn.Module):
    def __init__(self, how) -> None:
        super().__init__()
        self.how, self.a, self.b = how, nn.Linear(4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor):
        return self.how(self.a(x), self.b(x))


STRUCTURES = {
    "tensor": (lambda a, b: a + b.sum(1, keepdim=True), ["output"]),
    "one in a tuple": (lambda a, b: (a + b.sum(1, keepdim=True),), ["output"]),
    "tuple": (lambda a, b: (a, b), ["output_0", "output_1"]),
    "list": (lambda a, b: [b, a], ["output_0", "output_1"]),
    "dict": (lambda a, b: {"logits": a, "boxes": b}, ["logits", "boxes"]),
    "one in a dict": (lambda a, b: {"logits": a + b.sum()}, ["logits"]),
    "nested": (lambda a, b: {"maps": [a, b], "top": (a * 2,)}, ["maps_0", "maps_1", "top_0"]),
    "named tuple": (lambda a, b: Pair(a, b), ["boxes", "scores"]),
    "ModelOutput": (lambda a, b: ModelOutput(logits=a, hidden=None, boxes=b), ["logits", "boxes"]),
    "dataclass": (lambda a, b: Record(logits=a, hidden=b), ["logits", "hidden"]),
    "name of the input": (lambda a, b: {"input": a, "other": b}, ["input_output", "other"]),
    "names that meet": (
        lambda a, b: {"a": {"b": a, "b_2": b}, "a_b": a, "a_b_2": b, "a__b": a},
        ["a_b", "a_b_2", "a_b_3", "a_b_2_2", "a__b"],
    ),
    "whole numbers": (lambda a, b: (a, b.argmax(1)), ["output_0", "output_1"]),
    "the same twice": (lambda a, b: (a, a, b), ["output_0", "output_1", "output_2"]),
}


@pytest.mark.parametrize("kind", STRUCTURES)
def test_every_output_is_compared_and_named_in_order(kind, tmp_path):
    torch.manual_seed(0)
    how, names = STRUCTURES[kind]
    net = Returns(how)
    agreement = tdc.export_onnx(net, X, tmp_path / "m.onnx")
    assert agreement.max_output > 0
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_outputs()] == names
    with torch.inference_mode():
        expected = named_outputs(net(X), ["input"])
    for given, wanted in zip(session.run(None, {"input": X.numpy()}), expected.values(), strict=True):
        np.testing.assert_allclose(given, wanted.numpy(), rtol=1e-4, atol=1e-5)
    weights = {tensor.name for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert not any(name.startswith("network") for name in weights)
    assert isinstance(net(X), type(how(X, X)))  # no hook is left


def test_an_output_that_differs_is_named_and_nothing_is_published(tmp_path, monkeypatch):
    save = to_onnx.save_model

    def save_other(proto, target):
        weight = next(tensor for tensor in proto.graph.initializer if list(tensor.dims) == [5])
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 0.01, weight.name))
        return save(proto, target)

    monkeypatch.setattr(to_onnx, "save_model", save_other)
    with pytest.raises(VerificationError, match=r"^m\.onnx, 'boxes' at batch 1: outputs differ by"):
        tdc.export_onnx(Returns(STRUCTURES["dict"][0]), X, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


class DynamicCache:
    pass


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda a, b: (a, 3), "the network returns something of type int as output 1, which an ONNX file cannot hold"),
        (lambda a, b: {"logits": a, "past_key_values": DynamicCache()}, "DynamicCache as output past_key_values, .*use_cache = "),
        (lambda a, b: None, "returns no tensor"),
    ],
)
def test_what_no_file_can_hold_is_refused_at_once(how, said, tmp_path):
    with pytest.raises(UnsupportedError, match=f"^Returns cannot be exported to ONNX: .*{said}"):
        tdc.export_onnx(Returns(how), X, tmp_path / "m.onnx")


def test_float16_is_compared_as_coarsely_as_it_computes(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)).half()
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).half()
    agreement = tdc.export_onnx(net, x, tmp_path / "m.onnx")
    assert agreement.max_error <= 1e-2 * agreement.max_output
    with torch.no_grad():
        net[2].bias += 0.1
    with pytest.raises(VerificationError, match="outputs differ by"):
        check_agreement(net, [x], OnnxNetwork(tmp_path / "m.onnx", "m.onnx"))


def test_bfloat16_is_refused_in_one_line_and_stored_exactly(tmp_path):
    net = nn.Linear(4, 3).bfloat16()
    with pytest.raises(UnsupportedError, match=r"^Linear is in bfloat16, .*: export model\.float\(\)$"):
        tdc.export_onnx(net, X.bfloat16(), tmp_path / "m.onnx")
    assert tdc.save_sparse(net, tmp_path / "w.npz") > 0
    weight = tdc.load_sparse(tmp_path / "w.npz")["weight"]
    weight = weight.toarray() if hasattr(weight, "toarray") else weight
    assert torch.equal(torch.from_numpy(np.asarray(weight)), net.weight.detach().float())


def test_wrappers_are_taken_off_or_the_way_is_told(tmp_path):
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    for wrapped in (nn.DataParallel(net), torch.compile(net, backend="eager")):
        tdc.export_onnx(wrapped, X, tmp_path / "m.onnx")
        assert {tensor.name for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer} >= {"0.bias", "2.bias"}
        assert set(tdc.prune(wrapped, granularity="unit", fraction=0.5, example_inputs=X)) == {"0.weight", "0.bias"}
        assert tdc.shrink(wrapped, X).model[0].out_features == 3
    with pytest.raises(ModelError, match=r"TargetedDropout is a wrapper for training: export the network in it, net\.plain\(\)"):
        tdc.export_onnx(tdc.TargetedDropout(net, gamma=0.5), X, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="on the meta device"):
        tdc.export_onnx(nn.Linear(4, 2).to("meta"), X, tmp_path / "m.onnx")


class Masked(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return (x @ mask).relu()


def test_a_second_input_without_a_batch_keeps_its_shape(tmp_path):
    mask = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    tdc.export_onnx(Masked(), (X, mask), tmp_path / "m.onnx")
    first, second = onnx.load(tmp_path / "m.onnx").graph.input
    assert first.type.tensor_type.shape.dim[0].dim_param
    assert [dim.dim_value for dim in second.type.tensor_type.shape.dim] == [4, 4]
    with pytest.raises(UnsupportedError, match="give examples whose batch size no other first axis has: these then stay fixed"):
        tdc.export_onnx(Masked(), (torch.randn(4, 4), mask), tmp_path / "m.onnx")


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        return self.b(y.mean((2, 3)) * y.shape[2])


def test_height_and_width_can_be_free_and_every_axis_fixed(tmp_path):
    torch.manual_seed(0)
    net, x = Pooled(), torch.randn(2, 3, 8, 10)
    path = tmp_path / "m.onnx"
    tdc.export_onnx(net, x, path, free_axes=(0, 2, 3))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 8, 10), (5, 3, 21, 6)):
        image = torch.randn(shape)
        np.testing.assert_allclose(
            session.run(None, {"input": image.numpy()})[0], net(image).detach().numpy(), rtol=1e-4, atol=1e-5
        )
    agreement = tdc.export_onnx(net, x, path, free_axes=())
    assert agreement.batches == (2,)
    assert [dim.dim_value for dim in onnx.load(path).graph.input[0].type.tensor_type.shape.dim] == [2, 3, 8, 10]


def test_an_axis_that_cannot_be_free_is_refused(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(VerificationError, match=r"the network does not take shape \(1, 3, 16, 16\): mat1 and mat2"):
        tdc.export_onnx(net, torch.randn(2, 3, 8, 8), tmp_path / "m.onnx", free_axes=(0, 2, 3))
