"""Stage "export": a deployed network -> one verified ONNX file, its accuracy under onnxruntime, and samples to verify it by."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tdcompress.artifacts import content_key
from tdcompress.errors import VerificationError
from tdcompress.export.check import check_agreement, compare, onnx_logits
from tdcompress.export.to_onnx import FromPixels, metadata_strings, to_model_proto
from tdcompress.files import published
from tdcompress.onnxfile.inspect import inspect_onnx
from tdcompress.onnxfile.load import load_model, opset, save_model
from tdcompress.onnxfile.metadata import set_metadata
from tdcompress.onnxfile.pack import pack_onnx
from tdcompress.onnxfile.quantise import quantise_int8
from tdcompress.pipeline import Workspace
from tdcompress.records import ExportRecord
from tdcompress.stages.experiment import Experiment, Values
from tdcompress.stages.network import deployed_network, load_data

VERSION = 1
ONNX, SAMPLES = "model.onnx", "samples.npz"
CHECKED_SAMPLES = 64
SHIPPED_SAMPLES = 16
CALIBRATION_SAMPLES = 256


def run(experiment: Experiment, values: Values, pack: bool, facts: dict[str, Any], work: Workspace) -> ExportRecord:
    """Export, pack, verify, measure.

    Args:
        experiment: the resolved recipe.
        values: number format of the weights.
        pack: whether zeros are packed away.
        facts: what the file's metadata says besides classes and preprocessing.
        work: the input "network" is what is exported.

    Raises:
        VerificationError: the file does not compute what torch computes; nothing is published.
    """
    network = deployed_network(experiment, work.inputs["network"])
    data = load_data(experiment.data)
    model, prepare = deployable(experiment, network)
    samples = prepare(data.test.pixels[:CHECKED_SAMPLES])
    path = work.folder / ONNX
    proto = to_model_proto(model, samples)
    set_metadata(proto, metadata_strings({**facts, **file_facts(experiment)}))
    write_file(experiment, proto, values, pack, path, prepare)
    with torch.inference_mode():
        expected = model(samples).numpy()
    exact = values == "float32"
    if exact:
        agreement = check_agreement(model, [samples], path)
        error, largest = agreement.max_error, agreement.max_output
    else:
        error, largest = compare(onnx_logits(path, samples), expected, float("inf"), path.name)
    correct = count_correct(path, data.test.pixels, data.test.labels, prepare, work)
    if exact:
        with torch.inference_mode():
            batches = [model(prepare(part)).argmax(1) for part in data.test.pixels.split(500)]
        check_accuracy(path, correct, int((torch.cat(batches) == data.test.labels).sum()))
    with published(work.folder / SAMPLES) as temporary, temporary.open("wb") as file:
        np.savez(
            file, allow_pickle=False, input=samples[:SHIPPED_SAMPLES].contiguous().numpy(), output=expected[:SHIPPED_SAMPLES]
        )
    report = inspect_onnx(path)
    return ExportRecord(
        opset=opset(load_model(path)),
        values=values,
        onnx_bytes=path.stat().st_size,
        bound_bytes=report.bound_bytes,
        encodings=_encoding_counts(report),
        max_error=error,
        max_output=largest,
        samples=len(samples),
        accuracy=correct / len(data.test),
    )


def deployable(experiment: Experiment, network: nn.Module) -> tuple[nn.Module, Any]:
    """The module that is exported, and what turns stored pixels into its input."""
    preprocess = load_data(experiment.data).preprocess.cpu()
    if experiment.export.input == "uint8":
        return FromPixels(preprocess, network).eval(), lambda pixels: pixels

    def prepare(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            ready: Tensor = preprocess(pixels)
        return ready.clone().contiguous()

    return network, prepare


def file_facts(experiment: Experiment) -> dict[str, Any]:
    """Metadata that a deployer needs to feed the file and to read its output."""
    data = load_data(experiment.data)
    inside = experiment.export.input == "uint8"
    return {"classes": data.classes, "preprocessing": data.preprocessing, "preprocessing_inside": inside}


def write_file(experiment: Experiment, proto: onnx.ModelProto, values: Values, pack: bool, path: Path, prepare: Any) -> None:
    """Write the dense float32 file, then turn it into the format that is asked for."""
    save_model(proto, path)
    if values == "int8":
        pixels = load_data(experiment.data).train.pixels[:CALIBRATION_SAMPLES]
        quantise_int8(path, path, prepare(pixels).numpy())
    elif pack or values == "float16":
        pack_onnx(path, path, values=values, prefer=experiment.export.prefer)


def count_correct(path: Path, pixels: Tensor, labels: Tensor, prepare: Any, work: Workspace) -> int:
    """How many test samples the file classifies rightly under onnxruntime."""

    def between(done: int, total: int) -> None:
        work.progress.update(done, total, "accuracy under onnxruntime")
        work.stop_if_asked()

    logits = onnx_logits(path, pixels, prepare=prepare, between=between)
    return int((logits.argmax(1) == labels.numpy()).sum())


def check_accuracy(path: Path, onnx_correct: int, torch_correct: int) -> None:
    """Accuracies of one network agree when at most two test samples differ (design, rule 5)."""
    if abs(onnx_correct - torch_correct) > 2:
        raise VerificationError(f"{path.name}: {onnx_correct} test samples right under onnxruntime, {torch_correct} in torch")


def recipe_key(experiment: Experiment) -> str:
    """Hash of the resolved recipe, for the file's metadata."""
    return content_key(experiment)


def _encoding_counts(report: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for tensor in report.tensors:
        counts[tensor.encoding] = counts.get(tensor.encoding, 0) + 1
    return counts
