"""The inputs that every file is run on: random ones of the model's own shapes and types, or the caller's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tdcompress.bench.modelfile import InputSpec, ModelFile
from tdcompress.errors import ModelError, UnsupportedError, UserError
from tdcompress.onnxfile.runtime import random_array

Array = NDArray[Any]


def check_same_inputs(baseline: ModelFile, files: Sequence[ModelFile]) -> None:
    """Refuse files that do not take what the baseline takes: their times would not be comparable.

    Raises:
        ModelError: names, types, or sizes that both files fix differ.
    """
    for file in files:
        for ours, theirs in zip(file.inputs, baseline.inputs, strict=False):
            if ours.name != theirs.name or ours.element_type != theirs.element_type or not _fits(ours, theirs):
                raise ModelError(
                    f"{file.path}: its input is {_describe(ours)}, but {baseline.path} takes {_describe(theirs)}; "
                    "compare files of the same network"
                )
        if len(file.inputs) != len(baseline.inputs):
            raise ModelError(f"{file.path}: it takes {len(file.inputs)} inputs, but {baseline.path} {len(baseline.inputs)}")


def random_inputs(
    model: ModelFile, batch: int, generator: np.random.Generator, shapes: Sequence[Sequence[int]] = ()
) -> dict[str, Array]:
    """Random data for a model: normal floats, uniform bytes, zeros and ones for other integers (valid as any index).

    An open first size becomes `batch`.

    Args:
        model: what is fed.
        batch: length of an open first axis.
        generator: draws the numbers.
        shapes: of its inputs in turn, where the file leaves other sizes than the batch open; none = as the file says.

    Raises:
        UserError: shapes of which one does not fit, or not one for each input.
        ModelError: another size is open, or the batch size is fixed to another number.
        UnsupportedError: an element type that no random data is known for.
    """
    specs = _shaped(model, batch, shapes) if shapes else model.inputs
    return {spec.name: _random_input(model, spec, batch, generator) for spec in specs}


def _shaped(model: ModelFile, batch: int, shapes: Sequence[Sequence[int]]) -> list[InputSpec]:
    """The inputs with the sizes that were asked for."""
    if len(shapes) != len(model.inputs):
        names = ", ".join(spec.name for spec in model.inputs)
        raise UserError(f"{len(shapes)} shapes are given; give one, like 1x3x224x224, for each of {names} of {model.path}")
    asked = [replace(spec, shape=tuple(shape)) for spec, shape in zip(model.inputs, shapes, strict=True)]
    for given, spec in zip(asked, model.inputs, strict=True):
        if not _fits(given, spec):
            raise UserError(f"the shape asked for is {_describe(given)}, but {model.path} takes {_describe(spec)}")
        if given.shape and given.shape[0] != batch:
            raise UserError(f"the shape asked for is {_describe(given)}, but the batch size is {batch}")
    return asked


def check_given_inputs(model: ModelFile, inputs: Mapping[str, Array], batch: int) -> dict[str, Array]:
    """The caller's inputs, if they fit the model and the batch size.

    Args:
        model: what is fed.
        inputs: name -> array (B, ...), as given.
        batch: length that the first axis of each has to have.

    Raises:
        UserError: a name, type or shape does not fit.
    """
    names = [spec.name for spec in model.inputs]
    if sorted(inputs) != sorted(names):
        raise UserError(f"inputs are given for {sorted(inputs)}, but {model.path} takes {names}")
    for spec in model.inputs:
        array = inputs[spec.name]
        given = InputSpec(name=spec.name, element_type=_element_type(spec.name, array), shape=array.shape)
        if given.element_type != spec.element_type or not _fits(given, spec):
            raise UserError(f"the input given is {_describe(given)}, but {model.path} takes {_describe(spec)}")
        if array.ndim and array.shape[0] != batch:
            raise UserError(f"input {spec.name!r} holds {array.shape[0]} examples, but the batch size is {batch}")
    return {name: np.ascontiguousarray(_plain(inputs[name])) for name in names}


def _plain(array: Array) -> Array:
    """The same where texts are Python's own, as onnxruntime gives them: these do not travel to another process."""
    return array.astype(np.str_) if array.dtype.hasobject else array


def _element_type(name: str, array: Array) -> int:
    try:
        return helper.np_dtype_to_tensor_dtype(array.dtype)
    except ValueError as error:  # another byte order, dates, long doubles
        raise UserError(f"input {name!r} is an array of {array.dtype.str!r}, which no ONNX file takes: convert it") from error


def _random_input(model: ModelFile, spec: InputSpec, batch: int, generator: np.random.Generator) -> Array:
    give = "give its inputs (`inputs=` in Python)"
    if spec.shape is None or None in spec.shape[1:]:
        say = "say its shape (--shape 1x3x224x224), or "
        raise ModelError(f"{model.path}: {_describe(spec)} leaves more open than the batch size; {say}{give}")
    shape = tuple(batch if size is None else size for size in spec.shape)
    if shape and shape[0] != batch:
        ask = f"ask for batch {shape[0]}" if shape[0] else "export it with the size that its inputs have, or leave that open"
        raise ModelError(f"{model.path}: {_describe(spec)} fixes the batch size; {ask}")
    dtype = _dtype(spec)
    if dtype.kind not in "fiub":
        raise UnsupportedError(f"{model.path}: no random data for {_describe(spec)}; {give}")
    return random_array(dtype, shape, generator)


def _fits(one: InputSpec, other: InputSpec) -> bool:
    if one.shape is None or other.shape is None:
        return True
    return len(one.shape) == len(other.shape) and all(
        a is None or b is None or a == b for a, b in zip(one.shape, other.shape, strict=True)
    )


def _dtype(spec: InputSpec) -> np.dtype[Any]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(spec.element_type))


def _describe(spec: InputSpec) -> str:
    shape = "any shape" if spec.shape is None else "x".join("?" if size is None else str(size) for size in spec.shape)
    return f"{spec.name!r} ({TensorProto.DataType.Name(spec.element_type).lower()}, {shape or 'scalar'})"
