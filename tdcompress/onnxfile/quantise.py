"""Static int8 quantisation (QDQ) by onnxruntime's own quantiser, and packing of the zeros that survive it.

Weights are symmetric, per output channel: zero point 0, so that a pruned weight stays exactly 0 and further small ones
join it. Activations are uint8 with ranges from calibration samples. Weights have 7 bits unless asked otherwise, so that sums
come out the same on every processor (`saturation`).
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

from tdcompress.errors import ModelError, UnsupportedError, VerificationError, one_line
from tdcompress.files import StrPath
from tdcompress.onnxfile.graphs import graphs
from tdcompress.onnxfile.listed_names import with_own_names
from tdcompress.onnxfile.load import in_file, load_model, save_model, serialised
from tdcompress.onnxfile.metadata import get_metadata, set_metadata
from tdcompress.onnxfile.pack import pack_model
from tdcompress.onnxfile.passes import graph_pass, signature_of
from tdcompress.onnxfile.prepare import prepared
from tdcompress.onnxfile.reports import Prefer, QuantiseReport, WeightRange
from tdcompress.onnxfile.runtime import compare_outputs, open_session
from tdcompress.onnxfile.strip import strip
from tdcompress.onnxfile.tensors import Array
from tdcompress.onnxfile.weights import densified, is_packed, sections, stored_weights

_METHODS: Mapping[str, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
# onnxruntime has no int8 kernel for these: rounding their vectors would cost accuracy and gain nothing.
_FLOAT_ONLY = frozenset({"BatchNormalization", "InstanceNormalization", "LayerNormalization"})
_BATCH = 32
_SUFFIX = "_quantized"  # what onnxruntime's quantiser appends to the name of a weight


def quantise_int8(
    src: StrPath,
    dst: StrPath,
    calibration: Array,
    *,
    method: Literal["minmax", "entropy", "percentile"] = "minmax",
    weight_range: WeightRange = "portable",
    pack: bool = True,
    prefer: Prefer = "speed",
    external_data: bool = False,
) -> QuantiseReport:
    """Quantise `src` and publish the result.

    Args:
        src: a float32 model of one input; a packed one is unpacked first.
        dst: the int8 file; may be `src`.
        calibration: samples (N, ...) as the model's input takes them; ranges of activations come from these.
        method: how ranges come from samples.
        weight_range: "portable": weights of -64 .. 64, with which no processor's 8-bit sums saturate. "full": -127 .. 127, one
            bit more; needs ARM, or x86 with VNNI, wherever the file is to run.
        pack: pack int8 weights where that makes the file smaller.
        prefer: see `pack_onnx`.
        external_data: accept weights in files beside `src`.

    Raises:
        ModelError: `src` is not a model, or the samples do not fit its input.
        UnsupportedError: several inputs, or nothing in the model that can be quantised.
        VerificationError: onnxruntime does not run the result, packed weights do not decode, or outputs that were finite are not.
    """
    source = load_model(src, external_data=external_data)
    with in_file(src):
        quantised, report = quantise_model(
            source, calibration, method=method, weight_range=weight_range, pack=pack, prefer=prefer
        )
    save_model(quantised, dst)
    return report


def _inputs_not_one(model: onnx.ModelProto) -> str:
    count = len(signature_of(model)[0])
    return "" if count == 1 else f"quantisation is for models of one input; this one has {count}"


def _no_int8_weight(model: onnx.ModelProto) -> str:
    for _, graph in graphs(with_own_names(model)):
        dense = (tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8)
        int8 = (section for key, section in sections(graph).items() if key.dtype == np.int8)
        packed = (name for section in int8 for node in section.nodes for name in node.output)
        if any(name.endswith(_SUFFIX) for name in (*dense, *packed)):
            return ""
    return "no weight is int8"


@graph_pass(requires=[_inputs_not_one], ensures=[_no_int8_weight])
def quantise_model(
    source: onnx.ModelProto,
    calibration: Array,
    *,
    method: Literal["minmax", "entropy", "percentile"] = "minmax",
    weight_range: WeightRange = "portable",
    pack: bool = True,
    prefer: Prefer = "speed",
) -> tuple[onnx.ModelProto, QuantiseReport]:
    """As `quantise_int8`, on a model in memory; the source is not changed.

    Requires: a well-formed graph (`passes.malformed`) of one input beside initializers; it may be packed.
    Ensures: at least one weight is int8, and no more outputs than before are NaN or infinite on the calibration samples.

    Args:
        source: the model.
        calibration: (N, ...), samples of its input.
        method: how ranges come from them.
        weight_range: "portable" = 7 bits, "full" = 8.
        pack: whether zeros are packed away.
        prefer: see `pack_onnx`.
    """
    dense = prepared(densified(source))[0]
    batches = _batches(dense, calibration)
    folded, quantised = _quantised(dense, batches, method, weight_range)
    quantised.ClearField("metadata_props")  # the quantiser's own remarks
    set_metadata(quantised, get_metadata(dense))
    if pack:
        quantised = pack_model(quantised, prefer=prefer)[0]
    before = {weight.name + _SUFFIX: weight.array for weight in stored_weights(folded)}
    weights = [w for w in stored_weights(quantised) if w.array.dtype == np.int8 and w.name in before]
    if not weights:
        raise UnsupportedError("nothing in it can be quantised to int8")
    compared = compare_outputs(open_session(dense), open_session(quantised), batches)
    before_int8, as_int8 = compared.not_finite
    if compared.error is None or as_int8 > before_int8:
        lost = (
            f"{as_int8} output values are NaN or infinite as int8, {before_int8} before"
            if as_int8
            else "outputs have other shapes"
        )
        raise VerificationError(f"{lost}, on the calibration samples")
    return quantised, QuantiseReport(
        source_bytes=source.ByteSize(),
        file_bytes=len(serialised(quantised)),
        packed=any(is_packed(weight.key) for weight in weights),
        calibration_samples=len(calibration),
        quantised_weights=len(weights),
        elements=sum(weight.array.size for weight in weights),
        zeros_before=sum(int(np.count_nonzero(before[weight.name] == 0)) for weight in weights),
        zeros_after=sum(int(np.count_nonzero(weight.array == 0)) for weight in weights),
        output_error=compared.error,
    )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands the quantiser one batch after the other."""

    def __init__(self, batches: list[dict[str, Array]]) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._left, None)


