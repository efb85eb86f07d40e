"""torch module -> one stripped ONNX file with a dynamic batch, published only if it computes what torch computes."""

import inspect
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tdcompress.arguments import checked
from tdcompress.errors import ArgumentError, ModelError, UnsupportedError, one_line
from tdcompress.export.axis_names import own_axes, share_names
from tdcompress.export.check import BATCH, Agreement, OnnxNetwork, check_agreement
from tdcompress.export.free_axes import Traced, require_free
from tdcompress.export.guards import traced_guards
from tdcompress.export.outputs import flat_outputs, named_outputs
from tdcompress.export.sizes import batched, cycled
from tdcompress.export.torchlib import table_made_once
from tdcompress.files import StrPath, published
from tdcompress.functional import evaluating
from tdcompress.onnxfile.load import save_model
from tdcompress.onnxfile.metadata import set_metadata
from tdcompress.onnxfile.parameter_names import with_parameter_names
from tdcompress.onnxfile.short_names import with_short_names
from tdcompress.onnxfile.strip import strip
from tdcompress.sparsity.examples import example_tensors
from tdcompress.sparsity.units import require_layers, require_module, require_values, unwrapped

OPSET = 20
_FLOAT32_ALONE = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.LSTM, nn.GRU),
    *(
        nn.AvgPool1d,
        nn.AvgPool2d,
        nn.AvgPool3d,
        nn.InstanceNorm1d,
        nn.InstanceNorm2d,
        nn.InstanceNorm3d,
        nn.GroupNorm,
        nn.Upsample,
    ),
    *(nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.Softplus, nn.Mish, nn.Hardsigmoid, nn.Hardswish),
)
"""Layers whose operators onnxruntime 1.32 has no float64 kernel of on a CPU. What is not here is refused after the conversion."""


_TO_DO = "; take the condition out of forward, or leave the axis out of free_axes: () fixes the shapes of the examples"


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


def to_model_proto(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    *,
    free_axes: Sequence[int] = BATCH,
    names: Sequence[str] = (),
    axes: Sequence[Mapping[int, str]] | None = None,
) -> onnx.ModelProto:
    """Trace a module in eval mode and convert it.

    The example may have any batch size: torch.export takes a size of 1 for a constant, so the first sample is repeated. An input
    whose first axis is not as long as that of the first input has no batch, and keeps its shape.

    Args:
        model: the network; the modes of its modules are restored.
        example_inputs: a tensor or a sequence of tensors, (B, ...).
        free_axes: the axes of the inputs that may have any length in the file: (0,) is the batch, (0, 2, 3) also height and width
            of images; () fixes the shapes of the examples. See `axis_names` for several inputs.
        names: of the inputs; () = "input", or "input_0", ...
        axes: for inputs that share more than a batch, instead of ``free_axes``: of each one its axes that may have any length,
            by name; one name is one length, of two or more in the examples.

    Returns:
        A stripped model: inputs as ``names`` says, outputs as ``outputs.named_outputs`` names them, weights by
        their names in the module.

    Raises:
        ModelError: no network, a training wrapper, or one without values.
        UnsupportedError: torch cannot export the network, or not with free axes; the message has torch's reason, or the condition
            that binds an axis, with its line in the forward code.
        VerificationError: onnxruntime does not load the model with which a condition is to be tried.
    """
    inputs = example_tensors(example_inputs)
    require_deployable(model, inputs)
    kind = type(model).__name__
    own = batched(inputs)
    named_here = axes is None
    to_do = _TO_DO if named_here else ""
    names = list(names) or (["input"] if len(inputs) == 1 else [f"input_{i}" for i in range(len(inputs))])
    if axes is not None:
        free_axes = sorted({axis for named in axes for axis in named})
    else:
        _require_axes(free_axes, [item for item, first in zip(inputs, own, strict=True) if first])
        axes = own_axes(names, [item.ndim if first else 0 for item, first in zip(inputs, own, strict=True)], free_axes)
        if 0 in free_axes:
            inputs = tuple(cycled(item[:1], 0, 2) if first else item for item, first in zip(inputs, own, strict=True))
    dims = {name: torch.export.Dim(name, min=1) for named in axes for name in named.values()}
    shapes = [{axis: dims[name] for axis, name in named.items()} for named in axes]
    with_axes, hint = _with(free_axes), _hint(inputs, own)
    try:
        with torch.no_grad(), evaluating(model):
            outputs = list(named_outputs(model(*inputs), names))
        with evaluating(model), _quiet(), table_made_once(), flat_outputs(model), traced_guards() as guards:
            program = torch.onnx.export(
                model,
                inputs,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=outputs,
                dynamic_shapes=_by_argument(model, shapes) if dims else None,
                external_data=False,
                verbose=False,
            )
    except UnsupportedError as error:
        raise UnsupportedError(f"{kind} cannot be exported to ONNX: {error}") from error
    except Exception as error:  # the exporter raises many types; each says in its first lines what it could not do
        reason = one_line(error.__cause__ or error, at_most=400)
        raise UnsupportedError(f"{kind} cannot be exported to ONNX {with_axes}: {reason}{hint}") from error
    assert program is not None
    proto = with_short_names(strip(with_parameter_names(program.model_proto, _matrices(model))))
    if program.exported_program is not None and dims:
        traced = Traced(model=model, inputs=inputs, axes=axes, program=program.exported_program, guards=guards, proto=proto)
        try:
            with _quiet():
                require_free(traced)
        except UnsupportedError as error:
            raise UnsupportedError(f"{kind} cannot be exported to ONNX {with_axes}: {error}{hint}{to_do}") from error
    if named_here:
        share_names(proto, names)
    return proto


