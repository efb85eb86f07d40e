"""From a checked graph to a program: translate, fuse, lower, place memory, fill in the descriptors."""

from __future__ import annotations

import ctypes
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tdcompress.engine.binding import DTYPES, OPERATIONS, InstructionSet, Op
from tdcompress.engine.bounds import check_call
from tdcompress.engine.fuse import fuse
from tdcompress.engine.layout import plain_layout
from tdcompress.engine.lower.conv import wanted_layouts
from tdcompress.engine.lower.program import LOWERINGS
from tdcompress.engine.lower.state import LayerRecord, Lowering, Place
from tdcompress.engine.memory import Buffer, Use, place_buffers
from tdcompress.engine.pool import MemoryPool, SharedTables
from tdcompress.engine.read import Array, Graph
from tdcompress.engine.steps import Network, Shape
from tdcompress.engine.translate.graph import translate
from tdcompress.errors import UnsupportedError, UserError

_MOST_ARRAYS = 60
MAX_ARENA_BYTES = 1 << 31
"""Offsets in the kernels' tables are 32-bit numbers of bytes."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A program for one set of input shapes.

    Attributes:
        ops: the calls in order, `Op` structures.
        op_count: how many of them.
        arena_elements: float32 numbers that one image in flight needs.
        constants: the address of tensors that every image shares.
        table_bytes: of all tables together.
        output_shapes: without the batch.
        records: what was decided for each layer.
        blocks: the memory that holds constants, descriptors and tables, in arrays of any shape.
        sizes: address of a table, or of the constants -> bytes.
    """

    ops: Any
    op_count: int
    arena_elements: int
    constants: int
    table_bytes: int
    output_shapes: tuple[Shape, ...]
    records: tuple[LayerRecord, ...]
    blocks: tuple[Array, ...]
    sizes: Mapping[int, int]

    def descriptors(self) -> list[ctypes.Structure]:
        """What each call is given, in order; they are valid as long as the plan."""
        structures = dict(OPERATIONS.values())
        return [structures[op.kind].from_address(op.descriptor) for op in self.ops[: self.op_count]]


def batch_of(graph: Graph) -> int | None:
    """The batch size that a model fixes; None if it leaves it open.

    Raises:
        UnsupportedError: inputs or outputs that the engine does not have.
    """
    if not graph.inputs:
        raise UnsupportedError("the model has no inputs; its outputs are constants")
    for value in graph.inputs:
        if value.dtype.name not in DTYPES:
            raise UnsupportedError(
                f"input {value.name!r} is {value.dtype.name}; {', '.join(DTYPES)} are handled: use the onnxruntime backend"
            )
        if 0 in value.shape:
            raise UnsupportedError(
                f"input {value.name!r} has an axis of size 0, {list(value.shape)}, so there is nothing to compute; export "
                "the model with the size that its inputs have, or leave it open"
            )
        if not value.shape:
            raise UnsupportedError(
                f"input {value.name!r} is a scalar; inputs need a batch axis: use the onnxruntime backend for this model"
            )
    if len(graph.inputs) + len(graph.outputs) > _MOST_ARRAYS:
        raise UnsupportedError(
            f"the model has more than {_MOST_ARRAYS} inputs and outputs; use the onnxruntime backend for this model"
        )
    batches = {value.shape[0] for value in graph.inputs if isinstance(value.shape[0], int)}
    if len(batches) > 1:
        raise UnsupportedError(f"inputs with different batch sizes ({sorted(batches)}); use the onnxruntime backend")
    return batches.pop() if batches else None


