"""Does an ONNX file compute what the module computes? Compared under onnxruntime, on real samples, at several sizes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tdcompress.errors import UnsupportedError, VerificationError, one_line
from tdcompress.export.outputs import named_outputs
from tdcompress.export.rounding import rounding_limits
from tdcompress.export.sizes import Size, batched, compared_sizes
from tdcompress.functional import evaluating
from tdcompress.onnxfile.load import in_file
from tdcompress.onnxfile.runtime import open_session
from tdcompress.onnxfile.verify import RELATIVE_TOLERANCE, compare_arrays

BATCHES = (1, 7, 64)
_ROUNDING_AT_MOST = 1e-3  # of the largest |input| and |output|: what is more is not measured to be told from rounding
_LEAVE_OUT = (
    "; free_axes says that axes may have any length: leave out of it those that may not (() fixes the shapes of the examples)"
)
BATCH = (0,)  # the axes that may have any length: the first
# Of the largest |output|, by the coarsest type that a network computes with: some rounding steps (float16 has 2^-11).
TOLERANCES: Mapping[torch.dtype, float] = {torch.float16: 1e-2}


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two runtimes agree.

    Attributes:
        max_error: largest |difference| of an output.
        max_output: largest |output|.
        batches: the batch sizes compared.
        samples: number of samples compared.
    """

    max_error: float
    max_output: float
    batches: tuple[int, ...]
    samples: int


class OnnxNetwork:
    """An ONNX model under onnxruntime; one of a single input is called like the module it came from.

    Args:
        model: a file, or a model in memory.
        name: what messages call it.

    Raises:
        VerificationError: onnxruntime does not load the model.
    """

    def __init__(self, model: Path | onnx.ModelProto, name: str) -> None:
        self.name = name
        with in_file(name):
            self.session = open_session(model, threads=0)

    def __call__(self, inputs: Tensor) -> NDArray[np.float32]:
        """Outputs (B, classes) of a batch on the CPU."""
        return cast("NDArray[np.float32]", next(iter(self.outputs((inputs,)).values())))

    def outputs(self, inputs: Sequence[Tensor]) -> dict[str, NDArray[np.generic]]:
        """All outputs by name, for inputs in the file's order, of the shapes that it takes."""
        names = [entry.name for entry in self.session.get_inputs()]
        feed = {name: item.contiguous().numpy() for name, item in zip(names, inputs, strict=True)}
        return dict(zip([entry.name for entry in self.session.get_outputs()], self.session.run(None, feed), strict=True))

    def named_axes(self, inputs: Sequence[Tensor], free_axes: Sequence[int]) -> list[dict[int, str]]:
        """Of each input (B, ...) those axes that may have any length, by the names of the file; none of others than (B, ...)."""
        named = [
            {axis: dim if isinstance(dim, str) else f"axis_{axis}" for axis, dim in enumerate(entry.shape) if axis in free_axes}
            for entry in self.session.get_inputs()
        ]
        return [each if first else {} for each, first in zip(named, batched(inputs), strict=True)]


def check_agreement(
    model: nn.Module,
    inputs: Sequence[Tensor],
    network: OnnxNetwork,
    *,
    free_axes: Sequence[int] = BATCH,
) -> Agreement:
    """Compare an ONNX model with the module it was exported from, every output by its name.

    The batch sizes are `BATCHES`, or B alone without a free first axis.

    Args:
        model: the module; run in eval mode, the modes of its modules are restored.
        inputs: samples (B, ...), repeated where a batch needs more; an input whose first axis is not B is given as it is.
        network: the ONNX model.
        free_axes: the axes that may have any length; others than the first are also compared at twice the length, and at odd
            and unequal lengths where the network takes these: lengths that have different names in the file.

    Raises:
        VerificationError: a difference above 1e-5 of that output's largest |value| (1e-2 in float16), or above what rounding
            may do where that is more (`rounding`); another argmax outside ties, a value that is not finite, another number of
            outputs, or a model that does not run.
    """
    relative = tolerance(model, inputs)
    batches = BATCHES if 0 in free_axes else (len(inputs[0]),)
    try:
        with evaluating(model):
            sizes = compared_sizes(inputs, batches, network.named_axes(inputs, free_axes))
            found = [
                each for size in sizes for each in _differences(model, network, size, relative, _LEAVE_OUT if free_axes else "")
            ]
    except (VerificationError, UnsupportedError):
        raise
    except Exception as error:
        raise VerificationError(f"{network.name}: cannot be compared with torch: {one_line(error)}") from error
    errors, outputs = zip((0.0, 0.0), *found, strict=True)
    return Agreement(max_error=max(errors), max_output=max(outputs), batches=batches, samples=min(max(batches), len(inputs[0])))


