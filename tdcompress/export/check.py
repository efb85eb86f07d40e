"""Does an ONNX file compute what the module computes? Compared under onnxruntime, on real samples, at several batch sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tdcompress.errors import VerificationError

BATCHES = (1, 7, 64)
TOLERANCE = 1e-5  # of the largest |logit|, in float32


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


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU; 0 threads = onnxruntime's own choice."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_agreement(
    model: nn.Module,
    inputs: Sequence[Tensor],
    path: Path,
    *,
    batches: Sequence[int] = BATCHES,
    tolerance: float = TOLERANCE,
) -> Agreement:
    """Compare a file with the module it was exported from.

    Args:
        model: the module; run in eval mode, its mode is restored.
        inputs: samples (B, ...), repeated where a batch needs more.
        path: the ONNX file.
        batches: batch sizes.
        tolerance: allowed |difference|, relative to the largest |output|.

    Raises:
        VerificationError: a larger difference, another argmax outside ties, a value that is not finite, or a run that fails.
    """
    training = model.training
    try:
        session = open_session(path)
        model.eval()
        worst, largest = 0.0, 0.0
        for batch in batches:
            rows = [tensor[torch.arange(batch) % len(tensor)].contiguous() for tensor in inputs]
            with torch.inference_mode():
                expected = model(*rows).detach().cpu().numpy()
            feed = {entry.name: row.cpu().numpy() for entry, row in zip(session.get_inputs(), rows, strict=True)}
            error, output = compare(session.run(None, feed)[0], expected, tolerance, f"{path.name} at batch {batch}")
            worst, largest = max(worst, error), max(largest, output)
    except VerificationError:
        raise
    except Exception as error:
        raise VerificationError(f"{path.name}: cannot be compared with torch: {error}") from error
    finally:
        model.train(training)
    return Agreement(max_error=worst, max_output=largest, batches=tuple(batches), samples=min(max(batches), len(inputs[0])))


def compare(got: NDArray[Any], expected: NDArray[Any], tolerance: float, what: str) -> tuple[float, float]:
    """Largest |difference| and largest |expected|.

    Raises:
        VerificationError: shapes differ, a value is not finite, the difference is too large, or an argmax differs though the two
            classes are further apart than the tolerance.
    """
    if got.shape != expected.shape:
        raise VerificationError(f"{what}: shape {got.shape} instead of torch's {expected.shape}")
    if not (np.isfinite(got).all() and np.isfinite(expected).all()):
        raise VerificationError(f"{what}: an output is not finite")
    largest = float(np.abs(expected).max(initial=0.0))
    error = float(np.abs(got - expected).max(initial=0.0))
    allowed = tolerance * largest
    if not error <= allowed:
        raise VerificationError(
            f"{what}: differs from torch by {error:.3g}, more than {allowed:.3g} ({tolerance:g} of the largest output)"
        )
    if expected.ndim == 2:
        rows = np.arange(len(expected))
        gap = expected[rows, expected.argmax(1)] - expected[rows, got.argmax(1)]
        if (gap > 2 * allowed).any():
            raise VerificationError(f"{what}: another class than torch's for sample {int(gap.argmax())}")
    return error, largest


def onnx_logits(
    path: Path,
    samples: Tensor,
    *,
    batch: int = 250,
    prepare: Callable[[Tensor], Tensor] | None = None,
    between: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Outputs of a file under onnxruntime for all samples.

    Args:
        path: the file.
        samples: (N, ...), on the CPU.
        batch: samples at a time.
        prepare: applied to each batch first; None where the graph takes the samples as they are.
        between: told (samples done, samples in all) after each batch.

    Returns:
        float32 (N, classes).
    """
    session = open_session(path)
    name = session.get_inputs()[0].name
    outputs = []
    for start in range(0, len(samples), batch):
        part = samples[start : start + batch]
        ready = (prepare(part) if prepare else part).contiguous().numpy()
        outputs.append(session.run(None, {name: ready})[0])
        if between:
            between(min(start + batch, len(samples)), len(samples))
    return np.concatenate(outputs).astype(np.float32, copy=False)
