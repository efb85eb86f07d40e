"""Stage "export": a deployed network -> one verified ONNX file, its accuracy under onnxruntime, and samples to verify it by."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import onnx
import torch
from torch import nn

from tdcompress.artifacts import Artifact
from tdcompress.errors import UserError, VerificationError
from tdcompress.export.check import BATCH, OnnxNetwork, check_agreement
from tdcompress.export.outputs import named_outputs
from tdcompress.export.to_onnx import metadata_strings, to_model_proto
from tdcompress.export.traced_once import traced_once
from tdcompress.files import published
from tdcompress.lineage.network import load_network
from tdcompress.lineage.origin import ancestor, learning_task_of, origin_of, settings_of
from tdcompress.lineage.versions import RECORDS, VERSIONS
from tdcompress.npz import write_npz
from tdcompress.onnxfile.encodings.forms import FORMS
from tdcompress.onnxfile.inspect import inspect_model
from tdcompress.onnxfile.load import save_model
from tdcompress.onnxfile.metadata import GRANULARITY, set_metadata
from tdcompress.onnxfile.names import SAMPLES
from tdcompress.onnxfile.pack import pack_model
from tdcompress.pipeline import Stage, Workspace
from tdcompress.records.stages import ExportRecord, Values
from tdcompress.report import text
from tdcompress.sparsity.masks import count_zeros
from tdcompress.sparsity.units import prunable_weights
from tdcompress.stages import prune
from tdcompress.tasks.base import ExportPart, FileMeasure, Said

ONNX = "model.onnx"

T = TypeVar("T")


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
        prefer: "size" also allows encodings that load more slowly, and short names, which `inspect` gives back.
        input: "float32" NCHW, preprocessed by the caller; or "uint8" NHWC images, preprocessed inside the graph.
        values: number formats of the files; each gives a row. "int8" computes in integers; "codebook16", "int8-kept" and
            "int4-kept" round the weights whose zeros are packed: to 16 values a layer, or to integers and one scale a layer.
        int8_range: "portable": 7-bit weights, whose sums come out the same on every processor; "full": 8-bit weights, one
            bit more, for files that will run only on ARM or on x86 with VNNI (others cut large sums, and `verify` and `bench`
            say so).
        measures: what is measured of each file: "all" that the task has, or its "main" measure alone, by which rows are
            selected. Of translations greedy search is the main one, and the search with a beam takes several times as long.
        select: which row becomes model.onnx.
    """

    pack: Literal["auto", "never"] = "auto"
    prefer: Literal["speed", "size"] = "speed"
    input: Literal["float32", "uint8"] = "float32"
    values: tuple[Values, ...] = ("float32",)
    int8_range: Literal["portable", "full"] = "portable"
    measures: Literal["all", "main"] = "all"
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
            measures=self.measures,
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
        measures: as in the recipe.
    """

    pack: bool
    prefer: Literal["speed", "size"] | None
    input: Literal["float32", "uint8"]
    values: Values
    int8_range: Literal["portable", "full"] | None
    measures: Literal["all", "main"]

    def __post_init__(self) -> None:
        if (self.prefer is not None) != self.pack:
            raise ValueError("prefer: it chooses among the encodings of packed zeros; None without these")
        if (self.int8_range is not None) != (self.values == "int8"):
            raise ValueError('int8_range: it is of values = "int8"; None for others')

    @property
    def rounded(self) -> bool:
        """Whether the files' values are not torch's."""
        return self.values != "float32"


def run(settings: Settings, work: Workspace) -> ExportRecord:
    """Export, pack, verify and measure in memory; then save.

    Raises:
        VerificationError: a file does not compute what torch computes; nothing is published.
    """
    source = work.inputs["network"]
    task = learning_task_of(source, work.machine.places)
    network = load_network(source, task)
    exported = task.exports(network, pixels=settings.input == "uint8")
    protos = traced_once(
        (source.key, *sorted(source.files.items()), settings.input),
        lambda: {
            part.file: to_model_proto(part.module, part.samples, names=part.names, axes=part.axes) for part in exported.parts
        },
    )
    first = exported.parts[0].file
    set_metadata(protos[first], metadata_strings(file_facts(source, network, exported.facts)))
    for proto in protos.values():  # network_key: files of one network know each other
        set_metadata(proto, {"network_key": source.key} | metadata_strings(pruning_facts(source)))
    made = {part.file: as_asked(settings, protos[part.file], partial(calibration_of, part)) for part in exported.parts}
    protos = {name: model for name, (model, _) in made.items()}
    kept = [reasons if len(made) == 1 else _within(name, reasons) for name, (_, reasons) in made.items()]
    kept_float32 = {name: reason for reasons in kept for name, reason in reasons.items()}
    files = {name: OnnxNetwork(proto, name) for name, proto in protos.items()}
    compared = [compare_part(part, files[part.file], rounded=settings.rounded) for part in exported.parts]

    def saying(what: str) -> Said:
        def said(done: int, of: int) -> None:
            work.progress.update(done, of, f"{what} under onnxruntime")
            work.stop_if_asked()

        return said

    expected = None if settings.rounded else source.recorded_number("accuracy")
    measured = exported.measured(files, expected, saying(task.measure.name))
    figures = exported.figures(files, saying("other measures")) if settings.measures == "all" else ()
    set_metadata(protos[first], metadata_strings({"accuracy": measured.accuracy}))
    for name, proto in protos.items():
        save_model(proto, work.folder / name)
    for name, content in exported.extras.items():
        with published(work.folder / name) as temporary:
            temporary.write_bytes(content)
    samples = [recorded_samples(part, each.outputs) for part, each in zip(exported.parts, compared, strict=True)]
    extras = [_within(name, arrays) for name, arrays in exported.recorded.items()]
    write_npz(work.folder / SAMPLES, {name: array for arrays in (*samples, *extras) for name, array in arrays.items()})
    reports = [inspect_model(proto) for proto in protos.values()]
    encodings: Counter[str] = Counter()
    for report in reports:
        encodings.update(report.encodings)
    zeros, total = count_zeros(network.parameters())
    return ExportRecord(
        opset=reports[0].opset,
        values=settings.values,
        onnx_bytes=sum(report.file_bytes for report in reports) + sum(map(len, exported.extras.values())),
        bound_bytes=sum(report.bound_bytes for report in reports),
        encodings=dict(encodings),
        parameters_nonzero=total - zeros,
        max_error=max(part.max_error for part in compared),
        max_output=max(part.max_output for part in compared),
        samples=len(exported.parts[0].samples[0]),
        measure=task.measure,
        accuracy=measured.accuracy,
        how=measured.how,
        figures=figures,
        unlike_torch=measured.unlike_torch,
        notes=(*unlike_notes(measured, task.test_samples), *text.by_reason("kept in float32", kept_float32)),
        as_asked=sum(tensor.stored == settings.values for report in reports for tensor in report.tensors),
        kept_float32=kept_float32,
    )


def unlike_notes(measured: FileMeasure, samples: int) -> tuple[str, ...]:
    """What a person should know of a file that does not answer all test samples as torch does.

    Args:
        measured: of the file.
        samples: of the test set.
    """
    if not measured.unlike_torch:
        return ()
    return (f"{measured.unlike_torch} of {samples:,} test samples are answered otherwise than in torch, each from a tie on",)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A file beside its module.

    Attributes:
        max_error: largest |difference| of an output.
        max_output: largest |output|.
        outputs: (N, ...) by name, what the file has to give for its samples on any machine. For float32 files these are
            torch's outputs. For files whose values are rounded they are the file's own, as onnxruntime computes them here: torch
            has no network of these rounded weights. Processors round int8 differently; `verify` allows for that.
    """

    max_error: float
    max_output: float
    outputs: Mapping[str, np.ndarray]


