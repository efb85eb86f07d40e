"""Does an ONNX file compute what the module computes? Compared under onnxruntime, on real samples, at several batch sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tdcompress.errors import VerificationError
from tdcompress.onnxfile.load import in_file
from tdcompress.onnxfile.runtime import open_session
from tdcompress.onnxfile.verify import compare

BATCHES = (1, 7, 64)


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
        first = self.session.get_inputs()[0].name
        outputs: NDArray[np.float32] = self.session.run(None, {first: inputs.contiguous().numpy()})[0]
        return outputs


def check_agreement(
    model: nn.Module, inputs: Sequence[Tensor], network: OnnxNetwork, *, batches: Sequence[int] = BATCHES
) -> Agreement:
    """Compare an ONNX model with the module it was exported from.

    Args:
        model: the module; run in eval mode, its mode is restored.
        inputs: samples (B, ...), repeated where a batch needs more.
        network: the ONNX model.
        batches: batch sizes.

    Raises:
        VerificationError: a difference above 1e-5 of the largest |output|, another argmax outside ties, a value that is not
            finite, or a model that does not run.
    """
    training, name, session = model.training, network.name, network.session
    try:
        model.eval()
        worst, largest = 0.0, 0.0
        for batch in batches:
            rows = [tensor[torch.arange(batch) % len(tensor)].contiguous() for tensor in inputs]
            with torch.inference_mode():
                expected = model(*rows).detach().cpu().numpy()
            feed = {entry.name: row.cpu().numpy() for entry, row in zip(session.get_inputs(), rows, strict=True)}
            error, output, _ = compare(session.run(None, feed)[0], expected, f"{name} at batch {batch}")
            worst, largest = max(worst, error), max(largest, output)
    except VerificationError:
        raise
    except Exception as error:
        raise VerificationError(f"{name}: cannot be compared with torch: {' '.join(str(error).split())}") from error
    finally:
        model.train(training)
    return Agreement(max_error=worst, max_output=largest, batches=tuple(batches), samples=min(max(batches), len(inputs[0])))
