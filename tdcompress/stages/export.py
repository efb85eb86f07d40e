"""Stage "export": a deployed network -> one verified ONNX file, its accuracy under onnxruntime, and samples to verify it by."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tdcompress.artifacts import Artifact
from tdcompress.data.base import Dataset
from tdcompress.errors import VerificationError
from tdcompress.export.check import OnnxNetwork, check_agreement
from tdcompress.export.to_onnx import FromPixels, metadata_strings, to_model_proto
from tdcompress.lineage.network import load_network
from tdcompress.lineage.origin import ancestor, origin_of, settings_of
from tdcompress.lineage.samples import BATCH
from tdcompress.lineage.versions import VERSIONS
from tdcompress.npz import write_npz
from tdcompress.onnxfile.encodings.forms import FORMS
from tdcompress.onnxfile.inspect import inspect_model
from tdcompress.onnxfile.load import save_model
from tdcompress.onnxfile.metadata import set_metadata
from tdcompress.onnxfile.pack import pack_model
from tdcompress.pipeline import Stage, Workspace
from tdcompress.records import ExportRecord, Values
from tdcompress.sparsity.masks import count_zeros
from tdcompress.sparsity.units import prunable_weights
from tdcompress.stages import prune

Prepare = Callable[[Tensor], Tensor]

ONNX, SAMPLES = "model.onnx", "samples.npz"
CHECKED_SAMPLES = 64
SHIPPED_SAMPLES = 16
CALIBRATION_SAMPLES = 256


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """Which row becomes model.onnx.

    Attributes:
        max_accuracy_drop: below the dense network's accuracy, 0..1.
        smallest: of the rows that remain, the one with the smallest of this.
    """

    max_accuracy_drop: float = 0.01
    smallest: Literal["onnx_bytes", "latency", "parameters_nonzero"] = "onnx_bytes"

    def __post_init__(self) -> None:
        if not 0 <= self.max_accuracy_drop <= 1:
            raise ValueError(f"max_accuracy_drop: {self.max_accuracy_drop} is out of range, 0 to 1")


@dataclass(frozen=True, kw_only=True)
class ExportTable:
    """The [export] table.

    Attributes:
        pack: "auto" packs zeros where that makes a file smaller: pruned weights, dead channels that shrinking kept; "never"
            keeps every tensor dense.
        prefer: "size" also allows encodings that load more slowly.
        input: "float32" NCHW, preprocessed by the caller; or "uint8" NHWC images, preprocessed inside the graph.
        values: number formats of the files; each gives a row. "int8" computes in integers; "codebook16", "int8-kept" and
            "int4-kept" round the weights whose zeros are packed: to 16 values a layer, or to integers and one scale a layer.
        int8_range: "portable": 7-bit weights, whose sums come out the same on every processor; "full": 8-bit weights, one
            bit more, for files that will run only on ARM or on x86 with VNNI (others cut large sums, and `verify` and `bench`
            say so).
        select: which row becomes model.onnx.
    """

    pack: Literal["auto", "never"] = "auto"
    prefer: Literal["speed", "size"] = "speed"
    input: Literal["float32", "uint8"] = "float32"
    values: tuple[Values, ...] = ("float32",)
    int8_range: Literal["portable", "full"] = "portable"
    select: SelectSettings = SelectSettings()

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) != len(self.values):
            raise ValueError(f"values: {list(self.values)}: at least one, none twice")
        rounding_packed = sorted(set(self.values) & FORMS.keys())
        if rounding_packed and self.pack == "never":
            raise ValueError(f'values: {rounding_packed[0]!r} rounds the weights that are packed; set pack = "auto"')

    def of(self, values: Values, *, pack: bool | None = None) -> "Settings":
        """What makes the file of one row; what its format does not use is None, so that no key depends on it.

        Args:
            values: its number format.
            pack: whether zeros are packed away; None = as the table says.
        """
        packed = self.pack == "auto" if pack is None else pack
        return Settings(
            pack=packed,
            prefer=self.prefer if packed else None,
            input=self.input,
            values=values,
            int8_range=self.int8_range if values == "int8" else None,
        )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What makes one file.

    Attributes:
        pack: whether zeros are packed away.
        prefer: as in the recipe; None where nothing is packed.
        input: as in the recipe.
        values: number format of the weights.
        int8_range: as in the recipe; None where nothing is quantised.
    """

    pack: bool
    prefer: Literal["speed", "size"] | None
    input: Literal["float32", "uint8"]
    values: Values
    int8_range: Literal["portable", "full"] | None

    def __post_init__(self) -> None:
        if (self.prefer is not None) != self.pack:
            raise ValueError("prefer: it chooses among the encodings of packed zeros; None without these")
        if (self.int8_range is not None) != (self.values == "int8"):
            raise ValueError('int8_range: it is of values = "int8"; None for others')


