"""Which kernel runs a convolution: the rule's numbers by hand, blocks of real layers, and both kernels where the rule turns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper

from tdcompress.engine import explain
from tdcompress.engine.choose import ConvBlock, KernelChoice, choose_conv, conv_cost
from tdcompress.engine.compile import TARGETS, plan_model
from tdcompress.engine.lower import conv as lower_conv


def conv_of(weight: np.ndarray, **attributes: object) -> tuple[list, dict]:
    kernel = weight.shape[2:]
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[kernel[0] // 2, kernel[1] // 2] * 2, **attributes)
    return [node], {"w": weight}


@pytest.mark.parametrize(
    ("isa", "vectors", "most", "row_bytes", "cost"),
    [
        ("avx2", 4, 4, 28 << 10, 1.1),
        ("avx2", 4, 4, (28 << 10) + 1, 1.1 * 1.4),
        ("avx2", 3, 4, 28 << 10, 1.1 * 1.4),
        ("avx2", 1, 4, 96 << 10, 1.1 * 1.4 * 1.4),
        *((isa, 1, 4, 96 << 10, 1.5) for isa in TARGETS if isa != "avx2"),
        *((isa, 4, 4, 1 << 10, 1.5) for isa in TARGETS if isa != "avx2"),
    ],
)
def test_cost_of_a_block(isa, vectors, most, row_bytes, cost):
    assert conv_cost(isa, ConvBlock(vectors=vectors, most=most, row_bytes=row_bytes)) == pytest.approx(cost)


@pytest.mark.parametrize(
    ("zeros", "filters", "block", "cost", "kernel"),
    [
        # 64 filters of 100 weights, blocks of 4: all 6400 against (kept + 2 x 64) x cost
        (0, 64, 4, 1.0, "dense"),
        (128, 64, 4, 1.0, "dense"),
        (129, 64, 4, 1.0, "sparse"),
        (3328, 64, 4, 2.0, "dense"),
        (3329, 64, 4, 2.0, "sparse"),
        # blocks of 6: 66 filters are computed, 6600
        (0, 64, 6, 1.0, "sparse"),
        (0, 64, 6, 1.1, "dense"),
    ],
)
def test_the_fewer_multiplications_win(zeros, filters, block, cost, kernel):
    choice = choose_conv(weights=6400, zeros=zeros, filters=filters, groups=1, filter_block=block, cost=cost)
    assert choice.kernel == kernel
    assert choice.why.startswith(f"{zeros / 64:.1f} % zeros: ")


def block_of(monkeypatch: pytest.MonkeyPatch, data: bytes, isa: str) -> ConvBlock:
    """What the rule is asked about the only convolution of a model."""
    found: list[ConvBlock] = []

    def asked(name: str, block: ConvBlock) -> float:
        found.append(block)
        return conv_cost(name, block)

    monkeypatch.setattr(lower_conv, "conv_cost", asked)
    plan_model(data, TARGETS[isa], shapes=None, external_data=False)
    (block,) = found
    return block


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "vectors", "row_bytes"),
    [
        (32, 32, 3, 1, 4, 32 * (2 + 2) * 2 * 64),  # 2 rows of 2 vectors, and one above and below
        (64, 16, 3, 1, 4, 64 * (4 + 2) * 64),
        (128, 8, 3, 1, 4, 128 * (4 + 2) * 64),  # two rows a vector
        (512, 4, 3, 1, 1, 512 * (1 + 1) * 64),  # all in one vector; its only row slot is not read twice
        (256, 14, 1, 1, 4, 256 * 4 * 64),
        (64, 32, 3, 2, 4, 64 * 4 * (4 + 1) * 64),  # 4 phases of 16x16
        (64, 32, 1, 2, 4, 64 * 4 * 64),  # one of them is read
    ],
)
def test_blocks_of_real_layers(model, monkeypatch, channels, size, kernel, stride, vectors, row_bytes):
    weight = np.ones((2, channels, kernel, kernel), np.float32)
    nodes, constants = conv_of(weight, strides=[stride, stride])
    data = model(nodes, constants, {"x": ["b", channels, size, size]})
    assert block_of(monkeypatch, data, "avx2") == ConvBlock(vectors=vectors, most=4, row_bytes=row_bytes)


def kernel_of(model: Callable[..., bytes], filters: int, size: int, kept: float, isa: str) -> str:
    """Filters of 3x3, as many as channels, whose first weights are kept."""
    weight = np.zeros((filters, filters * 9), np.float32)
    weight[:, : round(kept * filters * 9)] = 1
    nodes, constants = conv_of(weight.reshape(filters, filters, 3, 3))
    data = model(nodes, constants, {"x": ["b", filters, size, size]})
    (layer,) = plan_model(data, TARGETS[isa], shapes=None, external_data=False).plan.records
    return layer.kernel


@pytest.mark.parametrize(
    ("filters", "size", "dense", "sparse"),
    [
        (16, 32, None, 1.0),
        (32, 16, None, 1.0),
        (64, 16, 1.0, 0.9),
        (64, 8, 1.0, 0.9),
        (64, 32, 0.75, 0.6),
        (128, 8, 0.75, 0.6),
        (64, 4, 0.75, 0.6),
    ],
)
def test_small_planes_become_sparse_sooner_with_avx2(model, filters, size, dense, sparse):
    """Shares of kept weights that were measured to be quicker in one kernel or the other (docs/engine.md)."""
    assert kernel_of(model, filters, size, sparse, "avx2") == "sparse"
    assert dense is None or kernel_of(model, filters, size, dense, "avx2") == "dense"


@pytest.mark.parametrize("forced", ["sparse", "dense"])
@pytest.mark.parametrize(
    ("filters", "size", "groups"), [(12, 32, 1), (13, 16, 1), (18, 8, 2), (11, 5, 1), (24, 4, 1), (7, 40, 1)]
)
def test_both_kernels_compute_the_same_layer(model, check, isa, monkeypatch, forced, filters, size, groups):
    """Whatever the rule says: a third of zeros is where it turns."""
    monkeypatch.setattr(lower_conv, "choose_conv", lambda **_: KernelChoice(kernel=forced, why="forced by a test"))
    rng = np.random.default_rng(filters)
    shape = (filters, 6 // groups, 3, 3)
    weight = (rng.standard_normal(shape) * (rng.random(shape) < 0.66)).astype(np.float32)
    nodes, constants = conv_of(weight, group=groups)
    data = model(nodes, constants, {"x": ["b", 6, size, size]})
    assert [layer.kernel for layer in explain(data, isa=isa)] == [forced]
    check(data, {"x": rng.standard_normal((2, 6, size, size)).astype(np.float32)}, isa)
