"""onnxruntime as a judge: open a model, run it, compare."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from tdcompress.errors import TdcompressError, VerificationError, one_line
from tdcompress.onnxfile.encodings.base import Section, SectionKey, Weight
from tdcompress.onnxfile.refused import why_refused
from tdcompress.onnxfile.tensors import Array

_ERRORS_ONLY = 3  # onnxruntime's log level; it warns about harmless things while it folds
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


def open_session(
    model: onnx.ModelProto | Path,
    level: ort.GraphOptimizationLevel = ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    threads: int = 1,
    save_to: Path | None = None,
) -> ort.InferenceSession:
    """A session on the CPU.

    Args:
        model: a file, or a model in memory.
        level: how far onnxruntime may optimise.
        threads: of one operator; 0 = onnxruntime's own choice.
        save_to: a file for the optimised model.

    Raises:
        VerificationError: onnxruntime does not load the model.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # nothing is timed here; leave the cores to others
    options.log_severity_level = _ERRORS_ONLY
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    try:
        # where a link leads to: weights in other files lie there (`load_model`)
        source = os.path.realpath(model) if isinstance(model, Path) else model.SerializeToString()
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise VerificationError(f"onnxruntime does not load the model: {why_refused(error, model) or one_line(error)}") from error


class OpenedFile(Protocol):
    """A loaded ONNX file, by the part of onnxruntime's interface that is needed here."""

    def get_inputs(self) -> Sequence[Any]:
        """Its inputs, with name and shape."""

    def get_outputs(self) -> Sequence[Any]:
        """Its outputs, with name and shape."""

    def run(self, names: None, inputs: Mapping[str, Array], /) -> Sequence[Any]:
        """All outputs, for inputs by name, of the shapes that the model takes."""


def run_session(session: OpenedFile, inputs: Mapping[str, Array]) -> list[Array]:
    """All outputs, in the file's order.

    Args:
        session: of the file.
        inputs: by name, of the shapes and types that the file takes.

    Raises:
        VerificationError: onnxruntime fails.
        TdcompressError: the engine does, where it is the engine's session; it says how itself.
    """
    try:
        outputs = list(session.run(None, dict(inputs)))
    except TdcompressError:
        raise
    except Exception as error:
        raise VerificationError(f"onnxruntime does not run the model: {one_line(error)}") from error
    return outputs


def random_array(dtype: np.dtype[Any], shape: Sequence[int], generator: np.random.Generator) -> Array:
    """Random data for an input: normal floats, uniform bytes, zeros and ones for other integers (valid as indices).

    Args:
        dtype: of numbers or booleans.
        shape: the sizes wanted, axis by axis.
        generator: what it is drawn from.
    """
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize == 1:
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    return generator.integers(0, 2, shape).astype(dtype)


def random_feed(session: ort.InferenceSession, batch: int, seed: int) -> dict[str, Array] | None:
    """Inputs as `random_array` makes them, by name, of the file's shapes.

    None where a size but the first is free, or a type is unknown.

    Args:
        session: what is fed.
        batch: length of a free first axis.
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    inputs: dict[str, Array] = {}
    for value in session.get_inputs():
        dtype = _DTYPES.get(value.type)
        shape = [batch if place == 0 and not isinstance(size, int) else size for place, size in enumerate(value.shape)]
        if dtype is None or not all(isinstance(size, int) for size in shape):
            return None
        inputs[value.name] = random_array(np.dtype(dtype), shape, generator)
    return inputs


@dataclass(frozen=True, kw_only=True)
class OutputDifference:
    """The outputs of two models on the same inputs, but for texts.

    Attributes:
        error: largest |difference| / max |output| of an output, |difference| where that is all 0, over the values that are finite
            in both; None where none is, or where the outputs of the two have other shapes.
        not_finite: how many values are NaN or infinite: of the first model, of the second.
    """

    error: float | None
    not_finite: tuple[int, int]


def compare_outputs(
    exact: ort.InferenceSession, other: ort.InferenceSession, batches: Iterable[Mapping[str, Array]]
) -> OutputDifference:
    """Run both on all batches.

    Args:
        exact: what is right.
        other: what is compared.
        batches: input name -> array, of the shapes that both take.

    Raises:
        VerificationError: onnxruntime fails.
    """
    differences: dict[int, float] = {}
    largest: dict[int, float] = {}
    lost, lost_other, compared, values = 0, 0, 0, 0
    for inputs in batches:
        outputs, others = (_arrays(run_session(session, inputs)) for session in (exact, other))
        if [array.shape for array in outputs] != [array.shape for array in others]:  # boxes that were found, for example
            return OutputDifference(error=None, not_finite=(0, 0))
        for place, (wanted, given) in enumerate(zip(outputs, others, strict=True)):
            if wanted.dtype.kind not in "fiub":
                continue
            finite, finite_other = np.isfinite(wanted), np.isfinite(given)
            both = finite & finite_other
            lost += int(np.count_nonzero(~finite))
            lost_other += int(np.count_nonzero(~finite_other))
            compared += int(np.count_nonzero(both))
            values += both.size
            exactly = wanted[both].astype(np.float64)
            differences[place] = max(differences.get(place, 0.0), float(np.abs(exactly - given[both]).max(initial=0.0)))
            largest[place] = max(largest.get(place, 0.0), float(np.abs(exactly).max(initial=0.0)))
    error = max((difference / (largest[place] or 1.0) for place, difference in differences.items()), default=0.0)
    return OutputDifference(error=error if compared or not values else None, not_finite=(lost, lost_other))


def _arrays(outputs: Iterable[Any]) -> list[Array]:
    """The arrays of outputs: of a sequence each of its own, of a map its values as one; none of what is absent."""
    found: list[Array] = []
    for output in outputs:
        if isinstance(output, np.ndarray):
            found.append(output)
        elif isinstance(output, dict):
            found.append(np.array(list(output.values())))
        elif isinstance(output, list):
            found += _arrays(output)
    return found


def check_section(section: Section, key: SectionKey, weights: list[Weight], like: onnx.ModelProto) -> None:
    """Run a section's decoder, unoptimised, under the operator sets of `like`; its weights must come out bit for bit.

    Args:
        section: the nodes and constants of one decoder.
        key: how it stores.
        weights: what has to come out.
        like: the model that it will stand in.

    Raises:
        VerificationError: they do not.
    """
    dtype = helper.np_dtype_to_tensor_dtype(key.dtype)
    outputs = [helper.make_tensor_value_info(f"out{i}", dtype, weight.array.shape) for i, weight in enumerate(weights)]
    # onnxruntime hands a sparse initializer out as it is, and only if it has two axes; behind a node it is dense
    readers = [helper.make_node("Identity", [weight.name], [f"out{i}"]) for i, weight in enumerate(weights)]
    nodes = [*section.nodes, *readers]
    graph = helper.make_graph(nodes, "decoder", [], outputs, section.initializers, sparse_initializer=section.sparse_initializers)
    model = helper.make_model(graph, opset_imports=like.opset_import, ir_version=like.ir_version)
    session = open_session(model, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    for weight, decoded in zip(weights, run_session(session, {}), strict=True):
        if decoded.dtype != weight.array.dtype or decoded.tobytes() != weight.array.tobytes():
            raise VerificationError(f"packed weight {weight.name!r} does not decode to its values; nothing was written")