def run(settings: Settings, work: Workspace) -> ExportRecord:
    """Export, pack, verify and measure in memory; then save.

    Raises:
        VerificationError: the file does not compute what torch computes; nothing is published.
    """
    source = work.inputs["network"]
    data = origin_of(source).data.load(work.machine.places)
    network = load_network(source, data)
    model, prepare = deployable(settings, network, data)
    samples = prepare(data.test.pixels[:CHECKED_SAMPLES])
    proto = to_model_proto(model, samples)
    set_metadata(proto, metadata_strings(file_facts(settings, source, network, data)))
    proto = as_asked(settings, proto, lambda: prepare(data.train.pixels[:CALIBRATION_SAMPLES]).numpy())
    onnx_network = OnnxNetwork(proto, ONNX)
    correct = count_correct(onnx_network, data, prepare, work)
    with torch.inference_mode():
        expected = model(samples).numpy()
    given = onnx_network(samples)
    if settings.values == "float32":
        agreement = check_agreement(model, [samples], onnx_network)
        error, largest = agreement.max_error, agreement.max_output
        check_accuracy(correct, source.record["accuracy"], len(data.test))
    else:
        error, largest = rounding_error(given, expected), float(np.abs(expected).max())
    set_metadata(proto, metadata_strings({"accuracy": correct / len(data.test)}))
    save_model(proto, work.folder / ONNX)
    write_samples(work.folder / SAMPLES, samples, expected if settings.values == "float32" else given)
    report = inspect_model(proto)
    zeros, total = count_zeros(network.parameters())
    return ExportRecord(
        opset=report.opset,
        values=settings.values,
        onnx_bytes=report.file_bytes,
        bound_bytes=report.bound_bytes,
        encodings=report.encodings,
        parameters_nonzero=total - zeros,
        max_error=error,
        max_output=largest,
        samples=len(samples),
        accuracy=correct / len(data.test),
    )


