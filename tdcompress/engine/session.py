"""Run a model: the same call as onnxruntime's InferenceSession."""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from pathlib import Path

import numpy as np

from tdcompress.engine.binding import DTYPES, Job, library
from tdcompress.engine.lowering import LayerRecord
from tdcompress.engine.plan import Plan, make_plan
from tdcompress.engine.read import Array, Graph, Value, read_graph
from tdcompress.engine.steps import Shape
from tdcompress.errors import TdcompressError, UnsupportedError, UserError

MAX_THREADS = 256
_PLANS_KEPT = 8
_SHAPES_REMEMBERED = 64
_ARENA_ALIGNMENT = 4096
_ONNX_TYPES = {"float32": "float", "float64": "double"}


@dataclass(frozen=True, kw_only=True)
class NodeArg:
    """An input or output, as onnxruntime has it: shape entries are numbers, names, or None; type is e.g. "tensor(float)"."""

    name: str
    shape: list[int | str | None]
    type: str


def _node_arg(value: Value) -> NodeArg:
    return NodeArg(
        name=value.name, shape=list(value.shape), type=f"tensor({_ONNX_TYPES.get(value.dtype.name, value.dtype.name)})"
    )


def _address(array: Array) -> int:
    """Where a contiguous, non-empty array lies; through the buffer protocol, several times quicker than array.ctypes.data."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]  # an ndarray is a buffer
    except TypeError:  # a read-only array
        return int(array.ctypes.data)


class _Runner:
    """What one call of a plan needs for itself: the job structure, and an arena per thread."""

    def __init__(self, plan: Plan, isa: int, threads: int, arrays: int) -> None:
        stride = -(-4 * plan.arena_elements // _ARENA_ALIGNMENT) * _ARENA_ALIGNMENT + _ARENA_ALIGNMENT
        self.memory = np.zeros(threads * stride + _ARENA_ALIGNMENT, np.uint8)
        start = -(-self.memory.ctypes.data // _ARENA_ALIGNMENT) * _ARENA_ALIGNMENT
        self.arenas = (ctypes.c_void_p * threads)(*(start + i * stride for i in range(threads)))
        self.spaces = (ctypes.c_void_p * (1 + arrays))()
        self.job = Job(
            isa=isa,
            op_count=plan.op_count,
            space_count=len(self.spaces),
            threads=threads,
            ops=ctypes.addressof(plan.ops),
            spaces=ctypes.addressof(self.spaces),
            arenas=ctypes.addressof(self.arenas),
        )
        self.address = ctypes.addressof(self.job)


class _Program:
    """A plan with its runners; several calls may run at the same time, each takes a runner of its own."""

    def __init__(self, plan: Plan, isa: int, threads: int, inputs: int) -> None:
        self.plan = plan
        self._arguments = (plan, isa, threads, inputs + len(plan.output_shapes))
        self._free = [_Runner(*self._arguments)]

    def run(self, function: Callable[[int], int], arrays: Sequence[Array], batch: int) -> list[Array]:
        results = [np.empty((batch, *shape), np.float32) for shape in self.plan.output_shapes]
        try:
            runner = self._free.pop()
        except IndexError:
            runner = _Runner(*self._arguments)
        for index, array in enumerate(chain(arrays, results), start=1):
            runner.spaces[index] = _address(array)
        runner.job.batch = batch
        status = function(runner.address)
        self._free.append(runner)
        if status != 0:
            raise TdcompressError("engine: the library refused its arguments; please report this")
        return results


class Session:
    """A loaded model.

    Args:
        source: path of an ONNX file (ordinary, with sparse initializers, or packed), or its bytes.
        threads: images of a batch run in this many threads; one image runs in one thread.
        isa: an instruction set ("avx512", "avx2", "neon", "scalar") instead of the best that the machine has.

    Raises:
        ModelError: not an ONNX model, or a damaged one.
        UnsupportedError: the model uses something that the engine does not have, or the engine cannot be compiled
        here; the message says
            what, and what to do.
        UserError: `threads` is out of range.
    """

    def __init__(self, source: str | PathLike[str] | bytes, threads: int = 1, *, isa: str | None = None) -> None:
        if not 1 <= threads <= MAX_THREADS:
            raise UserError(f"threads = {threads}; it must be from 1 to {MAX_THREADS}")
        self._library = library()
        self._isa = self._library.instruction_set(isa)
        self._run = self._library.run
        self._threads = threads
        self._graph: Graph = read_graph(source if isinstance(source, bytes) else Path(source))
        if not self._graph.inputs:
            raise UnsupportedError("the model has no inputs; its outputs are constants")
        for value in self._graph.inputs:
            if value.dtype.name not in DTYPES:
                raise UnsupportedError(f"input {value.name!r} is {value.dtype.name}; {', '.join(DTYPES)} are handled")
            if not value.shape:
                raise UnsupportedError(f"input {value.name!r} is a scalar; inputs need a batch axis")
        batches = {value.shape[0] for value in self._graph.inputs if isinstance(value.shape[0], int)}
        if len(batches) > 1:
            raise UnsupportedError(f"inputs with different batch sizes ({sorted(batches)}); use the onnxruntime backend")
        self._batch: int | None = batches.pop() if batches else None
        self._inputs = [_node_arg(value) for value in self._graph.inputs]
        self._outputs = [_node_arg(value) for value in self._graph.outputs]
        self._names = tuple(value.name for value in self._graph.inputs)
        self._output_names = tuple(value.name for value in self._graph.outputs)
        self._dtypes = tuple(value.dtype for value in self._graph.inputs)
        self._checked: dict[tuple[Shape, ...], _Program] = {}
        self._lock = threading.Lock()
        self._programs: OrderedDict[tuple[Shape, ...], _Program] = OrderedDict()
        static = tuple(value.shape[1:] for value in self._graph.inputs)
        if all(isinstance(size, int) for shape in static for size in shape):
            self._program(static)  # type: ignore[arg-type]  # all entries are int

    def get_inputs(self) -> list[NodeArg]:
        """The model's inputs."""
        return list(self._inputs)

    def get_outputs(self) -> list[NodeArg]:
        """The model's outputs."""
        return list(self._outputs)

    @property
    def instruction_set(self) -> str:
        """The instruction set in use."""
        return self._isa.name

    def _program(self, shapes: tuple[Shape, ...]) -> _Program:
        with self._lock:
            program = self._programs.get(shapes)
            if program is None:
                plan = make_plan(self._graph, dict(zip(self._names, shapes, strict=True)), self._batch, self._isa)
                program = self._programs[shapes] = _Program(plan, self._isa.index, self._threads, len(self._names))
                while len(self._programs) > _PLANS_KEPT:
                    self._programs.popitem(last=False)
            return program

    def layers(self) -> tuple[LayerRecord, ...]:
        """One record per convolution and fully connected layer of the last plan: zeros, kernel, why.

        Raises:
            UnsupportedError: the input's size is dynamic and no image has been run yet.
        """
        if not self._programs:
            raise UnsupportedError("the model's input size is dynamic: run one image first")
        return next(reversed(self._programs.values())).plan.records

    def memory_bytes(self) -> Mapping[str, int]:
        """Bytes of the last plan: `arena` (all threads) and `tables` (weights, offsets, masks)."""
        if not self._programs:
            return {"arena": 0, "tables": 0}
        program = next(reversed(self._programs.values()))
        return {"arena": 4 * program.plan.arena_elements * self._threads, "tables": program.plan.table_bytes}

    def _check(self, feed: Mapping[str, Array]) -> list[Array]:
        if feed.keys() != set(self._names):
            raise UserError(f"inputs {sorted(map(str, feed))} were given; the model has {sorted(self._names)}")
        arrays = []
        for value in self._graph.inputs:
            array = np.ascontiguousarray(feed[value.name])
            if array.dtype != value.dtype:
                raise UserError(f"input {value.name!r} is {array.dtype}; the model takes {value.dtype}")
            if array.ndim != len(value.shape) or any(
                isinstance(want, int) and want != got for want, got in zip(value.shape, array.shape, strict=True)
            ):
                raise UserError(f"input {value.name!r} has the shape {list(array.shape)}; the model takes {list(value.shape)}")
            if array.shape[0] == 0 or array.shape[0] != len(feed[self._names[0]]) or 0 in array.shape:
                raise UserError(
                    f"input {value.name!r} has the shape {list(array.shape)}; every input needs the same, non-empty batch"
                )
            arrays.append(array)
        return arrays

    def _prepared(self, feed: Mapping[str, Array]) -> tuple[list[Array], _Program]:
        """The arrays in the model's order, and the program for their shapes."""
        # The usual call repeats shapes that have been checked; then only what may still differ is looked at.
        try:
            arrays = [feed[name] for name in self._names]
            program = self._checked.get(tuple([array.shape for array in arrays])) if len(feed) == len(arrays) else None
        except (KeyError, AttributeError, TypeError):
            program = None
        if program is not None:
            for array, dtype in zip(arrays, self._dtypes, strict=True):
                if type(array) is not np.ndarray or array.dtype != dtype or not array.flags.c_contiguous:
                    break
            else:
                return arrays, program
        arrays = self._check(feed)
        program = self._program(tuple(array.shape[1:] for array in arrays))
        if len(self._checked) >= _SHAPES_REMEMBERED:
            self._checked.clear()
        self._checked[tuple(array.shape for array in arrays)] = program
        return arrays, program

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Array]:
        """Run a batch.

        Args:
            output_names: which outputs to return, None for all.
            feed: input name -> array (B, ...) of the model's type.

        Returns:
            One float32 array (B, ...) per output.

        Raises:
            UserError: names, types or shapes that do not fit the model.
            ModelError, UnsupportedError: a dynamic input size for which the model cannot be planned.
        """
        arrays, program = self._prepared(feed)
        results = program.run(self._run, arrays, len(arrays[0]))
        if output_names is None:
            return results
        unknown = [name for name in output_names if name not in self._output_names]
        if unknown:
            raise UserError(f"the model has no output {unknown[0]!r}; it has {', '.join(self._output_names)}")
        return [results[self._output_names.index(name)] for name in output_names]


def explain(source: str | PathLike[str] | bytes, *, isa: str | None = None) -> tuple[LayerRecord, ...]:
    """Per convolution and fully connected layer: zeros, the kernel that was chosen, and why.

    Raises:
        ModelError, UnsupportedError: as Session does; also for a model whose input size is dynamic.
    """
    return Session(source, isa=isa).layers()


def unavailable_reason() -> str | None:
    """None if the engine can run here, else one line that says why not and what to install. Compiles at first use."""
    try:
        library()
    except (UnsupportedError, TdcompressError) as error:
        return str(error)
    return None


__all__ = ["LayerRecord", "NodeArg", "Session", "explain", "unavailable_reason"]
