"""Check an ONNX file on the machine that will run it: well-formed, loads, and gives the outputs that were recorded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from tdcompress.errors import ModelError, UnsupportedError, VerificationError
from tdcompress.files import StrPath
from tdcompress.npz import read_npz
from tdcompress.onnxfile.graphs import every_node
from tdcompress.onnxfile.load import in_file, load_model, opset
from tdcompress.onnxfile.reports import VerifyReport
from tdcompress.onnxfile.runtime import open_session, run_session
from tdcompress.onnxfile.saturation import full_range_weights, saturation_note
from tdcompress.onnxfile.tensors import Array
from tdcompress.onnxfile.weights import constant_weights, stored_weights
from tdcompress.processor import Processor, read_processor

RELATIVE_TOLERANCE = 1e-5  # of the largest |output|, float32
# Of the largest |output| of an 8-bit file: four steps of an output from -max to max. Kernels may round what lies between two
# steps either way, and later layers carry that on: onnxruntime's integer kernels and the same file computed in float differ by
# 0 to 2 steps (LeNet-5, ResNet-20, ResNet-32). Sums that saturate, as on x86 without VNNI, differ by more: that has to be told.
QUANTISED_TOLERANCE = 4 / 128
MAX_SAMPLES_BYTES = 2**30
OutputBeside = tuple[str, Array, Array]
"""What a message calls an output, the output, and what is recorded."""
_QUANTISERS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})


def verify_onnx(
    path: StrPath,
    samples: StrPath | None = None,
    *,
    output: str = "output",
    own: str = "",
    external_data: bool = False,
    processor: Processor | None = None,
) -> VerifyReport:
    """Check a file; a report means that it passed.

    Args:
        path: the ONNX file.
        samples: an .npz file with arrays `input` (N, ...) and `output` (N, ...), what the network must give.
        output: name of the second array, where a file holds the outputs of several networks.
        own: instead of both, what stands in front of arrays that are called as the file's inputs and outputs are, of which
            there may be several: "decoder_step.onnx/".
        external_data: accept weights in files beside it.
        processor: what the notes are about; None = the one at hand.

    Raises:
        ModelError: not a model, damaged, or a samples file that is malformed or does not fit the model.
        UnsupportedError: an operator, domain or operator set that is not known; or several inputs with samples.
        VerificationError: a weight holds NaN, onnxruntime does not load or run it, or outputs are not finite, differ by more than
            1e-5 * max |output| (4 / 128 of it if the file is quantised; not at all in whole numbers of more than 8 bits), or have
            another argmax. For the argmax, samples whose two largest outputs are nearer than twice that are ties, and left out.
    """
    path = Path(path)
    model = load_model(path, external_data=external_data)
    with in_file(path):
        weights = [*stored_weights(model), *constant_weights(model)]
        for weight in weights:
            if weight.array.dtype.kind == "f" and np.isnan(weight.array).any():
                raise VerificationError(f"weight {weight.full_name!r} holds NaN; export the network from before it diverged")
        session = open_session(path)
    note = saturation_note(len(full_range_weights(model)), processor or read_processor())
    facts: dict[str, Any] = {"file_bytes": path.stat().st_size, "opset": opset(model), "weights": len(weights)}
    facts["notes"] = (note,) if note else ()
    if samples is None:
        return VerifyReport(**facts, samples=0, max_error=0.0, max_output=0.0, tolerance=0.0, ties=0)
    relative = QUANTISED_TOLERANCE if is_quantised(model) else RELATIVE_TOLERANCE
    compared = _all_values(session, path, Path(samples), own) if own else _one_value(session, path, Path(samples), output)
    try:
        found = [compare_arrays(given, expected, what, relative) for what, given, expected in compared]
    except VerificationError as error:
        raise VerificationError(f"{error}; {note}") if note else error from None
    max_output = max(largest for _, largest, _ in found)
    return VerifyReport(
        **facts,
        samples=len(compared[0][2]),
        max_error=max(error for error, _, _ in found),
        max_output=max_output,
        tolerance=relative * max_output,
        ties=sum(ties for _, _, ties in found),
    )


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether activations are rounded to few steps, so that kernels need not agree to float precision."""
    return any(node.op_type in _QUANTISERS for node in every_node(model))


