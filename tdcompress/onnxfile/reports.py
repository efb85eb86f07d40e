"""Frozen results of this folder, each with a JSON round trip."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from tdcompress.codec import decode, encode

PackValues = Literal["float32", "float16", "codebook16", "int8-kept", "int4-kept"]
Prefer = Literal["speed", "size"]
WeightRange = Literal["portable", "full"]


class _Json:
    """JSON values of a report and back."""

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        values: dict[str, Any] = encode(self)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The report that `to_json` was called on.

        Raises:
            ValueError: a field is missing, unknown or of a wrong type; the message names it.
        """
        return decode(cls, values)


@dataclass(frozen=True, kw_only=True)
class TensorReport(_Json):
    """One weight of a file.

    Attributes:
        name: value name; in a subgraph "node.attribute/name", in a function "function()/name".
        shape: as the network sees it.
        dtype: element type that the network sees.
        stored: element type of the values in the file, or "codebook16", "int8-kept", "int4-kept".
        elements: number of elements.
        zeros: how many of them are 0 or -0; of a quantised weight, how many are its zero point, which stands for 0.
        encoding: name of the encoding; "constant" = in a Constant node.
        file_bytes: what this weight adds to the file, without the decoder it shares with others.
        bound_bytes: value bits + n H(p) position bits, or dense where that is less; and the weight's own table, if it has one. In
            a file whose metadata say that a pattern was pruned, positions are counted as that allows (`patterns.py`).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: str
    elements: int
    zeros: int
    encoding: str
    file_bytes: int
    bound_bytes: float


@dataclass(frozen=True, kw_only=True)
class ValueReport(_Json):
    """An input or output: name, element type, shape (a number, or the name of a free size)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class FileReport(_Json):
    """One ONNX file.

    Attributes:
        file_bytes: bytes on disk.
        gzip_bytes: bytes of `gzip -6` of the file.
        bound_bytes: sum of the tensors' bounds; graph structure not counted.
        decoder_bytes: bytes of the shared decoders.
        graph_bytes: the rest: nodes, names, inputs and outputs, metadata.
        names_saved_bytes: by how much the file is shorter than all of these, because its names are listed; 0 where they are not.
        opset: of the standard domain.
        ir_version: of the file format.
        parameters: elements of all weights that are floats or integers of at most 8 bits.
        zeros: zeros among them.
        operators: operator name -> number of nodes, decoders not counted.
        metadata: the model's metadata.
        loading_bytes: memory that a runtime which folds constants takes for a moment to unpack the file, over the dense one's.
        unfolded: whether a result of a decoder is so large (over 1 GiB) that onnxruntime computes it on every call.
        inputs: what the caller gives.
        outputs: what the caller gets.
        tensors: every weight, in file order.
    """

    file_bytes: int
    gzip_bytes: int
    bound_bytes: float
    decoder_bytes: int
    graph_bytes: int
    names_saved_bytes: int
    opset: int
    ir_version: int
    parameters: int
    zeros: int
    operators: dict[str, int]
    metadata: dict[str, str]
    loading_bytes: int
    unfolded: bool
    inputs: tuple[ValueReport, ...]
    outputs: tuple[ValueReport, ...]
    tensors: tuple[TensorReport, ...]

    @property
    def encodings(self) -> dict[str, int]:
        """Encoding -> number of weights, by name."""
        return dict(sorted(Counter(tensor.encoding for tensor in self.tensors).items()))

    @property
    def sparsity(self) -> float:
        """Share of zeros among the file's parameters, 0..1."""
        return self.zeros / self.parameters if self.parameters else 0.0

    @property
    def ratio_to_bound(self) -> float:
        """File bytes / bound bytes; 1 is ideal."""
        return self.file_bytes / self.bound_bytes if self.bound_bytes else float("inf")


@dataclass(frozen=True, kw_only=True)
class PackReport(_Json):
    """What packing did.

    Attributes:
        source_bytes: bytes of the input as one file, external data included.
        dense_bytes: bytes of the same model with every weight dense.
        file_bytes: bytes of the packed file.
        bound_bytes: the file's bound (see FileReport).
        values: what was asked for.
        prefer: preference asked for.
        left_as_is: why the file is the input's own, word for word; "" where it is packed.
        encodings: encoding -> number of weights.
        tensors: every weight as it is in the packed file.
        kept_dense: weight -> reason, for weights with zeros that could not be encoded.
        kept_float32: weight -> reason, for float32 matrices that are not rounded as asked.
        negative_zeros: weights that were -0.0 and are +0.0 now; everything else is bit-exact with values="float32".
        weight_error: largest |rounded - exact| / max |exact| over the weights that were rounded; 0 with float32.
        underflows: non-zero weights that became zero.
        lost: largest share (0..1) of a matrix's non-zero weights that moved by 0.9 of their own size or more.
        output_error: largest |output difference| / max |output| against the source on random inputs; None where
            no inputs could be made up, no output is finite, or outputs have other shapes. 0 with float32.
        outputs_not_finite: how many outputs on these inputs are NaN or infinite, and were not compared: of the source, of the
            packed file.
    """

    source_bytes: int
    dense_bytes: int
    file_bytes: int
    bound_bytes: float
    values: PackValues
    prefer: Prefer
    left_as_is: str
    encodings: dict[str, int]
    tensors: tuple[TensorReport, ...]
    kept_dense: dict[str, str]
    kept_float32: dict[str, str]
    negative_zeros: int
    weight_error: float
    underflows: int
    lost: float
    output_error: float | None
    outputs_not_finite: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class UnpackReport(_Json):
    """What unpacking did.

    Attributes:
        source_bytes: bytes of the input as one file, external data included.
        file_bytes: bytes of the dense file.
        restored: how many weights became ordinary initializers.
    """

    source_bytes: int
    file_bytes: int
    restored: int


@dataclass(frozen=True, kw_only=True)
class VerifyReport(_Json):
    """A file that passed: a failure raises.

    Attributes:
        file_bytes: bytes on disk.
        opset: of the standard domain.
        weights: number of weights decoded and checked.
        samples: how many were compared; 0 without a samples file.
        max_error: largest |difference| to the expected outputs.
        max_output: largest |expected output|.
        tolerance: largest difference allowed.
        ties: samples whose two largest outputs are closer than the tolerance allows to tell apart.
        notes: what to know before running it on this processor.
    """

    file_bytes: int
    opset: int
    weights: int
    samples: int
    max_error: float
    max_output: float
    tolerance: float
    ties: int
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What passed, in words."""
        compared = f"{self.samples} samples, largest difference {self.max_error:.2g}"
        return f"valid, loads, {compared if self.samples else 'no outputs recorded to compare'}"


@dataclass(frozen=True, kw_only=True)
class QuantiseReport(_Json):
    """What static int8 quantisation did.

    Attributes:
        source_bytes: bytes of the input file.
        file_bytes: bytes of the int8 file.
        packed: whether int8 weights are packed (only where that makes the file smaller).
        calibration_samples: samples that the activation ranges come from.
        quantised_weights: number of int8 weights.
        elements: elements of these.
        zeros_before: zeros among these before quantisation.
        zeros_after: zeros among these after it; rounding adds some.
        output_error: largest |output difference| / max |output| against the source on the calibration samples.
    """

    source_bytes: int
    file_bytes: int
    packed: bool
    calibration_samples: int
    quantised_weights: int
    elements: int
    zeros_before: int
    zeros_after: int
    output_error: float
