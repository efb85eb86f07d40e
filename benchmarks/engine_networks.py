"""Networks with random weights, pruned per filter, as ONNX files: what engine_latency.py times and the engine's tests run.

Latency does not depend on the values of the weights that stay, only on where the zeros are, so no training is needed here.
The networks are those of the papers: ResNet-32 (pre-activation, 1,857,498 parameters), LeNet-5 for CIFAR-10, VGG-16
for CIFAR-100.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 18


class Builder:
    """Collects nodes and initializers; every method returns the name of its output."""

    def __init__(self, seed: int, zeros: float) -> None:
        self.random = np.random.default_rng(seed)
        self.zeros = zeros
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, array: NDArray[np.generic]) -> str:
        """An initializer; its name."""
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        """A node with one output; its name."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"{op.lower()}_{len(self.nodes)}", **attributes))
        return name

    def weight(self, shape: tuple[int, ...], prune: bool = True) -> NDArray[np.float32]:
        """He-scaled random weights (O, ...); the smallest floor(zeros * fan_in) of every filter are zero."""
        fan_in = math.prod(shape[1:])
        rows = self.random.standard_normal((shape[0], fan_in)).astype(np.float32) * np.float32(math.sqrt(2 / fan_in))
        if prune:
            smallest = np.argsort(np.abs(rows), axis=1, kind="stable")[:, : int(round(self.zeros * fan_in, 9))]
            np.put_along_axis(rows, smallest, 0, axis=1)
        return rows.reshape(shape)

    def conv(self, x: str, shape: tuple[int, ...], stride: int = 1, pad: int = 0, bias: bool = False, prune: bool = True) -> str:
        """A convolution with weights of `shape` (O, I, kernel, kernel)."""
        inputs = [x, self.constant(self.weight(shape, prune))]
        if bias:
            inputs.append(self.constant(self.random.standard_normal(shape[0]).astype(np.float32) * np.float32(0.1)))
        return self.node("Conv", *inputs, kernel_shape=shape[2:], strides=[stride, stride], pads=[pad] * 4)

    def batch_norm(self, x: str, channels: int) -> str:
        """Batch normalisation with random statistics."""
        draw = self.random.uniform
        parameters = [draw(0.5, 1.5, channels), draw(-0.2, 0.2, channels), draw(-0.2, 0.2, channels), draw(0.5, 1.5, channels)]
        return self.node("BatchNormalization", x, *(self.constant(p.astype(np.float32)) for p in parameters), epsilon=1e-3)

    def gemm(self, x: str, shape: tuple[int, int], prune: bool = True) -> str:
        """A fully connected layer with weights of `shape` (outputs, features)."""
        bias = self.random.standard_normal(shape[0]).astype(np.float32) * np.float32(0.1)
        return self.node("Gemm", x, self.constant(self.weight(shape, prune)), self.constant(bias), transB=1)

    def model(self, output: str, input_shape: tuple[int, ...], outputs: int) -> bytes:
        """The finished file: `output` becomes "logits"."""
        self.nodes[-1].output[0] = "logits"
        assert output == f"t{len(self.nodes) - 1}"
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *input_shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", outputs])],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model)
        return model.SerializeToString()


def resnet32(zeros: float = 0.0, inner: float = 1.0, seed: int = 0) -> bytes:
    """Pre-activation ResNet-32 for 3x32x32 images.

    Args:
        zeros: share of zeros in every filter but the stem's and the head's.
        inner: share of the channels kept inside each residual unit (unit-shrunk networks).
        seed: of the weights.
    """
    b = Builder(seed, zeros)
    x = b.conv("input", (16, 3, 7, 7), pad=3, prune=False)
    channels = 16
    for stage, width in enumerate((32, 64, 128)):
        for unit in range(5):
            stride = 2 if stage > 0 and unit == 0 else 1
            hidden = max(1, round(width * inner))
            active = b.node("Relu", b.batch_norm(x, channels))
            shortcut = b.conv(active, (width, channels, 1, 1), stride=stride) if unit == 0 else x
            y = b.conv(active, (hidden, channels, 3, 3), stride=stride, pad=1)
            y = b.node("Relu", b.batch_norm(y, hidden))
            y = b.conv(y, (width, hidden, 3, 3), pad=1)
            x = b.node("Add", y, shortcut)
            channels = width
    x = b.node("Relu", b.batch_norm(x, channels))
    x = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b.model(b.gemm(x, (10, 128), prune=False), (3, 32, 32), 10)


def lenet5(zeros: float = 0.0, seed: int = 0) -> bytes:
    """LeNet-5 for 3x32x32 images: conv 5x5x6, pool, conv 5x5x16, pool, dense 500, dense 10."""
    b = Builder(seed, zeros)
    x = b.node("Relu", b.conv("input", (6, 3, 5, 5), bias=True))
    x = b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = b.node("Relu", b.conv(x, (16, 6, 5, 5), bias=True))
    x = b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = b.node("Relu", b.gemm(b.node("Flatten", x), (500, 400)))
    return b.model(b.gemm(x, (10, 500), prune=False), (3, 32, 32), 10)


def vgg16(zeros: float = 0.0, seed: int = 0) -> bytes:
    """VGG-16 for 3x32x32 images and 100 classes: 13 convolutions, dense 4096, dense 4096, logits."""
    b = Builder(seed, zeros)
    x, channels = "input", 3
    for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            x = b.node("Relu", b.batch_norm(b.conv(x, (width, channels, 3, 3), pad=1, bias=True), width))
            channels = width
        x = b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = b.gemm(b.node("Flatten", x), (4096, 512))
    x = b.gemm(b.batch_norm(x, 4096), (4096, 4096))
    return b.model(b.gemm(b.batch_norm(x, 4096), (100, 4096), prune=False), (3, 32, 32), 100)


NETWORKS = {"resnet32": resnet32, "lenet5": lenet5, "vgg16": vgg16}