def _differences(
    model: nn.Module, network: OnnxNetwork, size: Size, relative: float, to_do: str
) -> Iterator[tuple[float, float]]:
    """Of each output at one size, as `_compare` gives them; of none at a size that need not be taken and is not.

    Args:
        model: in eval mode.
        network: the ONNX model.
        size: the inputs.
        relative: see `tolerance`.
        to_do: what to say where the module does not take a size that it has to.
    """
    name, session, rows = network.name, network.session, size.rows
    try:
        expected = _expected(model, rows, [entry.name for entry in session.get_inputs()], size.said)
    except _NotTaken as refusal:
        if not size.required:
            return
        raise VerificationError(f"{name}: cannot be compared with torch: {refusal}{to_do}") from refusal
    names = [entry.name for entry in session.get_outputs()]
    if names != list(expected):
        raise VerificationError(f"{name}: its outputs are {names}, those of the network {list(expected)}")
    where = f"{name} at {size.said}"
    feed = {entry.name: row.cpu().numpy() for entry, row in zip(session.get_inputs(), rows, strict=True)}
    compared = list(zip(_run(session, feed, where), (each.cpu().numpy() for each in expected.values()), strict=True))
    rounding = [0.0] * len(names)
    if any(_small_excess(given, wanted, relative, rows) for given, wanted in compared):
        rounding = rounding_limits(model, rows, len(names))
    for key, (given, wanted), allowed in zip(names, compared, rounding, strict=True):
        what = where if len(names) == 1 else f"{name}, {key!r} at {size.said}"
        yield _compare(given, wanted, what, relative, allowed)


def tolerance(model: nn.Module, inputs: Sequence[Tensor]) -> float:
    """The share of the largest |output| that two runtimes may differ by: it follows the coarsest type; shapes do not matter."""
    types = {tensor.dtype for tensor in (*model.parameters(), *model.buffers(), *inputs)}
    return max((TOLERANCES.get(dtype, RELATIVE_TOLERANCE) for dtype in types), default=RELATIVE_TOLERANCE)


class NotRunError(VerificationError):
    """onnxruntime does not run the file on what torch takes."""


class _NotTaken(Exception):
    """The network itself refuses an input."""


def _run(session: ort.InferenceSession, feed: Mapping[str, NDArray[Any]], what: str) -> list[NDArray[np.generic]]:
    """All outputs; what onnxruntime would print of a failure is in the error."""
    silent = ort.RunOptions()
    silent.log_severity_level = 4
    try:
        return list(session.run(None, dict(feed), silent))
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise NotRunError(f"{what}: torch takes it, and onnxruntime does not: {one_line(error)}") from error


def _expected(model: nn.Module, rows: Sequence[Tensor], inputs: Sequence[str], said: str) -> dict[str, Tensor]:
    """What the network returns; a size that it does not take is named."""
    try:
        with torch.inference_mode():
            return named_outputs(model(*rows), inputs)
    except UnsupportedError:
        raise
    except Exception as error:  # user code raises anything
        raise _NotTaken(f"the network does not take {said}: {one_line(error)}") from error


def _small_excess(given: NDArray[np.generic], wanted: NDArray[np.generic], relative: float, rows: Sequence[Tensor]) -> bool:
    """Whether an output differs by too much for its size, and by so little for the inputs' that rounding may be why."""
    if wanted.dtype.kind != "f" or given.shape != wanted.shape or not wanted.size:
        return False
    error, largest = float(np.abs(given.astype(np.float64) - wanted.astype(np.float64)).max()), float(np.abs(wanted).max())
    numbers = [float(row.abs().max()) for row in rows if row.is_floating_point() and row.numel()]
    return relative * largest < error <= _ROUNDING_AT_MOST * max([largest, *numbers])


def _compare(
    given: NDArray[np.generic], expected: NDArray[np.generic], what: str, relative: float, rounding: float
) -> tuple[float, float]:
    """(largest difference, largest output); whole numbers and flags have to be the same."""
    if expected.dtype.kind != "f" or not expected.size:
        if given.shape != expected.shape or given.dtype != expected.dtype or not np.array_equal(given, expected):
            raise VerificationError(f"{what}: outputs are not the same")
        return 0.0, 0.0
    error, output, _ = compare_arrays(given, expected, what, relative, rounding)
    return error, output