def deployable(settings: Settings, network: nn.Module, data: Dataset) -> tuple[nn.Module, Prepare]:
    """The module that is exported, and what turns stored pixels into its input.

    Args:
        settings: of the export.
        network: what is deployed.
        data: its data set.
    """
    preprocess = data.preprocess.cpu()
    if settings.input == "uint8":
        return FromPixels(preprocess, network).eval(), lambda pixels: pixels

    def prepare(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            ready: Tensor = preprocess(pixels)
        return ready.clone().contiguous()

    return network, prepare


def file_facts(settings: Settings, source: Artifact, network: nn.Module, data: Dataset) -> dict[str, Any]:
    """Metadata that a deployer needs to feed the file, to read its output, and to know what it is.

    Args:
        settings: of the export.
        source: the artefact that is exported: the key of its network is ``network_key``.
        network: what it holds.
        data: its data set.
    """
    params = dict(network.named_parameters())
    prunable = prunable_weights(network, spared_layers(source))
    prunable_zeros, prunable_total = count_zeros(params[slot.parameter] for slot in prunable)
    zeros, total = count_zeros(params.values())
    return {
        "network_key": source.key,
        "model": origin_of(source).model.name,
        "classes": data.classes,
        "preprocessing": data.preprocessing,
        "preprocessing_inside": settings.input == "uint8",
        "sparsity_prunable": prunable_zeros / prunable_total,
        "sparsity_model": zeros / total,
    }


def spared_layers(source: Artifact) -> tuple[str, ...]:
    """Layers that were left dense on purpose: in the pruning, or in the training where nothing was pruned."""
    pruned = None if source.stage == "train" else ancestor(source, "prune")  # a training's inputs are its teacher's
    if pruned is not None:
        return settings_of(prune.Settings, pruned).exclude
    return origin_of(source).method.settings.exclude


def as_asked(settings: Settings, dense: onnx.ModelProto, calibration: Callable[[], np.ndarray]) -> onnx.ModelProto:
    """The dense float32 model in the format that is asked for.

    Args:
        settings: of the export.
        dense: not changed.
        calibration: gives samples (N, ...) of the model's input, which ranges of int8 activations come from.
    """
    prefer = settings.prefer or "speed"  # None: nothing is packed that it could choose encodings for
    if settings.values == "int8":
        from tdcompress.onnxfile.quantise import quantise_model  # onnxruntime's quantiser takes 0.2 s to import

        bits = settings.int8_range or "portable"
        return quantise_model(dense, calibration(), weight_range=bits, pack=settings.pack, prefer=prefer)[0]
    if settings.pack or settings.values != "float32":
        return pack_model(dense, settings.values, prefer, sparse=settings.pack)[0]
    return dense


def rounding_error(given: np.ndarray, expected: np.ndarray) -> float:
    """Largest |difference| from torch's float32 outputs, of a file whose values are rounded; it says what rounding costs.

    Raises:
        VerificationError: an output is not finite, or not of torch's shape.
    """
    if given.shape != expected.shape or not np.isfinite(given).all():
        raise VerificationError(f"{ONNX}: outputs are not finite, or not of shape {expected.shape}")
    return float(np.abs(given - expected).max())


def write_samples(path: Path, samples: Tensor, output: np.ndarray) -> None:
    """Some inputs and what the file has to give for them on any machine.

    Args:
        path: the .npz file.
        samples: (N, ...), the network's inputs.
        output: (N, classes). Of float32 files torch's outputs. Of files whose values are rounded their own, as onnxruntime
            computed them when their accuracy was measured; torch has no network of these rounded weights. Processors round int8
            differently; `verify` allows for that.
    """
    arrays = {"input": samples[:SHIPPED_SAMPLES].contiguous().numpy(), "output": output[:SHIPPED_SAMPLES]}
    write_npz(path, arrays)


def count_correct(network: OnnxNetwork, data: Dataset, prepare: Prepare, work: Workspace) -> int:
    """How many test samples the file classifies rightly.

    Args:
        network: the file.
        data: its data set.
        prepare: stored pixels -> the network's input.
        work: told of progress.
    """
    test = data.test
    correct = 0
    for start in range(0, len(test), BATCH):
        work.progress.update(start, len(test), "accuracy under onnxruntime")
        work.stop_if_asked()
        part = slice(start, start + BATCH)
        logits = network(prepare(test.pixels[part]))
        correct += int((logits.argmax(1) == test.labels[part].numpy()).sum())
    return correct


def check_accuracy(onnx_correct: int, torch_accuracy: float, samples: int) -> None:
    """Accuracies of one network agree when at most two test samples differ (design, rule 5).

    Args:
        onnx_correct: samples that the file classifies rightly.
        torch_accuracy: of the artefact that was exported, measured by the stage that made it.
        samples: size of the test set.

    Raises:
        VerificationError: they differ by more.
    """
    torch_correct = round(torch_accuracy * samples)
    if abs(onnx_correct - torch_correct) > 2:
        raise VerificationError(f"{ONNX}: {onnx_correct} test samples right under onnxruntime, {torch_correct} in torch")


STAGE = Stage(name="export", version=VERSIONS["export"], settings=Settings, run=run)
