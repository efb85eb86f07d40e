"""ONNX files as people read them: tensor by tensor, layer by layer as the engine sees them, and what packing did."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tdcompress.engine import LayerRecord, Session
from tdcompress.errors import UserError
from tdcompress.onnxfile.refused import COMPILED
from tdcompress.onnxfile.reports import FileReport, PackReport
from tdcompress.onnxfile.rounding import LOST_FROM
from tdcompress.records.measures import ACCURACY, MEASURES, Measure
from tdcompress.report import text
from tdcompress.report.tables import Table, number_columns, text_columns

SECONDS_PER_BYTE = 1.7e-9
"""Processor time of loading a packed file over its dense one, by the bytes of its decoders' results (docs/packing.md)."""
_COMPILED = "its network is a plan, for onnxruntime with the plugin that it was made for (docs/provider.md)"
_SHARES = ("sparsity_model", "sparsity_prunable", "prune_fraction")  # metadata that the pipeline writes, 0..1


def file_tables(path: Path, report: FileReport) -> tuple[Table, Table]:
    """Every weight of a file, and the file as a whole."""
    tensors = Table(
        title=str(path),
        columns=(
            *text_columns("tensor", "shape"),
            *number_columns("zeros"),
            *text_columns("encoding"),
            *number_columns("bytes", "bound"),
        ),
        rows=tuple(
            (
                tensor.name,
                "x".join(map(str, tensor.shape)) or "scalar",
                text.percent(tensor.zeros / tensor.elements, 1) if tensor.elements else "-",
                f"{tensor.encoding}, {tensor.stored}",
                f"{tensor.file_bytes:,}",
                f"{tensor.bound_bytes:,.0f}",
            )
            for tensor in report.tensors
        ),
    )
    facts = (
        ("file", f"{report.file_bytes:,} bytes, {report.gzip_bytes:,} gzipped"),
        *(("compiled", _COMPILED) for _ in range(COMPILED in report.operators)),
        ("bound of the weights", f"{report.bound_bytes:,.0f} bytes{_beside_bound(report)}"),
        ("decoders and graph", f"{report.decoder_bytes:,} + {report.graph_bytes:,} bytes"),
        *(("short names save", f"{report.names_saved_bytes:,} bytes") for _ in range(report.names_saved_bytes > 0)),
        *(("loading", _loading(report)) for _ in range(report.loading_bytes > 0)),
        (
            "parameters",
            f"{report.parameters:,}, {text.percent(report.sparsity, 1)} % of them zero" if report.parameters else "none",
        ),
        ("inputs", ", ".join(f"{value.name} {value.dtype} {list(value.shape)}" for value in report.inputs)),
        ("outputs", ", ".join(f"{value.name} {value.dtype} {list(value.shape)}" for value in report.outputs)),
        ("opset", str(report.opset)),
        ("operators", ", ".join(f"{name} {count}" for name, count in sorted(report.operators.items()))),
        *sorted(
            _readable(name, value, MEASURES.get(report.metadata.get("task", ""), ACCURACY))
            for name, value in report.metadata.items()
        ),
    )
    return tensors, Table(title="" if tensors.rows else tensors.title, columns=text_columns("the whole", ""), rows=facts)


def _beside_bound(report: FileReport) -> str:
    """How the file compares with its bound, where it has one."""
    return f"; the file takes {text.ratio(report.ratio_to_bound)} of it" if report.bound_bytes else ""


def _loading(report: FileReport) -> str:
    """What unpacking costs when a runtime loads the file."""
    cost = (
        f"onnxruntime unpacks it: up to {report.loading_bytes:,} bytes more memory for a moment than the dense file, and about "
        f"{report.loading_bytes * SECONDS_PER_BYTE:.1g} s more (as on the processor of docs/packing.md)"
    )
    return cost + "; over 1 GiB in one piece is unpacked on every call, not once: pack the dense file again" * report.unfolded


def _readable(name: str, value: str, measure: Measure) -> tuple[str, str]:
    """A metadata entry: shares with two decimals, and the accuracy as what the file's task measures."""
    with suppress(ValueError):
        if name == "accuracy":
            return measure.name, text.figure(float(value), measure)
        if name in _SHARES:
            return name, f"{text.percent(float(value))} %"
    return name, value[:200]


def packing_lines(report: PackReport) -> Iterator[str]:
    """What packing changed, and what it left alone though there are zeros in it."""
    if report.left_as_is:
        yield f"the file is left as it is: {report.left_as_is}"
        yield from text.by_reason("with zeros, but kept dense", report.kept_dense)
        return
    if report.values != "float32":
        yield (
            f"{report.values}: weights differ by at most {report.weight_error:.2g} of the largest in their tensor, "
            f"{report.underflows:,} became zero"
        )
        if report.lost:
            most = f"{text.percent(report.lost, 1)} % of a tensor's weights"
            yield f"{report.values}: up to {most} moved by {LOST_FROM:g} of their own size or more"
        before, after = report.outputs_not_finite
        if before or after:
            lost = f"{before:,} outputs on random inputs were NaN or infinite, {after:,} are now"
            yield f"{report.values}: {lost}; these were not compared"
        elif report.output_error is None:
            why = "inputs of free sizes cannot be made up, or outputs have other shapes"
            yield f"{report.values}: outputs were not compared, since {why}"
        if report.output_error is not None:
            yield f"{report.values}: outputs on random inputs differ by at most {report.output_error:.2g} of the largest"
    if report.negative_zeros:
        one = report.negative_zeros == 1
        yield f"{report.negative_zeros:,} " + ("weight that was -0.0 is +0.0" if one else "weights that were -0.0 are +0.0")
    yield from text.by_reason("with zeros, but kept dense", report.kept_dense)
    yield from text.by_reason("kept in float32", report.kept_float32)


def engine_layers(path: Path, shapes: Sequence[Sequence[int]], *, external_data: bool = False) -> tuple[LayerRecord, ...]:
    """What the sparse engine would do with each layer of a file.

    Args:
        path: the file.
        shapes: of its inputs in turn, if the file leaves other sizes than the batch open.
        external_data: accept weights in files beside it.

    Raises:
        UserError: a shape that does not fit; ModelError, UnsupportedError: as the engine does.
    """
    session = Session(path, external_data=external_data)
    if shapes:
        names = [value.name for value in session.get_inputs()]
        if len(shapes) != len(names):
            raise UserError(f"--shape: {len(shapes)} given; give one like 1x3x224x224 for each of {', '.join(names)}")
        session.plan(dict(zip(names, shapes, strict=True)))
    return session.layers()


def engine_table(path: Path, layers: Sequence[LayerRecord]) -> Table:
    """What the sparse engine would do with each layer, and why."""
    return Table(
        title=f"{path} in the engine",
        columns=(*text_columns("layer", "operator"), *number_columns("zeros"), *text_columns("kernel", "why")),
        rows=tuple(
            (layer.layer, layer.op, text.percent(layer.zeros / layer.weights, 1), layer.kernel, layer.why) for layer in layers
        ),
    )
