"""Plans while they run: what a call needs for itself, and the calls that run at the same time."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np

from tdcompress.engine.binding import Job
from tdcompress.engine.lengths import GrowingPlan
from tdcompress.engine.plan import Plan
from tdcompress.engine.polynomials import AxisLengths
from tdcompress.engine.read import Array
from tdcompress.errors import TdcompressError, UserError

_ARENA_ALIGNMENT = 4096
_NO_OUTPUTS = -1
"""The batch size of a runner that has no memory for outputs yet."""
# Through the buffer protocol an array's address is found several times quicker than with array.ctypes.data.
_addressof = ctypes.addressof
_from_buffer: Callable[[Array], ctypes.c_char] = ctypes.c_char.from_buffer  # type: ignore[assignment]  # an ndarray is a buffer


class FixedPlan:
    """The one plan of a model, or of one shape of its inputs."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def instance(self) -> FixedPlan:
        """Itself: nothing of it changes."""
        return self

    def at(self, lengths: AxisLengths) -> Plan:
        """The plan; `lengths` are those that it was made for."""
        return self._plan


class PlanRunner:
    """What one call of a plan needs for itself: the job structure, an arena per thread, and where the outputs are written.

    Args:
        plans: the plan, or what makes it for each length.
        isa: number of the instruction set.
        threads: arenas that it has.
        inputs: how many inputs the model has.
    """

    def __init__(self, plans: FixedPlan | GrowingPlan, isa: int, threads: int, inputs: int) -> None:
        self.plans = plans.instance()
        self.lengths: AxisLengths | None = None
        self.inputs = inputs
        self.memory: Array = np.empty(0, np.uint8)
        self.arenas = (ctypes.c_void_p * threads)()
        self.results: list[Array] = []
        self.job = Job(isa=isa, threads=threads, arenas=ctypes.addressof(self.arenas))
        self.address = ctypes.addressof(self.job)
        self.batch = _NO_OUTPUTS

    def adopt(self, lengths: AxisLengths) -> None:
        """Become the program for these lengths."""
        self.lengths = None  # until all of it is
        self.plan = plan = self.plans.at(lengths)
        stride = -(-4 * plan.arena_elements // _ARENA_ALIGNMENT) * _ARENA_ALIGNMENT + _ARENA_ALIGNMENT
        threads = len(self.arenas)
        if len(self.memory) < threads * stride + _ARENA_ALIGNMENT:
            self.memory = np.zeros(threads * stride + _ARENA_ALIGNMENT, np.uint8)
            start = -(-self.memory.ctypes.data // _ARENA_ALIGNMENT) * _ARENA_ALIGNMENT
            self.arenas[:] = [start + i * stride for i in range(threads)]
        self.spaces = (ctypes.c_void_p * (2 + self.inputs + len(plan.output_shapes)))()  # arena, inputs, outputs, constants
        self.spaces[len(self.spaces) - 1] = plan.constants
        job = self.job
        job.op_count, job.ops = plan.op_count, ctypes.addressof(plan.ops)
        job.space_count, job.spaces = len(self.spaces), ctypes.addressof(self.spaces)
        job.arena_bytes = 4 * plan.arena_elements
        self.batch, self.lengths = _NO_OUTPUTS, lengths

    def resize(self, batch: int) -> None:
        """Make room for the outputs of another batch size."""
        self.results = [np.empty((batch, *shape), np.float32) for shape in self.plan.output_shapes]
        for index, array in enumerate(self.results, start=1 + self.inputs):
            self.spaces[index] = array.ctypes.data
        self.job.batch = self.batch = batch


class PlanProgram:
    """Plans with their runners; several calls may run at the same time, each takes a runner of its own.

    After another model's call, Python's own code and data have left the caches, and each line costs microseconds. Hence outputs
    are copied from memory whose address is known, rather than made and looked up.

    Args:
        plans: the plan, or what makes it for each length.
        lengths: those of the first call.
        isa: number of the instruction set.
        threads: of a call.
        inputs: how many inputs the model has.
    """

    def __init__(self, plans: FixedPlan | GrowingPlan, lengths: AxisLengths, isa: int, threads: int, inputs: int) -> None:
        self._arguments = (plans, isa, threads, inputs)
        runner = PlanRunner(*self._arguments)
        runner.adopt(lengths)
        self.plan = runner.plan
        """The one that was used last."""
        self._free = [runner]

    def run(self, function: Callable[[int, int], int], arrays: Sequence[Array], lengths: AxisLengths, batch: int) -> list[Array]:
        """The outputs of a batch.

        Args:
            function: of the library; gets the addresses of a job and of the first input.
            arrays: the inputs, (batch, ...) each.
            lengths: the open ones, as the inputs have them.
            batch: images of the call.

        Raises:
            UserError: an input names a row that a table does not have.
            UnsupportedError: the lengths are too large.
            TdcompressError: the library refused its arguments.
        """
        try:
            runner = self._free.pop()
        except IndexError:
            runner = PlanRunner(*self._arguments)
        if runner.lengths != lengths:
            runner.adopt(lengths)
            self.plan = runner.plan
        if runner.batch != batch:
            runner.resize(batch)
        try:
            first = _addressof(_from_buffer(arrays[0]))
            for index in range(1, len(arrays)):
                runner.spaces[1 + index] = _addressof(_from_buffer(arrays[index]))
        except (TypeError, ValueError):  # read-only, not contiguous, or without elements
            arrays = [np.ascontiguousarray(array) for array in arrays]
            first = arrays[0].ctypes.data
            for index in range(1, len(arrays)):
                runner.spaces[1 + index] = arrays[index].ctypes.data
        status = function(runner.address, first)
        results = [array.copy() for array in runner.results]
        self._free.append(runner)
        if status > 0:
            raise UserError(
                "an input names a row that a table of the model does not have (token numbers and the like); check the inputs"
            )
        if status != 0:
            raise TdcompressError("engine: the library refused its arguments; please report this")
        return results
