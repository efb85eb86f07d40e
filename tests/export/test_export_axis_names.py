"""Inputs whose axes have lengths of their own, and those that the network wants equal."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.errors import UnsupportedError
from tdcompress.export.axis_names import own_axes, share_names


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Of one sequence to another."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        queries = self.q(a).view(a.shape[0], a.shape[1], 2, 4).transpose(1, 2)
        keys = self.k(b).view(b.shape[0], b.shape[1], 2, 4).transpose(1, 2)
        return ((queries @ keys.mT).softmax(-1) @ keys).transpose(1, 2).reshape(a.shape[0], a.shape[1], 8)


class Rows(nn.Module):
    """Of a sum."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        y = a + b
        return y.reshape(y.shape[0] * y.shape[1], y.shape[2])


class Mean(nn.Module):
    """Of a sum, by its own length: (B, T, 8) and (B, 1, 8) have one too, and a file that reads it from the latter is wrong."""

    def __init__(self, *, equal: bool = False) -> None:
        super().__init__()
        self.equal = equal

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        if self.equal:
            torch._check(tokens.shape[1] == context.shape[1])
        y = tokens + context
        return y.sum(1) / y.shape[1]


class Swapped(Mean):
    """Another input comes first."""

    def forward(self, context: Tensor, tokens: Tensor) -> Tensor:
        return super().forward(tokens, context)


class Branch(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat((a, b), 1) if a.shape[1] == b.shape[1] else a


class Product(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b


def dims(path: Path) -> list[list[str | int]]:
    inputs = onnx.load(path).graph.input
    return [[dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in inputs]


def run(path: Path, *inputs: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {entry.name: item.numpy() for entry, item in zip(session.get_inputs(), inputs, strict=True)}
    return np.asarray(session.run(None, feed)[0])


def test_a_length_has_the_name_of_its_input_where_several_have_the_axis() -> None:
    assert own_axes(["a", "b", "mask"], [3, 2, 0], (0, 1, 2)) == [
        {0: "batch", 1: "a_axis_1", 2: "axis_2"},
        {0: "batch", 1: "b_axis_1"},
        {},
    ]
    assert own_axes(["input"], [4], (0, 2, 3)) == [{0: "batch", 2: "axis_2", 3: "axis_3"}]


def test_a_length_that_all_inputs_share_has_the_name_of_the_axis() -> None:
    model = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["" : 17]>
        g (float[batch, a_axis_1, c_axis_2] a, float[batch, a_axis_1, b_axis_2] b) => (float[batch, n] y)
        <float[batch, a_axis_1, m] p> { p = Concat<axis = 2>(a, b) y = Flatten(p) }""")
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "a_axis_1*(b_axis_2 + c_axis_2)"
    share_names(model, ["a", "b", "c"])
    graph = model.graph
    found = [
        [dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in (*graph.input, *graph.value_info, *graph.output)
    ]
    assert found == [
        ["batch", "axis_1", "c_axis_2"],
        ["batch", "axis_1", "b_axis_2"],
        ["batch", "axis_1", "m"],
        ["batch", "axis_1*(b_axis_2 + c_axis_2)"],
    ]


@pytest.mark.parametrize("keys", [5, 7])
def test_a_file_takes_unequal_lengths_where_the_network_does(keys: int, tmp_path: Path) -> None:
    network, path = Attention(), tmp_path / "m.onnx"
    tdc.export_onnx(network, (random(2, 5, 8), random(2, keys, 8)), path, free_axes=(0, 1))
    assert dims(path) == [["batch", "input_0_axis_1", 8], ["batch", "input_1_axis_1", 8]]
    for shapes in (((1, 3, 8), (1, 9, 8)), ((3, 6, 8), (3, 2, 8)), ((1, 1, 8), (1, 1, 8))):
        inputs = [random(*shape) for shape in shapes]
        with torch.inference_mode():
            expected = network(*inputs).numpy()
        np.testing.assert_allclose(run(path, *inputs), expected, atol=1e-6)


@pytest.mark.parametrize("length", [2, 5])
def test_lengths_that_the_network_wants_equal_have_one_name(length: int, tmp_path: Path) -> None:
    """Beside 2 is 1, which torch repeats and the file's Reshape does not: its one name says that there is no such pair."""
    path = tmp_path / "m.onnx"
    tdc.export_onnx(Rows(), (random(2, length, 4), random(2, length, 4)), path, free_axes=(0, 1))
    assert dims(path) == [["batch", "axis_1", 4], ["batch", "axis_1", 4]]
    x = random(3, 7, 4)
    np.testing.assert_array_equal(run(path, x, x), (2 * x).reshape(21, 4).numpy())


@pytest.mark.parametrize("network", [Mean(), Swapped()])
def test_a_length_that_torch_repeats_is_refused_where_the_file_is_wrong_there(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r" alone .*`y = tokens \+ context`.*outputs differ by .* let forward refuse such"):
        tdc.export_onnx(network, (random(2, 5, 8), random(2, 5, 8)), tmp_path / "m.onnx", free_axes=(0, 1))
    assert not list(tmp_path.iterdir())


def test_what_the_network_itself_refuses_is_no_reason_to(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    tdc.export_onnx(Mean(equal=True), (random(2, 5, 8), random(2, 5, 8)), path, free_axes=(0, 1))
    assert dims(path) == [["batch", "axis_1", 8], ["batch", "axis_1", 8]]
    x = random(3, 7, 8)
    np.testing.assert_allclose(run(path, x, x), (2 * x).mean(1).numpy(), atol=1e-6)


def test_a_length_on_two_axes_has_the_name_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    tdc.export_onnx(Product(), (random(2, 4, 6), random(2, 6, 3)), path, free_axes=(0, 1, 2))
    assert dims(path) == [
        ["batch", "input_0_axis_1", "input_0_axis_2"],
        ["batch", "input_0_axis_2", "input_1_axis_2"],
    ]


@pytest.mark.parametrize(
    ("length", "said", "shapes"),
    [
        (5, "input_1_axis_1 == input_0_axis_1", "(2, 4, 8), (2, 5, 8): outputs have shape (2, 9, 8), expected (2, 4, 8)"),
        (7, "input_0_axis_1 != input_1_axis_1", "(2, 2, 8), (2, 2, 8): outputs have shape (2, 2, 8), expected (2, 4, 8)"),
    ],
)
def test_a_branch_on_two_lengths_is_refused(length: int, said: str, shapes: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as refused:
        tdc.export_onnx(Branch(), (random(2, 5, 8), random(2, length, 8)), tmp_path / "m.onnx", free_axes=(0, 1))
    assert f": the file would be right where {said} alone (test_export_axis_names.py, line " in str(refused.value)
    assert f"`); the file at shape {shapes}; " in str(refused.value)
    assert not list(tmp_path.iterdir())
