"""Files as other exporters write them: packed, they compute the same bits; unpacked, they are the same weights again."""

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torchvision.models.resnet import BasicBlock
from weights import dense_initializers

from tdcompress.export.to_onnx import export_onnx
from tdcompress.onnxfile.load import infers_strictly, load_model
from tdcompress.onnxfile.metadata import get_metadata, set_metadata
from tdcompress.onnxfile.optimised import optimised, optimised_differently
from tdcompress.onnxfile.pack import pack_onnx, unpack_onnx
from tdcompress.onnxfile.prepare import prepared
from tdcompress.onnxfile.reports import PackReport
from tdcompress.onnxfile.weights import densified


def sparse(random: np.random.Generator, *shape: int, zeros: float = 0.85) -> np.ndarray:
    return np.where(random.random(shape) < zeros, 0, random.standard_normal(shape)).astype(np.float32)


def cut(module: nn.Module, zeros: float = 0.85) -> nn.Module:
    """Zeros at random places of every weight matrix."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter *= torch.rand(parameter.shape, generator=generator) >= zeros
    return module.eval()


def same(source: Path, run_model: Callable, *inputs: np.ndarray, external_data: bool = False) -> PackReport:
    """Pack, run, unpack: outputs and weights must be those of the source, bit for bit."""
    folder = source.parent
    report = pack_onnx(source, folder / "packed.onnx", external_data=external_data)
    dense = load_model(source, external_data=external_data)
    packed = load_model(folder / "packed.onnx")
    assert report.file_bytes < dense.ByteSize()
    assert infers_strictly(dense)
    assert infers_strictly(packed)
    for wanted, given in zip(run_model(dense, *inputs), run_model(packed, *inputs), strict=True):
        assert given.dtype == wanted.dtype
        assert given.tobytes() == wanted.tobytes()
    unpack_onnx(folder / "packed.onnx", folder / "back.onnx")
    back, wanted_weights = dense_initializers(load_model(folder / "back.onnx")), dense_initializers(prepared(densified(dense))[0])
    assert {name: array.tobytes() for name, array in back.items()} == {
        name: array.tobytes() for name, array in wanted_weights.items()
    }
    return report


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_torch_exporters(tmp_path: Path, run_model: Callable, name: str, dynamo: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "resnet":
            model = cut(torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10))
        else:
            model = cut(torchvision.models.MobileNetV2(num_classes=10, width_mult=0.5))
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (image,), path, dynamo=dynamo, external_data=False, verbose=False)
    report = same(path, run_model, image.numpy())
    assert b"stack_trace" not in (tmp_path / "packed.onnx").read_bytes()
    assert report.negative_zeros > 0  # a mask that multiplies leaves them behind
    assert report.file_bytes < 1.15 * report.bound_bytes


@pytest.mark.parametrize("dynamo", [False, True])
def test_recurrent_layers(tmp_path: Path, run_model: Callable, dynamo: bool) -> None:
    """W, R and B of LSTM and GRU have three axes; their first states are zeros, in older exporters behind an Expand."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.gru = nn.LSTM(24, 32, batch_first=True), nn.GRU(32, 16, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gru(self.lstm(x)[0])[0]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = cut(Recurrent())
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), tmp_path / "m.onnx", dynamo=dynamo, external_data=False, verbose=False)
    operators = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert {"LSTM", "GRU"} <= operators
    report = same(tmp_path / "m.onnx", run_model, x.numpy())
    assert {"gap8", "gap4", "step4"} & set(report.encodings)


class Encoder(nn.Module):
    """Two layers of a transformer encoder, the mean over tokens, a head."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x).mean(1))


def encoder() -> tuple[nn.Module, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return cut(Encoder()), torch.randn(2, 7, 32)


def operators_run(model: onnx.ModelProto) -> Counter[str]:
    found = optimised(model)
    assert found is not None
    return found.operators


@pytest.mark.parametrize("values", ["float32", "float16"])
def test_a_transformer_keeps_its_fusions(tmp_path: Path, run_model: Callable, optimised_graph: Callable, values: str) -> None:
    """onnxruntime fuses Add + LayerNormalization only where it knows the shapes of what is added."""
    model, x = encoder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            model, (x,), tmp_path / "m.onnx", dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False
        )
    if values == "float32":
        same(tmp_path / "m.onnx", run_model, x.numpy())
    else:
        pack_onnx(tmp_path / "m.onnx", tmp_path / "packed.onnx", values="float16")
    dense, packed = load_model(tmp_path / "m.onnx"), load_model(tmp_path / "packed.onnx")
    assert operators_run(dense)["SkipLayerNormalization"] == 4
    assert operators_run(packed) == operators_run(dense)
    if values == "float32":
        assert optimised_graph(packed, "all") == optimised_graph(prepared(dense)[0], "all")  # -0.0 is +0.0 there


def test_the_projects_own_export_keeps_them_too(tmp_path: Path) -> None:
    """A dense file without its fusions would be a slow baseline."""
    model, x = encoder()
    export_onnx(model, x, tmp_path / "dense.onnx")
    pack_onnx(tmp_path / "dense.onnx", tmp_path / "packed.onnx")
    assert operators_run(load_model(tmp_path / "dense.onnx"))["SkipLayerNormalization"] == 4
    dense = prepared(load_model(tmp_path / "dense.onnx"))[0]
    assert optimised_differently(dense, load_model(tmp_path / "packed.onnx")) == ""


def test_what_exporters_note_about_themselves_goes(tmp_path: Path, run_model: Callable) -> None:
    """torch writes metadata to graphs, values, nodes and branches; what the user wrote stays."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: self.left(x), lambda x: self.right(x), (x,))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = cut(Branches())
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), tmp_path / "m.onnx", dynamo=True, external_data=False, verbose=False)
    source = onnx.load(tmp_path / "m.onnx")
    set_metadata(source, {"classes": "ten", "pkg.torch.export.signature": "torch's own"})
    onnx.save(source, tmp_path / "m.onnx")
    assert b"pkg.torch" in source.SerializeToString()
    same(tmp_path / "m.onnx", run_model, x.numpy())
    packed = load_model(tmp_path / "packed.onnx")
    assert get_metadata(packed) == {"classes": "ten"}
    packed.ClearField("metadata_props")
    assert b"pkg." not in packed.SerializeToString()
    assert b"test_onnxfile_exporters" not in packed.SerializeToString()


