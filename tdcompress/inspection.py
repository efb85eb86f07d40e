"""ONNX files as tables: tensor by tensor, and layer by layer as the engine sees them."""

from collections.abc import Sequence
from pathlib import Path

from tdcompress.engine import LayerRecord
from tdcompress.errors import UserError
from tdcompress.onnxfile.reports import FileReport
from tdcompress.report import text
from tdcompress.report.tables import Column, Table


def run_files(folder: Path) -> list[Path]:
    """The ONNX files of a run's folder.

    Raises:
        UserError: no such folder, or none in it.
    """
    files = sorted(folder.glob("*.onnx"))
    if not files:
        raise UserError(f"{folder}: neither an ONNX file nor a run with some; `tdcompress status` lists the runs")
    return files


def file_tables(path: Path, report: FileReport) -> tuple[Table, Table]:
    """Every weight of a file, and the file as a whole."""
    tensors = Table(
        title=str(path),
        columns=(
            Column(title="tensor"),
            Column(title="shape"),
            Column(title="zeros", align="right"),
            Column(title="encoding"),
            Column(title="bytes", align="right"),
            Column(title="bound", align="right"),
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
        ("bound of the weights", f"{report.bound_bytes:,.0f} bytes; the file takes {text.ratio(report.ratio_to_bound)} of it"),
        ("decoders and graph", f"{report.decoder_bytes:,} + {report.graph_bytes:,} bytes"),
        ("parameters", f"{report.parameters:,}, {text.percent(report.sparsity, 1)} % of them zero"),
        ("inputs", ", ".join(f"{value.name} {value.dtype} {list(value.shape)}" for value in report.inputs)),
        ("outputs", ", ".join(f"{value.name} {value.dtype} {list(value.shape)}" for value in report.outputs)),
        ("opset", str(report.opset)),
        ("operators", ", ".join(f"{name} {count}" for name, count in sorted(report.operators.items()))),
        *sorted((name, value[:200]) for name, value in report.metadata.items()),
    )
    return tensors, Table(title="", columns=(Column(title="the whole"), Column(title="")), rows=facts)


def engine_table(path: Path, layers: Sequence[LayerRecord]) -> Table:
    """What the sparse engine would do with each layer, and why."""
    return Table(
        title=f"{path} in the engine",
        columns=(
            Column(title="layer"),
            Column(title="operator"),
            Column(title="zeros", align="right"),
            Column(title="kernel"),
            Column(title="why"),
        ),
        rows=tuple(
            (layer.layer, layer.op, text.percent(layer.zeros / layer.weights, 1), layer.kernel, layer.why) for layer in layers
        ),
    )
