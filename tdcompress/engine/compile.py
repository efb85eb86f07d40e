"""From a model to a plan that the C library runs, in a file of its own or in an ONNX file, and that library as a file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType

from tdcompress.engine.binding import InstructionSet, library
from tdcompress.engine.build import LIBRARY_NAME, SOURCE, library_path
from tdcompress.engine.lower.state import LayerRecord
from tdcompress.engine.plan import Plan, batch_of, image_shapes, make_plan
from tdcompress.engine.planfile import Port, plan_bytes
from tdcompress.engine.provider import context_model, source_model
from tdcompress.engine.read import Graph, read_graph
from tdcompress.errors import UserError
from tdcompress.files import published, write_bytes
from tdcompress.onnxfile.load import in_file, serialised

TARGETS: Mapping[str, InstructionSet] = MappingProxyType(
    {
        name: InstructionSet(index=index, name=name, max_block=max_block, dense_filters=filters, linear_lanes=name == "avx512")
        for name, index, max_block, filters in (
            *(("avx512", 0, 8, 4), ("avx2", 1, 4, 6), ("neon", 0, 4, 4), ("scalar", 2, 2, 2)),
            ("simd128", 0, 4, 4),  # WebAssembly
        )
    }
)
"""Every instruction set that a plan can be made for, on whatever machine: the sizes of csrc/vec.h."""

HEADER_NAME = "tdcompress.h"


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """A plan with its inputs and outputs; batch: the size that the model fixes, None: any."""

    plan: Plan
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batch: int | None


@dataclass(frozen=True, kw_only=True)
class CompiledModel:
    """What was made: its instruction set, inputs and outputs, batch size (None: any), and layers as ``explain`` has them."""

    isa: str
    file_bytes: int
    arena_bytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batch: int | None
    layers: tuple[LayerRecord, ...]


def compile_model(
    source: str | PathLike[str] | bytes,
    target: str | PathLike[str],
    *,
    isa: str | None = None,
    shapes: Sequence[Sequence[int]] | None = None,
    external_data: bool = False,
) -> CompiledModel:
    """Write the plan of a model for one instruction set and one shape of its inputs.

    The batch size stays open if the model leaves it open: the plan is for one image, and runs image after image. A target
    that ends in .onnx becomes an ONNX file with the plan inside, for onnxruntime with the C library as its plugin.

    Args:
        source: path of an ONNX file, or its bytes.
        target: the file to write.
        isa: a key of ``TARGETS``; None = the best one of this machine.
        shapes: of each input in turn, with a batch of 1, or of the size that the model fixes; for models that leave other
            sizes open.
        external_data: accept weights in files beside the ONNX file.

    Raises:
        ModelError, UnsupportedError: as ``Session``; also an input or output of more than 15 axes, or a plan too large for
            an ONNX file.
        UserError: shapes or an instruction set that do not fit; a target that is the source.
    """
    if isa is not None and isa not in TARGETS:
        raise UserError(f"isa = {isa!r}; plans are made for {', '.join(TARGETS)}")
    instructions = library().instruction_set(None) if isa is None else TARGETS[isa]
    model, target = source if isinstance(source, bytes) else Path(source), Path(target)
    if isinstance(model, Path) and target.exists() and model.exists() and target.samefile(model):
        raise UserError(f"{target}: is the model itself; name another file for what is compiled")
    planned = plan_model(model, instructions, shapes=shapes, external_data=external_data)
    inputs, outputs = planned.inputs, planned.outputs
    with _blaming(model):
        file = plan_bytes(planned.plan, instructions, inputs=inputs, outputs=outputs, batch=planned.batch)
        if target.suffix.lower() == ".onnx":
            made = context_model(source_model(model), file, isa=instructions.name, inputs=inputs, outputs=outputs)
            file = serialised(made)
    write_bytes(target, file)
    return CompiledModel(
        isa=instructions.name,
        file_bytes=len(file),
        arena_bytes=4 * planned.plan.arena_elements,
        inputs=inputs,
        outputs=outputs,
        batch=planned.batch,
        layers=planned.plan.records,
    )


def plan_model(
    source: str | PathLike[str] | bytes,
    instructions: InstructionSet,
    *,
    shapes: Sequence[Sequence[int]] | None = None,
    external_data: bool = False,
) -> PlannedModel:
    """Plan a model file for one instruction set and one shape of its inputs; arguments and errors as ``compile_model``.

    Args:
        source: path of an ONNX file, or its bytes.
        instructions: those of the processor that will run the plan.
        shapes: of each input in turn, with a batch of 1, or of the size that the model fixes; None = those that it fixes.
        external_data: accept weights in files beside the ONNX file.
    """
    model = source if isinstance(source, bytes) else Path(source)
    graph = read_graph(model, external_data=external_data)
    with _blaming(model):
        batch = batch_of(graph)
        named = _named(graph, shapes)
        images = image_shapes(graph, named)
        _refuse_batch(named, batch)
        plan = make_plan(graph, dict(zip((value.name for value in graph.inputs), images, strict=True)), batch, instructions)
    inputs = tuple(
        Port(name=value.name, dtype=value.dtype.name, shape=shape) for value, shape in zip(graph.inputs, images, strict=True)
    )
    names = dict.fromkeys(value.name for value in graph.outputs)  # an output that is listed twice is computed once
    outputs = tuple(Port(name=name, dtype="float32", shape=shape) for name, shape in zip(names, plan.output_shapes, strict=True))
    return PlannedModel(plan=plan, inputs=inputs, outputs=outputs, batch=batch)


def _blaming(model: Path | bytes) -> AbstractContextManager[None]:
    """What is wrong with a model from a file names the file."""
    return nullcontext() if isinstance(model, bytes) else in_file(model)


def _named(graph: Graph, shapes: Sequence[Sequence[int]] | None) -> dict[str, Sequence[int]]:
    """Input name -> shape with a batch: those that are given, or those that the model fixes."""
    names = [value.name for value in graph.inputs]
    if shapes is None:
        return {value.name: _fixed(value.name, value.shape) for value in graph.inputs}
    if len(shapes) != len(names):
        raise UserError(f"{len(shapes)} shapes were given; the model has the inputs {', '.join(names)}, in this order")
    return dict(zip(names, shapes, strict=True))


def _refuse_batch(shapes: Mapping[str, Sequence[int]], fixed: int | None) -> None:
    """A plan is for one image, and its batch is the model's: another size that is asked for would be lost without a word."""
    for name, shape in shapes.items():
        if shape[0] not in (1, fixed):
            said = (
                "leaves its batch open, and runs image by image: give 1 as the first size"
                if fixed is None
                else f"is fixed to batches of {fixed}"
            )
            raise UserError(f"input {name!r} cannot have the shape {list(shape)}: the model {said}")


def _fixed(name: str, shape: Sequence[int | str | None]) -> list[int]:
    """A shape that the model itself fixes, but for the batch."""
    sizes = [1, *shape[1:]]
    if not all(isinstance(size, int) for size in sizes):
        raise UserError(
            f"input {name!r} leaves its size open, {list(shape)}, and a plan is for one: give it (--shape, in Python shapes=)"
        )
    return [size for size in sizes if isinstance(size, int)]


def copy_library(folder: str | PathLike[str]) -> tuple[Path, Path]:
    """The header and the shared library in a folder; compiles the library if that has not been done yet.

    Args:
        folder: made if need be.

    Returns:
        (header, library).

    Raises:
        UnsupportedError: there is no library and no C compiler.
    """
    header, library_file = Path(folder) / HEADER_NAME, Path(folder) / LIBRARY_NAME
    for source, target in ((SOURCE / HEADER_NAME, header), (library_path(), library_file)):
        with published(target) as temporary:
            shutil.copyfile(source, temporary)
    return header, library_file
