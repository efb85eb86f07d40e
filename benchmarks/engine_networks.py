"""Networks with random weights, pruned per filter, as ONNX files: what engine_latency.py times and the engine's tests run.

Latency does not depend on the values of the weights that stay, only on where the zeros are, so no training is needed here.
The networks are those of the papers: ResNet-32 (pre-activation, 1,857,498 parameters), LeNet-5 for CIFAR-10, VGG-16
for CIFAR-100. Beside them stand networks that users have: MobileNetV2, ResNet-50 and the layers of a Transformer's encoder.

    python benchmarks/engine_networks.py FOLDER resnet32@0.9 ...      # writes FOLDER/resnet32@0.9.onnx, ...
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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

    def conv(
        self,
        x: str,
        shape: tuple[int, ...],
        stride: int = 1,
        pad: int = 0,
        bias: bool = False,
        prune: bool = True,
        group: int = 1,
    ) -> str:
        """A convolution with weights of `shape` (O, I / group, kernel, kernel)."""
        inputs = [x, self.constant(self.weight(shape, prune))]
        if bias:
            inputs.append(self.constant(self.random.standard_normal(shape[0]).astype(np.float32) * np.float32(0.1)))
        return self.node("Conv", *inputs, kernel_shape=shape[2:], strides=[stride, stride], pads=[pad] * 4, group=group)

    def batch_norm(self, x: str, channels: int) -> str:
        """Batch normalisation with random statistics."""
        draw = self.random.uniform
        parameters = [draw(0.5, 1.5, channels), draw(-0.2, 0.2, channels), draw(-0.2, 0.2, channels), draw(0.5, 1.5, channels)]
        return self.node("BatchNormalization", x, *(self.constant(p.astype(np.float32)) for p in parameters), epsilon=1e-3)

    def gemm(self, x: str, shape: tuple[int, int], prune: bool = True) -> str:
        """A fully connected layer with weights of `shape` (outputs, features)."""
        bias = self.random.standard_normal(shape[0]).astype(np.float32) * np.float32(0.1)
        return self.node("Gemm", x, self.constant(self.weight(shape, prune)), self.constant(bias), transB=1)

    def projection(self, x: str, shape: tuple[int, int], prune: bool = True) -> str:
        """A fully connected layer on every token: MatMul with weights of `shape` (outputs, features), and a bias."""
        bias = self.random.standard_normal(shape[0]).astype(np.float32) * np.float32(0.1)
        return self.node("Add", self.node("MatMul", x, self.constant(self.weight(shape, prune).T)), self.constant(bias))

    def model(self, output: str, input_shape: tuple[int, ...], *outputs: int) -> bytes:
        """The finished file: `output` becomes "logits", of shape (batch, *outputs)."""
        self.nodes[-1].output[0] = "logits"
        assert output == f"t{len(self.nodes) - 1}"
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *input_shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *outputs])],
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


def mobilenet_v2(zeros: float = 0.0, seed: int = 0) -> bytes:
    """MobileNetV2 for 3x224x224 images and 1000 classes; zeros are in the 1x1 convolutions, 2.1 of its 3.5 million weights."""
    b = Builder(seed, zeros)

    def block(x: str, shape: tuple[int, ...], stride: int = 1, group: int = 1, last: bool = False, prune: bool = True) -> str:
        x = b.conv(x, shape, stride, pad=shape[-1] // 2, prune=prune, group=group)
        x = b.batch_norm(x, shape[0])
        return x if last else b.node("Clip", x, least, most)

    least, most = (b.constant(np.array(limit, np.float32)) for limit in (0, 6))
    x, channels = block("input", (32, 3, 3, 3), 2, prune=False), 32
    for expansion, width, repeats, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for unit in range(repeats):
            stride, wide = first if unit == 0 else 1, channels * expansion
            y = block(x, (wide, channels, 1, 1)) if expansion > 1 else x
            y = block(y, (wide, 1, 3, 3), stride, group=wide, prune=False)
            y = block(y, (width, wide, 1, 1), last=True)
            x = b.node("Add", x, y) if stride == 1 and channels == width else y
            channels = width
    x = b.node("Flatten", b.node("GlobalAveragePool", block(x, (1280, channels, 1, 1))))
    return b.model(b.gemm(x, (1000, 1280), prune=False), (3, 224, 224), 1000)


def resnet50(zeros: float = 0.0, seed: int = 0) -> bytes:
    """ResNet-50 for 3x224x224 images and 1000 classes, strides in the 3x3 convolutions; all but stem and head are pruned."""
    b = Builder(seed, zeros)
    x = b.node("Relu", b.batch_norm(b.conv("input", (64, 3, 7, 7), 2, pad=3, prune=False), 64))
    x, channels = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    for stage, (width, repeats) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for unit in range(repeats):
            stride, wide = 2 if stage > 0 and unit == 0 else 1, 4 * width
            shortcut = b.batch_norm(b.conv(x, (wide, channels, 1, 1), stride), wide) if unit == 0 else x
            y = b.node("Relu", b.batch_norm(b.conv(x, (width, channels, 1, 1)), width))
            y = b.node("Relu", b.batch_norm(b.conv(y, (width, width, 3, 3), stride, pad=1), width))
            y = b.batch_norm(b.conv(y, (wide, width, 1, 1)), wide)
            x, channels = b.node("Relu", b.node("Add", y, shortcut)), wide
    x = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b.model(b.gemm(x, (1000, channels), prune=False), (3, 224, 224), 1000)


def transformer(width: int, hidden: int, heads: int, layers: int, tokens: int) -> Callable[..., bytes]:
    """Layers of a Transformer's encoder, normalised after each sum; pruned where the paper prunes: Q, K, V and the two of FFN.

    Args:
        width: of a token.
        hidden: of the feed-forward network.
        heads: of the attention.
        layers: how many.
        tokens: of a sentence.
    """

    def build(zeros: float = 0.0, seed: int = 0) -> bytes:
        b = Builder(seed, zeros)
        in_heads, whole = (b.constant(np.array(shape)) for shape in ((0, tokens, heads, width // heads), (0, tokens, width)))
        scale = b.constant(np.array(math.sqrt(heads / width), np.float32))

        def normalised(x: str) -> str:
            vectors = (b.random.uniform(0.5, 1.5, width), b.random.uniform(-0.2, 0.2, width))
            return b.node("LayerNormalization", x, *(b.constant(vector.astype(np.float32)) for vector in vectors))

        def split(x: str, axes: tuple[int, ...]) -> str:
            return b.node("Transpose", b.node("Reshape", b.projection(x, (width, width)), in_heads), perm=axes)

        x = "input"
        for _ in range(layers):
            query, value = split(x, (0, 2, 1, 3)), split(x, (0, 2, 1, 3))
            scores = b.node("MatMul", query, split(x, (0, 2, 3, 1)))
            mixed = b.node("MatMul", b.node("Softmax", b.node("Mul", scores, scale)), value)
            mixed = b.node("Reshape", b.node("Transpose", mixed, perm=(0, 2, 1, 3)), whole)
            x = normalised(b.node("Add", x, b.projection(mixed, (width, width), prune=False)))
            inner = b.node("Relu", b.projection(x, (hidden, width)))
            x = normalised(b.node("Add", x, b.projection(inner, (width, hidden))))
        return b.model(x, (tokens, width), tokens, width)

    return build


@dataclass(frozen=True, kw_only=True)
class Network:
    """What makes a network's file, from the share of zeros and a seed; and the shape of one input."""

    build: Callable[..., bytes]
    shape: tuple[int, ...]


NETWORKS = {
    "resnet32": Network(build=resnet32, shape=(3, 32, 32)),
    "lenet5": Network(build=lenet5, shape=(3, 32, 32)),
    "vgg16": Network(build=vgg16, shape=(3, 32, 32)),
    "mobilenet_v2": Network(build=mobilenet_v2, shape=(3, 224, 224)),
    "resnet50": Network(build=resnet50, shape=(3, 224, 224)),
    "transformer": Network(build=transformer(128, 512, 4, layers=3, tokens=32), shape=(32, 128)),
    "transformer_base": Network(build=transformer(512, 2048, 8, layers=6, tokens=32), shape=(32, 512)),
}
"""By the names that engine_latency.py takes. "transformer" is the encoder of pipelines/multi30k_transformer.toml without its
embedding, "transformer_base" that of Vaswani et al. (2017)."""


def main(folder: Path, cases: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        name, zeros = case.split("@")
        (folder / f"{case}.onnx").write_bytes(NETWORKS[name].build(float(zeros)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
