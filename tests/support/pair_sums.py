"""An integer model of x86's 8-bit sums: what a quantised file gives where two products are added in 16 bits.

``vpmaddubsw`` multiplies uint8 activations by int8 weights and adds neighbours into an int16 that saturates; ``vpmaddwd`` adds
these into 32 bits. Neighbours lie along the axis that is summed over, in NHWC order for a convolution. The same network with
sums in 32 bits is the model of VNNI and of ARM.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from tdcompress.onnxfile.weights import densified

DOMAIN = "test.pair_sums"
LAYERS = ("Conv", "Gemm", "MatMul")


def pair_sums(activations: np.ndarray, weights: np.ndarray, *, saturate: bool) -> np.ndarray:
    """Activations uint8 (M, K) times weights int8 (K, N) as int32, with sums of neighbours cut to int16 if asked."""
    even = activations.shape[1] % 2
    a = np.pad(activations, ((0, 0), (0, even))).astype(np.int32)
    w = np.pad(weights, ((0, even), (0, 0))).astype(np.int32)
    if not saturate:
        return a @ w
    total = np.zeros((len(a), w.shape[1]), np.int32)
    for k in range(0, a.shape[1], 2):
        total += np.clip(a[:, k : k + 2] @ w[k : k + 2], -(2**15), 2**15 - 1)
    return total


def _product(x: np.ndarray, x_zero: np.ndarray, w: np.ndarray, w_zero: np.ndarray, saturate: bool) -> np.ndarray:
    """(M, K) times (K, N) of quantised values, zero points taken off afterwards, as kernels do."""
    assert x.dtype == np.uint8
    assert w.dtype == np.int8
    assert not np.any(w_zero)
    return pair_sums(x, w, saturate=saturate) - int(x_zero) * w.astype(np.int32).sum(axis=0)


def _patches(x_NCHW: np.ndarray, w_shape: tuple[int, ...], fill: int, pads: list[int], strides: list[int]) -> np.ndarray:
    """Patches (N, OH, OW, KH * KW * C) of a padded input."""
    (top, left, bottom, right), (kh, kw) = pads, w_shape[2:]
    padded = np.pad(x_NCHW, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(2, 3))[:, :, :: strides[0], :: strides[1]]
    n, c, oh, ow = windows.shape[:4]
    return windows.transpose(0, 2, 3, 4, 5, 1).reshape(n, oh, ow, kh * kw * c)


def _layer(kind: str, saturate: bool) -> type[OpRun]:
    """An operator on quantised inputs that gives what the float operator behind DequantizeLinear would, by integer sums."""

    def conv(x, x_scale, x_zero, w, w_scale, w_zero, bias=None, *, pads, strides, dilations, group, kernel_shape):
        assert group == 1
        assert set(dilations or [1]) == {1}
        patches = _patches(x, w.shape, int(x_zero), pads or [0] * 4, strides or [1, 1])
        flat = w.transpose(2, 3, 1, 0).reshape(-1, w.shape[0])
        sums = _product(patches.reshape(-1, patches.shape[-1]), x_zero, flat, w_zero, saturate)
        y = (sums.astype(np.float64) * (float(x_scale) * w_scale)).reshape(*patches.shape[:3], -1).transpose(0, 3, 1, 2)
        return y if bias is None else y + bias[:, None, None]

    def gemm(x, x_scale, x_zero, w, w_scale, w_zero, bias=None, *, transB=0, transA=0, alpha=1.0, beta=1.0):
        assert (transA, alpha, beta) == (0, 1.0, 1.0)
        w = w.T if transB else w
        y = _product(x, x_zero, w, w_zero, saturate).astype(np.float64) * (float(x_scale) * w_scale)
        return y if bias is None else y + bias

    class Layer(OpRun):
        op_domain = DOMAIN

        def _run(self, *inputs: np.ndarray, **attributes: object) -> tuple[np.ndarray]:
            known = (
                ("pads", "strides", "dilations", "group", "kernel_shape")
                if kind == "Conv"
                else ("transB", "transA", "alpha", "beta")
            )
            given = {a.name: helper.get_attribute_value(a) for a in self.onnx_node.attribute if a.name in known}
            if kind == "Conv":
                given = dict.fromkeys(known) | {"group": 1} | given
            return ((conv if kind == "Conv" else gemm)(*inputs, **given).astype(np.float32),)

    Layer.__name__ = kind
    return Layer


def integer_layers(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The file with each layer between quantised inputs as one integer operator, and how many there are."""
    model = densified(model)
    made_by = {output: node for node in model.graph.node for output in node.output}
    count = 0
    for node in model.graph.node:
        if node.op_type in LAYERS and all(_dequantised(made_by, name) for name in node.input[:2]):
            x, w = (made_by[name] for name in node.input[:2])
            bias = list(node.input[2:])
            node.domain = DOMAIN
            node.ClearField("input")
            node.input.extend([*x.input, *w.input, *bias])
            count += 1
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model, count


def _dequantised(made_by: dict[str, onnx.NodeProto], name: str) -> bool:
    return name in made_by and made_by[name].op_type == "DequantizeLinear"


def evaluate(model: onnx.ModelProto, inputs: np.ndarray, *, saturate: bool) -> np.ndarray:
    """The first output of a quantised file with integer sums."""
    replaced, count = integer_layers(model)
    assert count, "no quantised layer was found"
    evaluator = ReferenceEvaluator(replaced, new_ops=[_layer(kind, saturate) for kind in LAYERS])
    return evaluator.run(None, {replaced.graph.input[0].name: inputs})[0]


def check_portable(model: onnx.ModelProto, inputs: np.ndarray) -> np.ndarray:
    """Assert that saturating sums change nothing, bit for bit, and return the outputs."""
    exact = evaluate(model, inputs, saturate=False)
    assert evaluate(model, inputs, saturate=True).tobytes() == exact.tobytes()
    return exact


def int8_matrices(model: onnx.ModelProto) -> Iterator[np.ndarray]:
    """Weights of at least two axes that are int8."""
    for tensor in densified(model).graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1:
            yield numpy_helper.to_array(tensor)
