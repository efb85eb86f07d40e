"""torch module -> one stripped ONNX file with a dynamic batch, published only if it computes what torch computes."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from tdcompress.errors import UnsupportedError
from tdcompress.export.check import BATCHES, Agreement, OnnxNetwork, check_agreement
from tdcompress.files import published
from tdcompress.onnxfile.load import save_model
from tdcompress.onnxfile.metadata import set_metadata
from tdcompress.onnxfile.strip import strip

OPSET = 20


class FromPixels(nn.Module):
    """A network with its preprocessing in front: uint8 NHWC images -> logits, so that a deployer cannot get it wrong."""

    def __init__(self, preprocess: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of uint8 images (B, H, W, C)."""
        output: Tensor = self.network(self.preprocess(pixels))
        return output


def to_model_proto(model: nn.Module, example_inputs: Tensor | Sequence[Tensor]) -> onnx.ModelProto:
    """Trace a module in eval mode and convert it; every input's and output's first axis is the batch.

    The example may have any batch size: torch.export takes a size of 1 for a constant, so the first sample is repeated.

    Args:
        model: the network; its mode is restored.
        example_inputs: a tensor or a sequence of tensors, (B, ...).

    Returns:
        A stripped model: inputs "input" (or "input_0", ...), outputs "output".

    Raises:
        UnsupportedError: torch cannot export the network, or not with a free batch size; the message has torch's reason.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    doubled = tuple(torch.cat([tensor[:1], tensor[:1]]) for tensor in inputs)
    names = ["input"] if len(inputs) == 1 else [f"input_{i}" for i in range(len(inputs))]
    training = model.training
    batch = torch.export.Dim("batch", min=1)
    try:
        with _quiet():
            program = torch.onnx.export(
                model.eval(),
                doubled,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=["output"],
                dynamic_shapes=tuple({0: batch} for _ in doubled),
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many types; each says in its first lines what it could not do
        reason = " ".join(str(error.__cause__ or error).split())[:400]
        raise UnsupportedError(f"{type(model).__name__} cannot be exported to ONNX with a free batch size: {reason}") from error
    finally:
        model.train(training)
    assert program is not None
    proto = strip(program.model_proto)
    for value in proto.graph.input:  # the exporter's last resort is to take the example's sizes for constants
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise UnsupportedError(
                f"{type(model).__name__} cannot be exported to ONNX with a free batch size: what it computes depends on the size"
            )
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own deprecation warnings and logging; they concern torch's code, not the user's."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def metadata_strings(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as ONNX holds it: strings stay, everything else is written as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in metadata.items()}


def export_onnx(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    path: str | Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    batches: Sequence[int] = BATCHES,
) -> Agreement:
    """Export, verify against torch, publish.

    Args:
        model: the network, in any mode; it is not changed.
        example_inputs: real samples, (B, ...): onnxruntime is compared with torch on them (repeated where a batch needs more).
        path: where the file goes: one file, no external data.
        metadata: further facts to keep in the file; strings or JSON values.
        batches: the batch sizes compared.

    Returns:
        How far torch and onnxruntime agree.

    Raises:
        UnsupportedError: the network cannot be exported.
        VerificationError: onnxruntime's output differs from torch's; nothing is published.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    proto = to_model_proto(model, inputs)
    if metadata:
        set_metadata(proto, metadata_strings(metadata))
    with published(Path(path)) as temporary:
        save_model(proto, temporary)
        return check_agreement(model, inputs, OnnxNetwork(temporary, Path(path).name), batches=batches)