def image_shapes(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> tuple[Shape, ...]:
    """The shapes of one image, in the order of the model's inputs.

    Args:
        graph: the model.
        shapes: input name -> shape with the batch, whose size does not matter.

    Raises:
        UserError: names or shapes that do not fit the model.
    """
    names = [value.name for value in graph.inputs]
    if shapes.keys() != set(names):
        raise UserError(f"shapes of {sorted(shapes)} were given; the model has {sorted(names)}")
    for value in graph.inputs:
        given = tuple(shapes[value.name])
        if len(given) != len(value.shape) or any(
            got < 1 or (isinstance(want, int) and want != got) for want, got in zip(value.shape[1:], given[1:], strict=True)
        ):
            raise UserError(f"input {value.name!r} cannot have the shape {list(given)}; the model takes {list(value.shape)}")
    return tuple(tuple(int(size) for size in shapes[name][1:]) for name in names)


def _import_inputs(state: Lowering, network: Network) -> None:
    for space, (name, dtype) in enumerate(network.inputs.items(), start=1):
        layout = plain_layout(network.shapes[name])
        state.homes[name] = Place(buffer=Buffer(layout=layout, space=space, dtype=dtype.name), layout=layout)


def _export_outputs(state: Lowering, network: Network) -> None:
    """Copy outputs that did not get the caller's array as their home."""
    for name in network.outputs:
        home = state.homes[name]
        if home.buffer.space != 1 + len(network.inputs) + network.outputs.index(name):
            del state.homes[name]
            target = state.output_plain(name)
            state.homes[name] = home
            state.copy(home, target)


def lower(network: Network, isa: InstructionSet, *, pool: MemoryPool, shared: SharedTables | None) -> Lowering:
    """The calls of a network, whose buffers have no place yet.

    Args:
        network: what is run.
        isa: instruction set whose kernels run.
        pool: memory for tables.
        shared: memory for those of weights, where several plans have them; None = `pool`.

    Raises:
        UnsupportedError: a size that the engine does not handle.
    """
    state = Lowering(network=network, isa=isa, wanted=wanted_layouts(network), pool=pool, shared=shared)
    _import_inputs(state, network)
    for step in network.steps:
        LOWERINGS[type(step)](state, step)
    _export_outputs(state, network)
    return state


def arena_for(uses: Sequence[Use]) -> int:
    """Give every buffer its place, and return the arena's size in elements.

    Raises:
        UnsupportedError: it is too large.
    """
    widest = max((buffer.layout.row_stride for use in uses for buffer in (*use.reads, *use.writes)), default=0)
    arena = place_buffers(uses, guard=2 * widest + 1024)
    if 4 * arena >= MAX_ARENA_BYTES:
        raise UnsupportedError(
            f"one image needs {4 * arena} bytes of memory; less than {MAX_ARENA_BYTES} are handled: use the onnxruntime backend"
        )
    return arena


def make_plan(
    graph: Graph,
    input_shapes: Mapping[str, Shape],
    batch: int | None,
    isa: InstructionSet,
    shared: SharedTables | None = None,
) -> Plan:
    """Plan a graph for given input shapes (without the batch) and an instruction set.

    Args:
        graph: the model.
        input_shapes: by input, without the batch.
        batch: the size that the model is fixed to; None = any.
        isa: instruction set whose kernels run.
        shared: where the tables of weights are, if there are other plans of the model.

    Raises:
        ModelError: the graph and the shapes do not fit.
        UnsupportedError: an operator or size that the engine does not handle.
    """
    network = fuse(translate(graph, input_shapes, batch))
    state = lower(network, isa, pool=MemoryPool(), shared=shared)
    arena = arena_for([call.use for call in state.calls])
    ops = (Op * max(1, len(state.calls)))()
    for op, call in zip(ops, state.calls, strict=False):
        op.kind, structure = OPERATIONS[call.kind]
        op.descriptor = state.pool.reserve(ctypes.sizeof(structure))  # first, then what it points to
        descriptor = call.fill()
        check_call(call.kind, descriptor, call.use)
        ctypes.memmove(op.descriptor, ctypes.addressof(descriptor), ctypes.sizeof(structure))
    pools = [state.pool] if shared is None else [state.pool, shared]
    return Plan(
        ops=ops,
        op_count=len(state.calls),
        arena_elements=arena,
        constants=state.pool.array(np.concatenate([step.value.reshape(-1) for step in state.constants]))
        if state.constants
        else 0,
        table_bytes=sum(pool.nbytes for pool in pools),
        output_shapes=tuple(network.shapes[name] for name in network.outputs),
        records=tuple(state.records),
        blocks=tuple(block for pool in pools for block in pool.blocks),
        sizes=ChainMap(*(pool.sizes for pool in pools)),
    )