def compare_part(part: ExportPart, file: OnnxNetwork, *, rounded: bool) -> Compared:
    """Compare a file with torch on real samples.

    Args:
        part: the module and its inputs.
        file: under onnxruntime.
        rounded: its values are; then the difference says what rounding costs, and may be large.

    Raises:
        VerificationError: outputs differ though nothing is rounded, are not finite, or not of torch's shape.
    """
    with torch.inference_mode():
        expected = {name: output.numpy() for name, output in named_outputs(part.module(*part.samples), part.names).items()}
    if rounded:
        given = file.outputs(part.samples)
        errors = [rounding_error(given[name], output, part.file) for name, output in expected.items()]
        largest = max(float(np.abs(output).max()) for output in expected.values())
        return Compared(max_error=max(errors), max_output=largest, outputs=given)
    own = BATCH if part.axes is None else ()  # without a batch that all inputs share, inputs are compared as they are
    found = [check_agreement(part.module, part.samples, file, free_axes=own)]
    found += [check_agreement(part.module, inputs, file, free_axes=()) for inputs in part.others]
    error, largest = max(each.max_error for each in found), max(each.max_output for each in found)
    return Compared(max_error=error, max_output=largest, outputs=expected)


def file_facts(source: Artifact, network: nn.Module, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata that a deployer needs to feed the file, to read its output, and to know what it is.

    Args:
        source: the artefact that is exported: the key of its network is ``network_key``.
        network: what it holds.
        facts: of the task.
    """
    params = dict(network.named_parameters())
    prunable = prunable_weights(network, spared_layers(source))
    prunable_zeros, prunable_total = count_zeros(params[slot.parameter] for slot in prunable)
    zeros, total = count_zeros(params.values())
    return {
        "network_key": source.key,
        "model": origin_of(source).model.name,
        **facts,
        "sparsity_prunable": prunable_zeros / prunable_total,
        "sparsity_model": zeros / total,
    }


def pruning_facts(source: Artifact) -> dict[str, Any]:
    """Metadata of how a network was pruned, by the fraction that held; none of one that is as it was trained."""
    settings = pruning_of(source)
    if settings is None:
        return {}
    fraction = prune.fraction_held(settings, origin_of(source).method.settings)
    asked: dict[str, Any] = {"fraction": fraction, "keep_per_filter": settings.keep_per_filter}
    if fraction and settings.granularity != "2:4":  # which has nothing to split
        asked["shares"] = settings.shares
    facts = {f"prune_{key}": value for key, value in asked.items() if value is not None}
    return {GRANULARITY: settings.granularity, **facts}


def spared_layers(source: Artifact) -> tuple[str, ...]:
    """Layers that were left dense on purpose: in the pruning, or in the training where nothing was pruned."""
    pruned = pruning_of(source)
    return origin_of(source).method.settings.exclude if pruned is None else pruned.exclude


def pruning_of(source: Artifact) -> prune.Settings | None:
    """The settings of the pruning that a network went through; None of one that is as it was trained."""
    pruned = None if source.stage == "train" else ancestor(source, "prune")  # a training's inputs are its teacher's
    return None if pruned is None else settings_of(prune.Settings, pruned)


def as_asked(
    settings: Settings, dense: onnx.ModelProto, calibration: Callable[[], np.ndarray]
) -> tuple[onnx.ModelProto, Mapping[str, str]]:
    """The dense float32 model in the format that is asked for; and weight -> reason for matrices that are not rounded to it.

    Args:
        settings: of the export.
        dense: not changed.
        calibration: gives samples (N, ...) of the model's input, which ranges of int8 activations come from.
    """
    prefer = settings.prefer or "speed"  # None: nothing is packed that it could choose encodings for
    if settings.values == "int8":
        from tdcompress.onnxfile.quantise import quantise_model  # onnxruntime's quantiser takes 0.2 s to import

        bits = settings.int8_range or "portable"
        return quantise_model(dense, calibration(), weight_range=bits, pack=settings.pack, prefer=prefer)[0], {}
    if settings.pack or settings.rounded:
        packed, report = pack_model(dense, settings.values, prefer, sparse=settings.pack)
        return packed, report.kept_float32
    return dense, {}


def calibration_of(part: ExportPart) -> np.ndarray:
    """Samples of a file's only input, for ranges of int8 activations.

    Raises:
        UserError: it has several inputs.
    """
    inputs = part.calibration()
    if len(inputs) > 1:
        raise UserError(f'export.values: "int8" is for files of one input, and {part.file} has {len(inputs)}; choose another')
    return inputs[0].numpy()


def rounding_error(given: np.ndarray, expected: np.ndarray, file: str) -> float:
    """Largest |difference| from torch's float32 outputs, of a file whose values are rounded; it says what rounding costs.

    Args:
        given: the file's outputs, (N, ...).
        expected: torch's, of the same shape.
        file: its name, for messages.

    Raises:
        VerificationError: an output is not finite, or not of torch's shape.
    """
    if given.shape != expected.shape or not np.isfinite(given).all():
        raise VerificationError(f"{file}: outputs are not finite, or not of shape {expected.shape}")
    return float(np.abs(given - expected).max())


def recorded_samples(part: ExportPart, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Some inputs and what the file has to give for them, `Compared.outputs`: arrays (N, ...) by name.

    Those of a file with several inputs or outputs have its name in front, "decoder_step.onnx/token".

    Args:
        part: gives the inputs.
        outputs: by name, (N, ...) each.
    """
    inputs = {name: samples.contiguous().numpy() for name, samples in zip(part.names, part.samples, strict=True)}
    arrays = {name: array[: part.shipped] for name, array in (inputs | dict(outputs)).items()}
    return arrays if (len(inputs), len(outputs)) == (1, 1) else _within(part.file, arrays)


def _within(file: str, named: Mapping[str, T]) -> dict[str, T]:
    return {f"{file}/{name}": value for name, value in named.items()}


STAGE = Stage(name="export", version=VERSIONS["export"], settings=Settings, run=run, record=RECORDS["export"])