def _quantised(
    dense: onnx.ModelProto, batches: list[dict[str, Array]], method: str, weight_range: WeightRange
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """(the model with BatchNorms folded, which is what is quantised; the quantised model)."""
    with tempfile.TemporaryDirectory(prefix="tdcompress-") as folder:
        dense_path, folded_path, quantised_path = (Path(folder) / f"{name}.onnx" for name in ("dense", "folded", "int8"))
        # a file: of a model in memory the preprocessing takes the weights out, and with them shapes that Reshape needs
        onnx.save(dense, dense_path)
        try:
            with _quiet():
                quant_pre_process(dense_path, folded_path, skip_symbolic_shape=True)
                quantize_static(
                    onnx.load(folded_path),
                    quantised_path,
                    _Reader(batches),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry} - _FLOAT_ONLY),
                    per_channel=True,
                    reduce_range=weight_range == "portable",
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=_METHODS[method],
                    extra_options={"WeightSymmetric": True},
                )
        except Exception as error:  # the quantiser raises many types, onnxruntime's among them
            raise UnsupportedError(f"onnxruntime cannot quantise this model: {one_line(error)}") from error
        return onnx.load(folded_path), strip(onnx.load(quantised_path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's prints and its remarks to the root logger (which would install a handler there)."""
    root, handler, disabled = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
        root.removeHandler(handler)


def _batches(model: onnx.ModelProto, calibration: Array) -> list[dict[str, Array]]:
    (value,) = open_session(model).get_inputs()
    shape: list[Any] = value.shape
    fits = calibration.ndim == len(shape) and all(
        not isinstance(size, int) or place == 0 or size == calibration.shape[place] for place, size in enumerate(shape)
    )
    if not fits or not len(calibration):
        raise ModelError(f"calibration samples of shape {calibration.shape} do not fit the input's {shape}")
    if calibration.dtype.kind == "f" and not np.all(np.isfinite(calibration)):
        raise ModelError("calibration samples contain NaN or infinity")
    count = len(calibration)
    batch = shape[0] if isinstance(shape[0], int) else max(b for b in range(1, _BATCH + 1) if count % b == 0)
    if count % batch:  # the histograms of the quantiser need batches of one size
        raise ModelError(f"the model takes batches of {batch}; {count} calibration samples do not divide into these")
    return [{value.name: calibration[start : start + batch]} for start in range(0, count, batch)]