def require_deployable(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Refuse what no ONNX file can be made of, before a minute is spent on it. Of inputs, of any shape, the type matters.

    Raises:
        ModelError: no network, a training wrapper, or one without values.
        UnsupportedError: bfloat16, a layer that onnxruntime has in float32 alone, or a TorchScript program.
    """
    require_module(model)
    require_layers(model)
    require_values(model)
    if callable(getattr(model, "plain", None)):
        raise ModelError(f"{type(model).__name__} is a wrapper for training: export the network in it, net.plain()")
    if any(tensor.dtype == torch.bfloat16 for tensor in (*model.parameters(), *model.buffers(), *inputs)):
        raise UnsupportedError(
            f"{type(model).__name__} is in bfloat16, which onnxruntime cannot compute on a CPU: export model.float()"
        )
    for name, layer in model.named_modules():
        if isinstance(layer, _FLOAT32_ALONE) and _dtype(layer, inputs) == torch.float64:
            raise UnsupportedError(
                f"{name or 'the network'}, a {type(layer).__name__}, is in float64, in which onnxruntime does not have it on a "
                "CPU: export model.float()"
            )


def _dtype(layer: nn.Module, inputs: Sequence[Tensor]) -> torch.dtype:
    """What a layer computes in: the type of its own parameters or, where it has none, of the first input."""
    return next((parameter.dtype for parameter in layer.parameters()), inputs[0].dtype)


def _matrices(model: nn.Module) -> dict[str, NDArray[Any]]:
    """The weights with two axes, by every name that they have."""
    return {name: each.detach().cpu().numpy() for name, each in model.named_parameters(remove_duplicate=False) if each.ndim == 2}


def _require_axes(free_axes: Sequence[int], inputs: Sequence[Tensor]) -> None:
    """Refuse an axis that no input with a batch has."""
    most = max(item.ndim for item in inputs)
    for axis in free_axes:
        if not 0 <= axis < most:
            shapes = ", ".join(str(tuple(item.shape)) for item in inputs)
            raise ArgumentError(f"free_axes: {axis} is no axis of the inputs {shapes}; an axis is 0 (the batch) to {most - 1}")


def _by_argument(model: nn.Module, shapes: Sequence[Any]) -> tuple[Any, ...]:
    """One entry for each argument of ``forward``; what its ``*args`` takes is one argument, a tuple."""
    kinds = [each.kind for each in inspect.signature(model.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(shapes)
    named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:named], tuple(shapes[named:])) if shapes[named:] else tuple(shapes)


def _with(free_axes: Sequence[int]) -> str:
    others = [f"axis {axis}" for axis in free_axes if axis]
    named = [*(["a free batch size"] if 0 in free_axes else []), *(["a free " + " and ".join(others)] if others else [])]
    return "with " + " and ".join(named) if named else "with a fixed shape"


def _hint(inputs: Sequence[Tensor], own: Sequence[bool]) -> str:
    """What to try where inputs may have been taken for batches that are none."""
    if len(inputs) == 1 or not all(own):
        return ""
    return (
        "; if not every input has the batch first, give examples whose batch size no other first axis has: these then stay fixed"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own deprecation warnings, and without logs: what matters of them is in the error that is raised."""
    known = [name for name in logging.root.manager.loggerDict if name.startswith("torch.")]  # some have a level of their own
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir", *known)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
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


@checked
def export_onnx(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    path: StrPath,
    metadata: Mapping[str, Any] | None = None,
    *,
    free_axes: Sequence[int] = BATCH,
) -> Agreement:
    """Export, verify against torch, publish.

    Args:
        model: the network, in any mode; it is not changed. What DataParallel, DistributedDataParallel or torch.compile wraps is
            taken out.
        example_inputs: real samples, (B, ...): onnxruntime is compared with torch on them (repeated where a batch needs more).
        path: where the file goes: one file, no external data.
        metadata: further facts to keep in the file; strings or JSON values.
        free_axes: the axes of the inputs that may have any length that the network takes: (0,) is the batch, (0, 2, 3) also
            height and width, () none. Several inputs share the batch; other axes have a length of their own in each, unless the
            network wants two of them equal: then they have one name in the file (`tdcompress.export.axis_names`). What the trace
            took for true of these lengths (``x.shape[0] <= 100``, two sizes that are equal, a multiple of 2) is read from it and
            tried where it is false (`tdcompress.export.free_axes`).

    Returns:
        How far torch and onnxruntime agree.

    Raises:
        ArgumentError: an argument of a wrong type, or an axis that no input has.
        ModelError: a network without values, or ``TargetedDropout``; export ``net.plain()``. Examples without values.
        UserError: no file can be written there.
        UnsupportedError: the network cannot be exported, or its file would be right for some lengths of a free axis alone.
        VerificationError: onnxruntime's output differs from torch's; nothing is published.
    """
    inputs = example_tensors(example_inputs)
    model = unwrapped(model)
    with published(Path(path)) as temporary:  # first: a path that cannot be written is told before a minute is spent
        proto = to_model_proto(model, inputs, free_axes=free_axes)
        if metadata:
            set_metadata(proto, metadata_strings(metadata))
        save_model(proto, temporary)
        network = OnnxNetwork(temporary, Path(path).name)
        return check_agreement(model, inputs, network, free_axes=free_axes)
