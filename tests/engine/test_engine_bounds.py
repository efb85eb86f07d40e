"""A planner's mistake is an error, never corrupted memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from tdcompress.engine import Session
from tdcompress.engine.binding import OPERATIONS, CopyOp, PermuteOp, Tensor
from tdcompress.engine.bounds import AGREEMENTS, check_call
from tdcompress.engine.layout import plain_layout
from tdcompress.engine.lower.state import Lowering, Place
from tdcompress.engine.memory import Buffer, Use
from tdcompress.errors import TdcompressError


def place(start: int, *shape: int) -> Place:
    layout = plain_layout(shape)
    return Place(buffer=Buffer(layout=layout, start=start), layout=layout)


def copy_of(source: Tensor, target: Tensor) -> CopyOp:
    return CopyOp(input=source, output=target)


def test_every_kernel_is_looked_at():
    assert set(AGREEMENTS) == set(OPERATIONS)


def test_tensors_that_fit_pass_and_others_do_not():
    small, large = place(64, 3, 4, 5), place(128, 4, 4, 5)
    use = Use(reads=(small.buffer,), writes=(large.buffer,))
    inside = large.tensor()
    inside.channels = 3
    check_call("copy", copy_of(small.tensor(), inside), use)
    beyond = large.tensor()
    beyond.channels, beyond.offset = 3, beyond.offset + 2 * beyond.plane_stride
    for wrong in (large.tensor(), beyond):
        with pytest.raises(TdcompressError, match="planned copy"):
            check_call("copy", copy_of(small.tensor(), wrong), use)
    with pytest.raises(TdcompressError, match="planned copy"):
        check_call("copy", copy_of(small.tensor(), inside), Use(reads=(), writes=(large.buffer,)))


def test_a_strided_walk_over_the_edge():
    x, y = place(64, 4, 5), place(128, 5, 4)
    use = Use(reads=(x.buffer,), writes=(y.buffer,))
    op = PermuteOp(input=x.tensor(), output=y.tensor(), ndim=2)
    op.dims[:2], op.stride_in[:2], op.stride_out[:2] = [5, 4], [1, 5], [4, 1]
    check_call("permute", op, use)
    for start in (1, -1):
        op.input_start = start
        with pytest.raises(TdcompressError, match="planned permute"):
            check_call("permute", op, use)


def test_a_buffer_with_too_few_channels_is_found_when_the_model_is_planned(model, monkeypatch):
    """What an earlier planner did: the result of a concatenation with the number of channels of its first part."""
    honest = Lowering.output_rows

    def short(self: Lowering, name: str, like: Place | None = None) -> Place:
        made = honest(self, name, like)
        if like is not None and not like.layout.plain:
            self.homes[name] = made = self.new(replace(made.layout, channels=like.layout.channels))
        return made

    monkeypatch.setattr(Lowering, "output_rows", short)
    w = np.ones((4, 3, 1, 1), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["p"]),
        helper.make_node("Concat", ["p", "p"], ["c"], axis=1),
        helper.make_node("GlobalMaxPool", ["c"], ["y"]),
    ]
    with pytest.raises(TdcompressError, match="reaches outside its memory"):
        Session(model(nodes, {"w": w}, {"x": ["b", 3, 8, 8]}))
