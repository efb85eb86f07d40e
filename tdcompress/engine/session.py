"""Run a model: the same call as onnxruntime's InferenceSession."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from tdcompress.arguments import checked, given, require_range
from tdcompress.engine.binding import library
from tdcompress.engine.lengths import GrowingPlan, OpenLengths
from tdcompress.engine.lower.state import LayerRecord
from tdcompress.engine.plan import batch_of, image_shapes, make_plan
from tdcompress.engine.polynomials import AxisLengths
from tdcompress.engine.pool import SharedTables
from tdcompress.engine.read import Array, Graph, Value, read_graph
from tdcompress.engine.runner import FixedPlan, PlanProgram
from tdcompress.engine.steps import Shape
from tdcompress.engine.translate.graph import with_folded_constants
from tdcompress.errors import ModelError, TdcompressError, UnsupportedError, UserError
from tdcompress.onnxfile.load import in_file

MAX_THREADS = 256
_PLANS_KEPT = 8
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


class Session:
    """A loaded model.

    Args:
        source: path of an ONNX file (ordinary, with sparse initializers, or packed), or its bytes.
        threads: images of a batch run in this many threads; one image runs in one thread.
        isa: an instruction set ("avx512", "avx2", "neon", "scalar") instead of the best that the machine has.
        providers: None; there is only the CPU, and any list is refused.
        external_data: accept weights in files beside the ONNX file, in its folder or below.

    Raises:
        ModelError: not an ONNX model, or a damaged one.
        UnsupportedError: the model uses something that the engine does not have, or the engine cannot be compiled
            here; the message says what, and what to do.
        UserError: an argument is no path, or out of range.
    """

    @checked
    def __init__(
        self,
        source: str | PathLike[str] | bytes,
        threads: int = 1,
        *,
        isa: str | None = None,
        providers: Sequence[str] | None = None,
        external_data: bool = False,
    ) -> None:
        require_range("Session: threads", threads, 1, MAX_THREADS)
        if providers is not None:
            raise UnsupportedError(f"providers = {list(providers)}: the engine has none to choose from; leave it out")
        self._library = library()
        self._isa = self._library.instruction_set(isa)
        self._run = self._library.run
        self._threads = int(threads)
        self._path = None if isinstance(source, bytes) else Path(source)
        self._graph: Graph = read_graph(source if isinstance(source, bytes) else Path(source), external_data=external_data)
        with self._in_file():
            self._batch = batch_of(self._graph)
        self._inputs = [_node_arg(value) for value in self._graph.inputs]
        self._outputs = [_node_arg(value) for value in self._graph.outputs]
        self._names = tuple(value.name for value in self._graph.inputs)
        self._output_names = tuple(value.name for value in self._graph.outputs)
        computed = tuple(dict.fromkeys(self._output_names))  # an output that is listed twice is computed once
        self._slots = {name: computed.index(name) for name in self._output_names}
        self._single = (self._names[0], self._graph.inputs[0].dtype) if len(self._names) == 1 else None
        self._latest: tuple[Shape, PlanProgram, AxisLengths] | None = None
        self._lock = threading.Lock()
        self._programs: OrderedDict[tuple[Shape, ...], PlanProgram] = OrderedDict()
        self._open = OpenLengths.of(self._graph)
        self._tables = SharedTables() if self._open.names else None
        self._growing: dict[tuple[bool, ...], PlanProgram | None] = {}
        self._planned: set[tuple[bool, ...]] = set()
        self._last: PlanProgram | None = None
        if self._open.names:
            with self._in_file():
                self._graph = with_folded_constants(self._graph)
        else:
            self._program(self._open.shapes(()))

    def _in_file(self) -> AbstractContextManager[None]:
        """What is found wrong with the model here is said of its file, if it has one."""
        return nullcontext() if self._path is None else in_file(self._path)

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

    def _program(self, shapes: tuple[Shape, ...]) -> tuple[PlanProgram, AxisLengths]:
        """The program for shapes of the inputs, and the lengths that it is to be set to."""
        lengths = self._open.found(shapes)
        with self._lock:
            self._last = program = self._programs.get(shapes) or self._made(shapes, lengths)
        return program, lengths or ()

    def _made(self, shapes: tuple[Shape, ...], lengths: AxisLengths | None) -> PlanProgram:
        try:
            growing = self._program_for_all(lengths)
            if growing is not None:
                return growing
            with self._in_file():
                given = dict(zip(self._names, shapes, strict=True))
                plan = make_plan(self._graph, given, self._batch, self._isa, self._tables)
            program = PlanProgram(FixedPlan(plan), lengths or (), self._isa.index, self._threads, len(self._names))
        except MemoryError as error:
            raise TdcompressError(
                f"engine: not enough memory to plan the model for {self._threads} threads ({error}); use fewer threads"
            ) from error
        self._programs[shapes] = program
        while len(self._programs) > _PLANS_KEPT:
            self._programs.popitem(last=False)
        return program

    def _program_for_all(self, lengths: AxisLengths | None) -> PlanProgram | None:
        """The program for all lengths, made when a second one is asked for; None: each has a plan of its own.

        It takes as long to make as several plans, which do not pay where there is but one length.
        """
        if not lengths or not any(lengths):
            return None
        present = tuple(length > 0 for length in lengths)
        if present not in self._planned:
            self._planned.add(present)
            return None
        if present not in self._growing:
            assert self._tables is not None
            try:
                plans = GrowingPlan(self._graph, self._open, present, self._batch, self._isa, self._tables)
            except (ModelError, UnsupportedError):
                self._growing[present] = None
            else:
                self._growing[present] = PlanProgram(plans, lengths, self._isa.index, self._threads, len(self._names))
        return self._growing[present]

    def layers(self) -> tuple[LayerRecord, ...]:
        """One record per convolution and fully connected layer of the last plan: zeros, kernel, why.

        Raises:
            UnsupportedError: the input's size is dynamic and nothing has been run or planned yet.
        """
        if self._last is None:
            named = "; ".join(f"{value.name!r} {list(value.shape)}" for value in self._graph.inputs)
            raise UnsupportedError(
                f"the model's input size is dynamic ({named}) and kernels are chosen by size: give one (`tdcompress inspect "
                "--shape`, in Python Session.plan), or run it once first"
            )
        return self._last.plan.records

    @checked
    def plan(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Make the program for input shapes that the model leaves open, before the first image of that size.

        Args:
            shapes: input name -> shape with the batch, whose size does not matter.

        Raises:
            UserError: names or shapes that do not fit the model.
            ModelError, UnsupportedError: the model cannot be planned for them.
        """
        self._program(image_shapes(self._graph, shapes))

    def memory_bytes(self) -> Mapping[str, int]:
        """Bytes of the last plan: `arena` (all threads) and `tables` (weights, offsets, masks; those that plans share too)."""
        if self._last is None:
            return {"arena": 0, "tables": 0}
        plan = self._last.plan
        return {"arena": 4 * plan.arena_elements * self._threads, "tables": plan.table_bytes}

    def _check(self, feed: Mapping[str, Array]) -> list[Array]:
        if not isinstance(feed, Mapping):
            raise UserError(f"inputs are given as {{name: array}}, not as {type(feed).__name__}")
        if feed.keys() != set(self._names):
            raise UserError(f"inputs {sorted(map(str, feed))} were given; the model has {sorted(self._names)}")
        arrays: list[Array] = []
        for value in self._graph.inputs:
            array = np.asarray(feed[value.name])
            if array.dtype != value.dtype:
                raise UserError(f"input {value.name!r} is {array.dtype}; the model takes {value.dtype}")
            if array.ndim != len(value.shape) or any(
                isinstance(want, int) and want != got for want, got in zip(value.shape, array.shape, strict=True)
            ):
                raise UserError(f"input {value.name!r} has the shape {list(array.shape)}; the model takes {list(value.shape)}")
            if arrays and array.shape[0] != arrays[0].shape[0]:
                fixed = "; the model fixes it: if that axis is no batch, use the onnxruntime backend"
                raise UserError(
                    f"input {value.name!r} has the shape {list(array.shape)}; every input needs the same batch, here "
                    f"{arrays[0].shape[0]}{fixed if isinstance(value.shape[0], int) else ''}"
                )
            arrays.append(array)
        return arrays

    def _prepared(self, feed: Mapping[str, Array]) -> tuple[Sequence[Array], PlanProgram, AxisLengths, int]:
        """The arrays in the model's order, the program for their shapes, its lengths, and the batch size."""
        latest, single = self._latest, self._single
        # The usual call: one input, of the shape that was checked last.
        if latest is not None and single is not None and type(feed) is dict and len(feed) == 1:
            array = feed.get(single[0])
            if type(array) is np.ndarray and array.dtype is single[1] and array.shape == latest[0]:
                return (array,), latest[1], latest[2], latest[0][0]
        arrays = self._check(feed)
        program, lengths = self._program(tuple(array.shape[1:] for array in arrays))
        self._latest = (arrays[0].shape, program, lengths)
        return arrays, program, lengths, arrays[0].shape[0]

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, Array], run_options: None = None) -> list[Array]:
        """Run a batch.

        Args:
            output_names: which outputs to return, None or none for all.
            feed: input name -> array (B, ...) of the model's type; B may be 0.
            run_options: None; there are no options.

        Returns:
            One float32 array (B, ...) per output.

        Raises:
            UserError: names, types or shapes that do not fit the model.
            ModelError, UnsupportedError: a dynamic input size for which the model cannot be planned, or run options.
            TdcompressError: not enough memory.
        """
        if run_options is not None:
            raise UnsupportedError("run options are not handled; leave them out")
        arrays, program, lengths, batch = self._prepared(feed)
        try:
            results = program.run(self._run, arrays, lengths, batch)
        except MemoryError as error:
            raise TdcompressError(f"engine: not enough memory for a batch of {batch} ({error}); use a smaller one") from error
        if output_names is None or (isinstance(output_names, Sequence) and not output_names):
            if len(results) == len(self._output_names):
                return results
            output_names = self._output_names
        return self._selected(results, output_names)

    def _selected(self, results: Sequence[Array], names: Sequence[str]) -> list[Array]:
        """The results in the order of `names`, each array once: no two results share memory."""
        known = ", ".join(self._output_names)
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise UserError(f"outputs are given as a list of names of {known}, not as {given(names)}")
        for name in names:
            if not isinstance(name, str) or name not in self._slots:
                raise UserError(f"the model has no output {given(name)}; it has {known}")
        slots = [self._slots[name] for name in names]
        return [results[slot] if slot not in slots[:place] else results[slot].copy() for place, slot in enumerate(slots)]


@checked
def explain(
    source: str | PathLike[str] | bytes,
    *,
    isa: str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    external_data: bool = False,
) -> tuple[LayerRecord, ...]:
    """Per convolution and fully connected layer: zeros, the kernel that was chosen, and why.

    Args:
        source: as Session takes it.
        isa: as Session takes it.
        shapes: input name -> shape with the batch, for models that leave other sizes open.
        external_data: as Session takes it.

    Raises:
        ModelError, UnsupportedError, UserError: as Session and Session.plan do.
    """
    session = Session(source, isa=isa, external_data=external_data)
    if shapes is not None:
        session.plan(shapes)
    return session.layers()


def unavailable_reason() -> str | None:
    """None if the engine can run here, else one line that says why not and what to install. Compiles at first use."""
    try:
        library()
    except (UnsupportedError, TdcompressError) as error:
        return str(error)
    return None


__all__ = ["LayerRecord", "NodeArg", "Session", "explain", "unavailable_reason"]
