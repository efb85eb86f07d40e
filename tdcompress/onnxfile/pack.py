"""Pack the zeros of an ONNX file away, and bring them back.

The packed file is plain ONNX: standard operators that a runtime folds into ordinary weights when it loads the file.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from tdcompress.errors import UnsupportedError
from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.encodings.base import Key, Section, Weight
from tdcompress.onnxfile.graphs import every_node, graphs
from tdcompress.onnxfile.inspect import inspect_model
from tdcompress.onnxfile.load import load_model, save_model
from tdcompress.onnxfile.plan import Rounding, plan
from tdcompress.onnxfile.prepare import prepared, unpackable
from tdcompress.onnxfile.reports import PackReport, Prefer, UnpackReport, Values
from tdcompress.onnxfile.runtime import check_section, output_difference
from tdcompress.onnxfile.strip import undocumented
from tdcompress.onnxfile.weights import StoredWeight, densified, is_packed, stored_weights


def pack_onnx(
    src: str | Path,
    dst: str | Path,
    values: Values = "float32",
    prefer: Prefer = "speed",
    *,
    external_data: bool = False,
) -> PackReport:
    """Write `src` again, every weight in the encoding that takes the fewest bytes, without exporters' documentation.

    Args:
        src: any ONNX file with zeros in its weights; a packed one is unpacked first.
        dst: the packed file; may be `src`.
        values: "float32" keeps every value bit for bit (a weight -0.0 becomes +0.0); "float16" rounds float32 weight
            matrices to half precision and reports the error; vectors (biases, BatchNorm) stay as they are.
        prefer: "size" also allows encodings that load more slowly.
        external_data: accept weights in files beside `src`.

    Returns:
        What was done.

    Raises:
        ModelError: `src` is not a model, or damaged.
        UnsupportedError: `src` needs something that is not handled; the message names it.
        VerificationError: the packed weights do not decode to the source's; nothing was written.
    """
    source = load_model(src, external_data=external_data)
    packed, report = pack_model(source, values, prefer)
    save_model(packed, dst)
    return report


def pack_model(
    source: onnx.ModelProto, values: Values = "float32", prefer: Prefer = "speed"
) -> tuple[onnx.ModelProto, PackReport]:
    """As `pack_onnx`, on a model in memory; the source is not changed."""
    if values not in ("float32", "float16") or prefer not in ("speed", "size"):
        raise UnsupportedError(f"values {values!r} or prefer {prefer!r}: not one of float32, float16 / speed, size")
    dense, negative_zeros = prepared(undocumented(densified(source)))
    packed = onnx.ModelProto()
    packed.CopyFrom(dense)
    weights = stored_weights(dense)
    kept_dense: dict[str, str] = {}
    rounding = Rounding()
    for number, (path, graph) in enumerate(graphs(packed)):
        fixed = unpackable(graph)
        here = {weight.name: weight for weight in weights if weight.key.graph == number}
        kept_dense |= {path + name: reason for name, reason in fixed.items() if _has_zeros(here[name])}
        planned = plan([weight for name, weight in here.items() if name not in fixed], number, values, prefer)
        for key, members in planned.items():
            for weight in members:
                if key.narrow:
                    rounding = rounding.with_weight(here[weight.name].array, weight.array)
        _write(graph, {key: members for key, members in planned.items() if is_packed(key)}, packed)
    if packed.ByteSize() >= dense.ByteSize():
        packed, rounding = dense, Rounding()
    else:
        _drop_labels(packed)
    onnx.checker.check_model(packed)
    report = inspect_model(packed)
    return packed, PackReport(
        source_bytes=source.ByteSize(),
        dense_bytes=dense.ByteSize(),
        file_bytes=report.file_bytes,
        bound_bytes=report.bound_bytes,
        values=values,
        prefer=prefer,
        encodings=dict(sorted(Counter(tensor.encoding for tensor in report.tensors).items())),
        tensors=report.tensors,
        kept_dense=kept_dense,
        negative_zeros=negative_zeros,
        weight_error=rounding.error,
        underflows=rounding.underflows,
        output_error=output_difference(dense, packed) if values == "float16" else 0.0,
    )


def unpack_onnx(src: str | Path, dst: str | Path, *, external_data: bool = False) -> UnpackReport:
    """Write `src` again with every weight an ordinary initializer of the same name and value, bit for bit.

    Raises:
        ModelError: `src` is not a model, or damaged.
    """
    source = load_model(src, external_data=external_data)
    restored = sum(is_packed(weight.key) for weight in stored_weights(source))
    n_bytes = save_model(densified(source), dst)
    return UnpackReport(source_bytes=source.ByteSize(), file_bytes=n_bytes, restored=restored)


def _write(graph: onnx.GraphProto, planned: Mapping[Key, Sequence[Weight]], model: onnx.ModelProto) -> None:
    """Replace initializers of a graph by sections, each checked: decoded by us and by onnxruntime."""
    gone = {weight.name for members in planned.values() for weight in members}
    initializers = [tensor for tensor in graph.initializer if tensor.name not in gone]
    nodes = list(graph.node)
    made: list[Section] = []
    for key, members in planned.items():
        section = ENCODINGS[key.encoding].write(members, key)
        check_section(section, key, list(members), model)
        made.append(section)
    del graph.initializer[:]
    del graph.node[:]
    graph.initializer.extend(initializers)
    for section in made:
        graph.initializer.extend(section.initializers)
        graph.sparse_initializer.extend(section.sparse_initializers)
        graph.node.extend(section.nodes)
    graph.node.extend(nodes)


def _drop_labels(model: onnx.ModelProto) -> None:
    """Names of nodes that hold no subgraph: nothing refers to them, and at 99 % zeros they are 1 % of the file."""
    for node in every_node(model):
        if not any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            node.ClearField("name")


def _has_zeros(weight: StoredWeight) -> bool:
    return weight.array.dtype.kind == "f" and bool(np.any(weight.array == 0))
