"""Models written with onnx.helper, and onnxruntime's optimised graph in a form that can be compared."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from weights import dense_initializers

LEVELS = {
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "layout": ort.GraphOptimizationLevel.ORT_ENABLE_LAYOUT,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class Network:
    """Collects nodes and initializers; every method returns the name of its output."""

    def __init__(self, seed: int, sparsity: float) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)
        self.sparsity = sparsity

    def weight(self, name: str, array: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def op(self, operator: str, inputs: Sequence[str], **attributes: object) -> str:
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"node_{output}", **attributes))
        return output

    def pruned(self, shape: tuple[int, ...]) -> np.ndarray:
        """He-scaled weights, the same number of zeros in every filter (first axis), floored."""
        fan_in = int(np.prod(shape[1:]))
        weights = (self.random.standard_normal((shape[0], fan_in)) * np.sqrt(2 / fan_in)).astype(np.float32)
        gone = int(self.sparsity * fan_in + 1e-9)
        smallest = np.argsort(np.abs(weights), axis=1)[:, :gone]
        np.put_along_axis(weights, smallest, np.float32(0), axis=1)
        return weights.reshape(shape)

    def conv(self, x: str, name: str, shape: tuple[int, ...], stride: int = 1, prune: bool = True) -> str:
        kept, self.sparsity = self.sparsity, self.sparsity if prune else 0.0
        weight = self.weight(f"{name}.weight", self.pruned(shape))
        self.sparsity = kept
        pad = shape[-1] // 2
        return self.op("Conv", [x, weight], kernel_shape=shape[2:], pads=[pad] * 4, strides=[stride] * 2)

    def norm_relu(self, x: str, name: str, channels: int) -> str:
        vectors = {
            "weight": 0.5 + self.random.random(channels),
            "bias": self.random.standard_normal(channels),
            "running_mean": self.random.standard_normal(channels),
            "running_var": 0.5 + self.random.random(channels),
        }
        inputs = [x] + [self.weight(f"{name}.{key}", value.astype(np.float32)) for key, value in vectors.items()]
        return self.op("Relu", [self.op("BatchNormalization", inputs, epsilon=1e-3)])

    def model(self, output: str, shape: Sequence[int], classes: int, opset: int = 20) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "output"
        assert output != "output"
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", classes])],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        onnx.checker.check_model(model)
        return model


def resnet32(sparsity: float, seed: int = 0, opset: int = 20) -> onnx.ModelProto:
    """The pre-activation ResNet-32 for CIFAR: 1,849,344 prunable weights in 33 convolutions."""
    net = Network(seed, sparsity)
    x, channels = net.conv("input", "stem", (16, 3, 7, 7), prune=False), 16
    for stage, (width, first_stride) in enumerate([(32, 1), (64, 2), (128, 2)]):
        for unit in range(5):
            name, stride = f"stage{stage}.unit{unit}", first_stride if unit == 0 else 1
            active = net.norm_relu(x, f"{name}.norm1", channels)
            shortcut = net.conv(active, f"{name}.shortcut", (width, channels, 1, 1), stride) if unit == 0 else x
            inner = net.conv(active, f"{name}.conv1", (width, channels, 3, 3), stride)
            inner = net.norm_relu(inner, f"{name}.norm2", width)
            inner = net.conv(inner, f"{name}.conv2", (width, width, 3, 3))
            x, channels = net.op("Add", [inner, shortcut]), width
    x = net.op("Flatten", [net.op("GlobalAveragePool", [net.norm_relu(x, "norm", channels)])])
    head = net.weight("head.weight", net.random.standard_normal((10, channels)).astype(np.float32) / 10)
    bias = net.weight("head.bias", net.random.standard_normal(10).astype(np.float32))
    return net.model(net.op("Gemm", [x, head, bias], transB=1), (3, 32, 32), 10, opset)


def small_net(sparsity: float = 0.8, seed: int = 0, opset: int = 20) -> onnx.ModelProto:
    """Conv-BatchNorm-ReLU twice and a head, for 3x8x8 images: BatchNorms that fold into convolutions."""
    net = Network(seed, sparsity)
    x = net.norm_relu(net.conv("input", "conv1", (16, 3, 3, 3)), "norm1", 16)
    x = net.norm_relu(net.conv(x, "conv2", (32, 16, 3, 3)), "norm2", 32)
    x = net.op("Flatten", [net.op("GlobalAveragePool", [x])])
    head = net.weight("head.weight", net.pruned((10, 32)))
    bias = net.weight("head.bias", net.random.standard_normal(10).astype(np.float32))
    return net.model(net.op("Gemm", [x, head, bias], transB=1), (3, 8, 8), 10, opset)


def optimised(model: onnx.ModelProto, level: str, folder: Path) -> list[tuple[object, ...]]:
    """What onnxruntime runs: per node its operator, attributes, where each input comes from (weights by content)."""
    path = folder / "optimised.onnx"
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(path).graph
    source: dict[str, object] = {"": "absent"} | {value.name: value.name for value in graph.input}
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for sparse in graph.sparse_initializer:  # dense in memory; written as it came
        values = numpy_helper.to_array(sparse.values)
        dense = np.zeros(int(np.prod(sparse.dims)), values.dtype)
        dense[numpy_helper.to_array(sparse.indices)] = values
        weights[sparse.values.name] = dense.reshape(tuple(sparse.dims))
    for name, array in weights.items():
        source[name] = (array.shape, array.dtype.str, hashlib.sha256(array.tobytes()).hexdigest())
    nodes: list[tuple[object, ...]] = []
    for number, node in enumerate(graph.node):
        attributes = sorted(attribute.SerializeToString() for attribute in node.attribute)
        nodes.append((node.domain, node.op_type, attributes, [source[name] for name in node.input]))
        source.update({name: (number, place) for place, name in enumerate(node.output)})
    nodes.append(("outputs", [source[value.name] for value in graph.output]))
    return nodes


def outputs(model: onnx.ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {value.name: array for value, array in zip(session.get_inputs(), inputs, strict=True)})


@pytest.fixture(scope="session")
def make_resnet32() -> Callable[..., onnx.ModelProto]:
    return resnet32


@pytest.fixture(scope="session")
def make_small_net() -> Callable[..., onnx.ModelProto]:
    return small_net


@pytest.fixture(scope="session")
def edits() -> Callable[[onnx.ModelProto], Iterator[onnx.ModelProto]]:
    return edited_decoders


def edited_decoders(packed: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """The model with one node of its decoders as another operator, and without it, for each of them."""
    for place, node in enumerate(packed.graph.node):
        if any(name.startswith("tdc1.") for name in node.input):
            changed, lacking = onnx.ModelProto(), onnx.ModelProto()
            changed.CopyFrom(packed)
            changed.graph.node[place].op_type = "Neg"
            lacking.CopyFrom(packed)
            del lacking.graph.node[place]
            yield from (changed, lacking)


@pytest.fixture(scope="session")
def run_model() -> Callable[..., list[np.ndarray]]:
    return outputs


@pytest.fixture
def optimised_graph(tmp_path: Path) -> Callable[[onnx.ModelProto, str], list[tuple[object, ...]]]:
    return lambda model, level: optimised(model, level, tmp_path)


@pytest.fixture(scope="session")
def arrays() -> Callable[[onnx.ModelProto], dict[str, bytes]]:
    """The bytes of every weight, by name, decoded where it is packed."""
    return lambda model: {name: array.tobytes() for name, array in dense_initializers(model).items()}