def save(
    path: Path, nodes: list[onnx.NodeProto], inputs: dict, weights: dict, rank: int, *, opset: int = 17, **saving: object
) -> None:
    values = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, list("abcd"[:rank]))
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", values, [output], initializers)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path, **saving)


def test_transformer_block(tmp_path: Path, run_model: Callable) -> None:
    """MatMul by W, and by the transpose of W; Gemm with and without transB; one weight read twice."""
    random = np.random.default_rng(0)
    weights = {name: sparse(random, 64, 64) for name in ("q", "k", "v", "up")} | {
        "bias": random.standard_normal(64).astype(np.float32),
        "flat": np.array([-1, 64], np.int64),
    }
    nodes = [
        helper.make_node("MatMul", ["input", "q"], ["queries"]),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[1, 0]),
        helper.make_node("MatMul", ["input", "kt"], ["keys"]),
        helper.make_node("Transpose", ["keys"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["queries", "columns"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["input", "v"], ["values"]),
        helper.make_node("MatMul", ["shares", "values"], ["mixed"]),
        helper.make_node("Reshape", ["mixed", "flat"], ["rows"]),
        helper.make_node("Gemm", ["rows", "up", "bias"], ["wide"], transB=1),
        helper.make_node("Relu", ["wide"], ["active"]),
        helper.make_node("Gemm", ["active", "up"], ["output"]),
    ]
    save(tmp_path / "m.onnx", nodes, {"input": (TensorProto.FLOAT, [2, 5, 64])}, weights, rank=2)
    report = same(tmp_path / "m.onnx", run_model, random.standard_normal((2, 5, 64)).astype(np.float32))
    assert sum(count for name, count in report.encodings.items() if name != "dense") == 4


@pytest.mark.parametrize("condition", [True, False])
def test_convolution_in_a_branch(tmp_path: Path, run_model: Callable, condition: bool) -> None:
    random = np.random.default_rng(0)

    def branch(name: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, list("abcd"))
        weight = numpy_helper.from_array(sparse(random, 32, 8, 3, 3), "weight")
        return helper.make_graph([helper.make_node("Conv", ["input", "weight"], [f"{name}_y"])], name, [], [output], [weight])

    node = helper.make_node("If", ["condition"], ["output"], then_branch=branch("yes"), else_branch=branch("no"))
    inputs = {"condition": (TensorProto.BOOL, []), "input": (TensorProto.FLOAT, [1, 8, 6, 6])}
    save(tmp_path / "m.onnx", [node], inputs, {}, rank=4)
    image = random.standard_normal((1, 8, 6, 6)).astype(np.float32)
    report = same(tmp_path / "m.onnx", run_model, np.array(condition), image)
    assert all(tensor.encoding != "dense" for tensor in report.tensors)


def test_opset_11_convolutions(tmp_path: Path, run_model: Callable) -> None:
    """Clip, Squeeze, Pad: what changed between opsets 11 and 13 and mobile networks use."""
    random = np.random.default_rng(0)
    weights = {
        "w": sparse(random, 32, 8, 3, 3),
        "dw": sparse(random, 32, 1, 3, 3, zeros=0.5),
        "low": np.float32(0),
        "high": np.float32(6),
    }
    weights = {name: np.asarray(array) for name, array in weights.items()}
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["a", "low", "high"], ["b"]),
        helper.make_node("Conv", ["b", "dw"], ["c"], group=32),
        helper.make_node("ReduceMean", ["c"], ["d"], axes=[2, 3], keepdims=1),
        helper.make_node("Squeeze", ["d"], ["e"], axes=[2, 3]),
        helper.make_node("Softmax", ["e"], ["output"], axis=1),
    ]
    save(tmp_path / "m.onnx", nodes, {"input": (TensorProto.FLOAT, [2, 8, 8, 8])}, weights, rank=2, opset=11)
    report = same(tmp_path / "m.onnx", run_model, random.standard_normal((2, 8, 8, 8)).astype(np.float32))
    assert next(tensor for tensor in report.tensors if tensor.name == "w").encoding != "dense"


def test_external_data(tmp_path: Path, run_model: Callable) -> None:
    random = np.random.default_rng(0)
    weights = {"a": sparse(random, 64, 96), "b": sparse(random, 96, 32)}
    nodes = [helper.make_node("MatMul", ["input", "a"], ["x"]), helper.make_node("MatMul", ["x", "b"], ["output"])]
    values = {"input": (TensorProto.FLOAT, ["batch", 64])}
    save(tmp_path / "m.onnx", nodes, values, weights, rank=2, save_as_external_data=True, location="m.data", size_threshold=0)
    same(tmp_path / "m.onnx", run_model, random.standard_normal((3, 64)).astype(np.float32), external_data=True)
    (tmp_path / "m.data").unlink()  # the packed file stands alone
    assert set(dense_initializers(load_model(tmp_path / "packed.onnx"))) == {"a", "b"}
