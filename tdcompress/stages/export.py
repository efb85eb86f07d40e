"""Stage "export": a deployed network -> one verified ONNX file, its accuracy under onnxruntime, and samples to verify it by."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tdcompress.errors import VerificationError
from tdcompress.export.check import OnnxNetwork, check_agreement
from tdcompress.export.to_onnx import FromPixels, metadata_strings, to_model_proto
from tdcompress.files import published
from tdcompress.onnxfile.inspect import inspect_onnx
from tdcompress.onnxfile.load import load_model, save_model
from tdcompress.onnxfile.metadata import set_metadata
from tdcompress.onnxfile.pack import pack_onnx
from tdcompress.pipeline import Workspace
from tdcompress.records import ExportRecord
from tdcompress.sparsity.masks import count_zeros
from tdcompress.sparsity.units import prunable_weights
from tdcompress.stages.experiment import Experiment, Values
from tdcompress.stages.network import EVALUATION_BATCH, deployed_network, load_data

Prepare = Callable[[Tensor], Tensor]

VERSION = 6
ONNX, SAMPLES = "model.onnx", "samples.npz"
CHECKED_SAMPLES = 64
SHIPPED_SAMPLES = 16
CALIBRATION_SAMPLES = 256


def run(experiment: Experiment, values: Values, pack: bool, recipe_key: str, work: Workspace) -> ExportRecord:
    """Export, pack, verify, measure.

    Args:
        experiment: the resolved recipe.
        values: number format of the weights.
        pack: whether zeros are packed away.
        recipe_key: hash of everything that the network depends on, for the file's metadata.
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
    set_metadata(proto, metadata_strings({"recipe_key": recipe_key, **file_facts(experiment, network)}))
    write_file(experiment, proto, values, pack, path, prepare)
    onnx_correct = count_correct(OnnxNetwork(path), experiment, prepare, work)
    stamped = load_model(path)
    set_metadata(stamped, metadata_strings({"accuracy": onnx_correct / len(data.test)}))
    save_model(stamped, path)
    with torch.inference_mode():
        expected = model(samples).numpy()
    given = OnnxNetwork(path)(samples)
    if values == "float32":
        agreement = check_agreement(model, [samples], path)
        error, largest = agreement.max_error, agreement.max_output
        check_accuracy(path, onnx_correct, work.inputs["network"].record["accuracy"], len(data.test))
    else:
        error, largest = rounding_error(path, given, expected), float(np.abs(expected).max())
    write_samples(work.folder / SAMPLES, values, samples, expected, given)
    report = inspect_onnx(path)
    zeros, total = count_zeros(network.parameters())
    return ExportRecord(
        opset=report.opset,
        values=values,
        onnx_bytes=report.file_bytes,
        bound_bytes=report.bound_bytes,
        encodings=report.encodings,
        parameters_nonzero=total - zeros,
        max_error=error,
        max_output=largest,
        samples=len(samples),
        accuracy=onnx_correct / len(data.test),
    )


def deployable(experiment: Experiment, network: nn.Module) -> tuple[nn.Module, Prepare]:
    """The module that is exported, and what turns stored pixels into its input."""
    preprocess = load_data(experiment.data).preprocess.cpu()
    if experiment.export.input == "uint8":
        return FromPixels(preprocess, network).eval(), lambda pixels: pixels

    def prepare(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            ready: Tensor = preprocess(pixels)
        return ready.clone().contiguous()

    return network, prepare


def file_facts(experiment: Experiment, network: nn.Module) -> dict[str, Any]:
    """Metadata that a deployer needs to feed the file, to read its output, and to know what it is."""
    data = load_data(experiment.data)
    params = dict(network.named_parameters())
    prunable_zeros, prunable = count_zeros(params[slot.parameter] for slot in prunable_weights(network, experiment.exclude))
    zeros, total = count_zeros(params.values())
    return {
        "model": experiment.model_name,
        "classes": data.classes,
        "preprocessing": data.preprocessing,
        "preprocessing_inside": experiment.export.input == "uint8",
        "sparsity_prunable": prunable_zeros / prunable,
        "sparsity_model": zeros / total,
    }


def write_file(experiment: Experiment, proto: onnx.ModelProto, values: Values, pack: bool, path: Path, prepare: Prepare) -> None:
    """Write the dense float32 file, then turn it into the format that is asked for."""
    save_model(proto, path)
    if values == "int8":
        from tdcompress.onnxfile.quantise import quantise_int8  # onnxruntime's quantiser takes 0.2 s to import

        pixels = load_data(experiment.data).train.pixels[:CALIBRATION_SAMPLES]
        export, calibration = experiment.export, prepare(pixels).numpy()
        quantise_int8(path, path, calibration, weight_range=export.int8_range, pack=pack, prefer=export.prefer)
    elif pack or values == "float16":
        pack_onnx(path, path, values=values, prefer=experiment.export.prefer, sparse=pack)


def rounding_error(path: Path, given: np.ndarray, expected: np.ndarray) -> float:
    """Largest |difference| from torch's float32 outputs, of a file whose values are rounded; it says what rounding costs.

    Raises:
        VerificationError: an output is not finite, or not of torch's shape.
    """
    if given.shape != expected.shape or not np.isfinite(given).all():
        raise VerificationError(f"{path.name}: outputs are not finite, or not of shape {expected.shape}")
    return float(np.abs(given - expected).max())


def write_samples(path: Path, values: Values, samples: Tensor, expected: np.ndarray, given: np.ndarray) -> None:
    """Some inputs and what the file has to give for them on any machine.

    float32: torch's outputs. float16, int8: the file's own, as onnxruntime computed them when its accuracy was measured; torch
    has no network of these rounded weights. Processors round int8 differently; `verify` allows for that.
    """
    output = (expected if values == "float32" else given)[:SHIPPED_SAMPLES]
    arrays = {"input": samples[:SHIPPED_SAMPLES].contiguous().numpy(), "output": output}
    with published(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def count_correct(network: OnnxNetwork, experiment: Experiment, prepare: Prepare, work: Workspace) -> int:
    """How many test samples the file classifies rightly."""
    test = load_data(experiment.data).test
    correct = 0
    for start in range(0, len(test), EVALUATION_BATCH):
        work.progress.update(start, len(test), "accuracy under onnxruntime")
        work.stop_if_asked()
        part = slice(start, start + EVALUATION_BATCH)
        logits = network(prepare(test.pixels[part]))
        correct += int((logits.argmax(1) == test.labels[part].numpy()).sum())
    return correct


def check_accuracy(path: Path, onnx_correct: int, torch_accuracy: float, samples: int) -> None:
    """Accuracies of one network agree when at most two test samples differ (design, rule 5).

    Args:
        path: the file.
        onnx_correct: samples that the file classifies rightly.
        torch_accuracy: of the artefact that was exported, measured by the stage that made it.
        samples: size of the test set.

    Raises:
        VerificationError: they differ by more.
    """
    torch_correct = round(torch_accuracy * samples)
    if abs(onnx_correct - torch_correct) > 2:
        raise VerificationError(f"{path.name}: {onnx_correct} test samples right under onnxruntime, {torch_correct} in torch")