def compare_arrays(
    outputs: Array, expected: Array, what: str, relative: float = RELATIVE_TOLERANCE, rounding: float = 0.0
) -> tuple[float, float, int]:
    """(largest |difference|, largest |expected|, ties), for outputs (N, ...) that pass.

    Args:
        outputs: what was computed, (N, ...).
        expected: what it is compared with, of the same shape.
        what: start of every message.
        relative: the largest difference allowed, as a share of the largest |expected|.
        rounding: what rounding alone may differ by, in the outputs' own unit: allowed where it is more.

    Raises:
        VerificationError: they do not pass; see `verify_onnx`.
    """
    if outputs.shape != expected.shape:
        raise VerificationError(f"{what}: outputs have shape {outputs.shape}, expected {expected.shape}")
    if not np.all(np.isfinite(outputs)):
        raise VerificationError(f"{what}: outputs contain NaN or infinity")
    wide, wanted = outputs.astype(np.float64), expected.astype(np.float64)
    max_error, max_output = float(np.abs(wide - wanted).max()), float(np.abs(wanted).max())
    counted = outputs.dtype.kind in "iu" and outputs.itemsize > 1  # classes and tokens; 8 bits may be an image
    tolerance = 0.0 if counted else max(relative * max_output, rounding)
    if max_error > tolerance:
        measured = "what rounding may do here" if rounding == tolerance else f"{relative:.2g} of the largest"
        rule = "whole numbers have to be the same" if counted else measured
        raise VerificationError(f"{what}: outputs differ by {max_error:.3g}, more than {tolerance:.3g} ({rule})")
    ties = 0
    if wanted.ndim == 2 and wanted.shape[1] > 1:
        second, first = np.sort(wanted, axis=1)[:, -2:].T
        clear = first - second > 2 * tolerance
        ties = int(np.count_nonzero(~clear))
        wrong = np.flatnonzero(clear & (wide.argmax(axis=1) != wanted.argmax(axis=1)))
        if wrong.size:
            raise VerificationError(f"{what}: sample {wrong[0]} is given another class than expected")
    return max_error, max_output, ties


def read_samples(path: Path, output: str = "output") -> tuple[Array, Array]:
    """`input` and `output` of a samples file, (N, ...) each, of the same N.

    Args:
        path: an .npz file.
        output: the name under which the outputs lie.

    Raises:
        ModelError: no such file, not an .npz, too large, arrays missing, not numbers, not finite, or of unequal N.
    """
    arrays = _read_numbers(path, ("input", output))
    inputs, outputs = arrays["input"], arrays[output]
    if len(inputs) != len(outputs) or not len(inputs):
        raise ModelError(f"{path}: {len(inputs)} inputs and {len(outputs)} outputs")
    return inputs, outputs


def _read_numbers(path: Path, names: Sequence[str]) -> dict[str, Array]:
    arrays = read_npz(path, "file of samples", at_most=MAX_SAMPLES_BYTES, names=names)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or array.ndim < 1 or not np.all(np.isfinite(array)):
            raise ModelError(f"{path}: `{name}` must be finite numbers with a first axis of samples")
    return arrays


def _one_value(session: ort.InferenceSession, path: Path, samples: Path, output: str) -> list[OutputBeside]:
    """The first output beside what is recorded, for the only input."""
    inputs, expected = read_samples(samples, output)
    with in_file(path):
        return [(str(path), _run_in_batches(session, inputs), expected)]


def _all_values(session: ort.InferenceSession, path: Path, samples: Path, own: str) -> list[OutputBeside]:
    """Every output beside what is recorded, all inputs given at once."""
    inputs, outputs = ([value.name for value in values] for values in (session.get_inputs(), session.get_outputs()))
    arrays = _read_numbers(samples, [f"{own}{name}" for name in (*inputs, *outputs)])
    if any(not array.size for array in arrays.values()):
        raise ModelError(f"{samples}: an array of {own.rstrip('/')} is empty")
    with in_file(path):
        given = run_session(session, {name: arrays[f"{own}{name}"] for name in inputs})
    return [(f"{path}, {name}", array, arrays[f"{own}{name}"]) for name, array in zip(outputs, given, strict=True)]


def _run_in_batches(session: ort.InferenceSession, inputs: Array) -> Array:
    values = session.get_inputs()
    if len(values) != 1:
        raise UnsupportedError(f"samples are for models of one input; this one has {len(values)}")
    size = values[0].shape[0] if values[0].shape else None
    batch = size if isinstance(size, int) else len(inputs)
    if batch < 1 or len(inputs) % batch:
        raise ModelError(f"the model takes batches of {size}; {len(inputs)} samples do not divide into these")
    pieces = [run_session(session, {values[0].name: inputs[start : start + batch]})[0] for start in range(0, len(inputs), batch)]
    return np.concatenate(pieces)
