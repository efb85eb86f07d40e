"""Pack the zeros of an ONNX file away, and bring them back.

The packed file is plain ONNX: standard operators that a runtime folds into ordinary weights when it loads the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import onnx
from onnx import helper

from tdcompress.arguments import checked
from tdcompress.errors import UnsupportedError, VerificationError
from tdcompress.files import StrPath
from tdcompress.onnxfile.encodings import ENCODINGS
from tdcompress.onnxfile.encodings.base import Section, SectionKey, Weight
from tdcompress.onnxfile.graphs import every_node, graphs
from tdcompress.onnxfile.inspect import inspect_model
from tdcompress.onnxfile.listed_names import with_listed_names
from tdcompress.onnxfile.load import in_file, infers_strictly, load_model, opset, save_model
from tdcompress.onnxfile.optimised import optimised_differently
from tdcompress.onnxfile.passes import graph_pass
from tdcompress.onnxfile.plan import Price, byte_prices, can_be_rounded, plan, same_price
from tdcompress.onnxfile.prepare import LOWEST_OPSET, not_packed, prepared, unpackable
from tdcompress.onnxfile.reports import PackReport, PackValues, Prefer, UnpackReport
from tdcompress.onnxfile.rounding import Rounding
from tdcompress.onnxfile.runtime import OutputDifference, check_section, compare_outputs, open_session, random_feed
from tdcompress.onnxfile.shifted import Shift
from tdcompress.onnxfile.shifting import has_zeros, wanted_shifts, with_adds, worth_shifting
from tdcompress.onnxfile.strip import undocumented
from tdcompress.onnxfile.tensors import PACKABLE
from tdcompress.onnxfile.verify import RELATIVE_TOLERANCE
from tdcompress.onnxfile.weights import StoredWeight, constant_weights, densified, is_packed, stored_weights, wrong_sections
from tdcompress.onnxfile.zero_points import zero_points


@checked
def pack_onnx(
    src: StrPath,
    dst: StrPath,
    values: PackValues = "float32",
    prefer: Prefer = "speed",
    *,
    sparse: bool = True,
    external_data: bool = False,
) -> PackReport:
    """Write `src` again, every weight in the encoding that takes the fewest bytes, without exporters' documentation.

    A file that would become no smaller, or that onnxruntime would not optimise to the same graph, is written as it is; the report
    says so.

    Args:
        src: any ONNX file with zeros in its weights; a packed one is unpacked first.
        dst: the packed file; may be `src`.
        values: "float32" keeps every value bit for bit (a weight -0.0 becomes +0.0); "float16" rounds float32 weight
            matrices to half precision and reports the error; vectors (biases, BatchNorm) stay as they are. "codebook16",
            "int8-kept" and "int4-kept" round those matrices whose zeros are packed: to 16 values a matrix, or to integers of 8 or
            4 bits with one scale a matrix.
        prefer: "size" also allows encodings that load more slowly, and gives what is not an input or output a short name; readers
            of this project show the names themselves.
        sparse: False keeps zeros where they are and only rounds values.
        external_data: accept weights in files beside `src`.

    Returns:
        What was done.

    Raises:
        ModelError: `src` is not a model, or damaged.
        UnsupportedError: `src` needs something that is not handled; the message names it.
        VerificationError: the packed weights do not decode to the source's, or onnx.checker accepts the source with
            `full_check` but not the packed file; nothing was written.
    """
    source = load_model(src, external_data=external_data)
    with in_file(src):
        packed, report = pack_model(source, values, prefer, sparse=sparse)
    save_model(packed, dst)
    return report


@graph_pass(ensures=[wrong_sections])
def pack_model(
    source: onnx.ModelProto, values: PackValues = "float32", prefer: Prefer = "speed", *, sparse: bool = True
) -> tuple[onnx.ModelProto, PackReport]:
    """As `pack_onnx`, on a model in memory; the source is not changed.

    Requires: a well-formed graph (`passes.malformed`); it may be packed already.
    Ensures: weights that decode bit for bit (each section is run through onnxruntime), and a graph that onnxruntime optimises to
    the same one. What `onnx.checker` accepted of the source, it accepts of the result. Else the source is left as it is. Every
    reserved name is of a known section of its own graph.

    Args:
        source: the model.
        values: number format of the weights.
        prefer: see `pack_onnx`; of no consequence unless `sparse`.
        sparse: False = round the values alone, and keep every zero and every name.
    """
    if values not in get_args(PackValues) or prefer not in get_args(Prefer):
        known = " / ".join(", ".join(get_args(kind)) for kind in (PackValues, Prefer))
        raise UnsupportedError(f"values {values!r} or prefer {prefer!r}: not one of {known}")
    dense, negative_zeros = prepared(undocumented(densified(source)))
    strict = infers_strictly(dense)
    written = _written(dense, values, byte_prices(prefer, strict) if sparse else {"dense": same_price})
    packed, kept_float32, rounding = written.model, written.kept_float32, written.rounding
    if packed.ByteSize() >= dense.ByteSize():
        packed, rounding = dense, Rounding()
        kept_float32 = dict.fromkeys(written.matrices, "the file would be no smaller") | kept_float32
    else:
        _drop_labels(packed)
        packed = with_listed_names(packed) if sparse and prefer == "size" else packed
    left_as_is = _why_left(source, dense, packed, exact=values == "float32")
    if left_as_is:
        packed, rounding, negative_zeros = onnx.ModelProto(), Rounding(), 0
        packed.CopyFrom(source)
    else:
        onnx.checker.check_model(packed)
        if strict and not infers_strictly(packed):
            raise VerificationError("the source passes onnx.checker's full check, the packed model does not; nothing was written")
    report = inspect_model(packed)
    if left_as_is:
        kept_float32 = {
            tensor.name: left_as_is for tensor in report.tensors if tensor.stored == "float32" and len(tensor.shape) > 1
        }
    compared = _compared(dense, packed) if values != "float32" else OutputDifference(error=0.0, not_finite=(0, 0))
    return packed, PackReport(
        source_bytes=source.ByteSize(),
        dense_bytes=dense.ByteSize(),
        file_bytes=report.file_bytes,
        bound_bytes=report.bound_bytes,
        values=values,
        prefer=prefer,
        left_as_is=left_as_is,
        encodings=report.encodings,
        tensors=report.tensors,
        kept_dense=written.kept_dense,
        kept_float32=kept_float32 if values != "float32" else {},
        negative_zeros=negative_zeros,
        weight_error=rounding.error,
        underflows=rounding.underflows,
        lost=rounding.lost,
        output_error=compared.error,
        outputs_not_finite=compared.not_finite,
    )


@checked
def unpack_onnx(src: StrPath, dst: StrPath, *, external_data: bool = False) -> UnpackReport:
    """Write `src` again with every weight an ordinary initializer of the same name and value, bit for bit.

    Args:
        src: a packed file, or any other ONNX file.
        dst: the dense file; may be `src`.
        external_data: accept weights in files beside `src`.

    Raises:
        ModelError: `src` is not a model, or damaged.
        UnsupportedError: an operator, domain or operator set that is not known.
    """
    source = load_model(src, external_data=external_data)
    with in_file(src):
        restored = sum(is_packed(weight.key) for weight in stored_weights(source))
        dense = densified(source)
    n_bytes = save_model(dense, dst)
    return UnpackReport(source_bytes=source.ByteSize(), file_bytes=n_bytes, restored=restored)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Written:
    """A model with its sections in it.

    Attributes:
        model: it.
        kept_dense: weight -> why its zeros could not be packed.
        kept_float32: matrix -> why it could not be rounded.
        matrices: those that `values` is about, in the file's order.
        rounding: what rounding did.
    """

    model: onnx.ModelProto
    kept_dense: dict[str, str]
    kept_float32: dict[str, str]
    matrices: tuple[str, ...]
    rounding: Rounding


def _written(dense: onnx.ModelProto, values: PackValues, prices: Mapping[str, Price]) -> _Written:
    """Plan and write the sections of every graph; the arrays of all weights are in memory only until then."""
    packed = onnx.ModelProto()
    packed.CopyFrom(dense)
    weights = stored_weights(dense)
    constants = constant_weights(dense)
    points = zero_points(dense, {weight.full_name: weight.array for weight in (*weights, *constants)})
    kept_dense = {weight.full_name: _why_constant(weight) for weight in constants if has_zeros(weight, points)}
    kept_float32 = {weight.full_name: _why_constant(weight) for weight in constants if can_be_rounded(weight)}
    rounding = Rounding()
    for number, (path, graph) in enumerate(graphs(packed)):
        fixed = unpackable(graph)
        here = {weight.name: weight for weight in weights if weight.key.graph == number}
        kept_dense |= {path + name: reason for name, reason in fixed.items() if has_zeros(here[name], points)}
        shifts, too_old = wanted_shifts(
            opset(dense), number, [weight for name, weight in here.items() if name not in fixed], points
        )
        kept_dense |= {path + name: reason for name, reason in too_old.items()}
        shiftable = {shift.name: shift for shift in shifts}
        packable = [
            shiftable[name].away(weight.array) if name in shiftable else weight
            for name, weight in here.items()
            if name not in fixed
        ]
        planned = plan(packable, number, values, prices)
        kept_float32 |= {path + name: reason for name, reason in fixed.items() if can_be_rounded(here[name])}
        kept_float32 |= {path + name: reason for name, reason in planned.kept_float32.items()}
        for key, members in planned.sections.items():
            for weight in members:
                if key.rounded:
                    rounding = rounding.with_weight(here[weight.name].array, weight.array)
        worth, used = worth_shifting({key: each for key, each in planned.sections.items() if is_packed(key)}, shifts)
        _write(graph, worth, used, packed)
    compact = onnx.ModelProto()
    compact.CopyFrom(packed)  # what was deleted from a message takes memory until the whole message goes
    return _Written(
        model=compact,
        kept_dense=kept_dense,
        kept_float32=kept_float32,
        matrices=tuple(weight.full_name for weight in weights if can_be_rounded(weight)),
        rounding=rounding,
    )


def _write(
    graph: onnx.GraphProto, planned: Mapping[SectionKey, Sequence[Weight]], shifts: Sequence[Shift], model: onnx.ModelProto
) -> None:
    """Replace initializers of a graph by sections, each checked: decoded by us and by onnxruntime."""
    by_name = {shift.difference: shift for shift in shifts}
    gone = {by_name[weight.name].name if weight.name in by_name else weight.name for each in planned.values() for weight in each}
    initializers = [tensor for tensor in graph.initializer if tensor.name not in gone]
    nodes = list(graph.node)
    made: list[Section] = []
    for key, members in planned.items():
        section = ENCODINGS[key.encoding].write(members, key)
        whole, seen = with_adds(section, members, by_name)
        check_section(whole, key, seen, model)
        made.append(whole)
    del graph.initializer[:]
    del graph.node[:]
    graph.initializer.extend(initializers)
    for section in made:
        graph.initializer.extend(section.initializers)
        graph.sparse_initializer.extend(section.sparse_initializers)
        graph.node.extend(section.nodes)
    graph.node.extend(nodes)


def _why_left(source: onnx.ModelProto, dense: onnx.ModelProto, packed: onnx.ModelProto, *, exact: bool) -> str:
    """Why the user's file is better left as it is; "" where the packed one is smaller and runs as the same network."""
    if packed.ByteSize() >= source.ByteSize():
        return f"packed it would have {packed.ByteSize():,} bytes, no fewer than now"
    if opset(source) < LOWEST_OPSET and (changed := _raising_changes(source, dense)):
        return changed
    differences = optimised_differently(dense, packed, contents=exact)
    return f"onnxruntime would run the packed file in another way ({differences})" if differences else ""


def _raising_changes(source: onnx.ModelProto, dense: onnx.ModelProto) -> str:
    """What is wrong where the raised operator set gives other outputs on random inputs; "" where that cannot be found out."""
    how = f"raised from operator set {opset(source)} to {LOWEST_OPSET} by onnx's converter"
    try:
        session = open_session(source)
    except VerificationError:
        return ""
    try:
        raised = open_session(dense)
    except VerificationError as error:
        return f"{how}: {error}"
    inputs = random_feed(session, batch=4, seed=0)
    if inputs is None:
        return ""
    try:
        compared = compare_outputs(session, raised, [inputs])
    except VerificationError:
        return ""
    if compared.error is not None and compared.error <= RELATIVE_TOLERANCE and compared.not_finite[0] == compared.not_finite[1]:
        return ""
    return f"{how}, it gives other outputs"


def _drop_labels(model: onnx.ModelProto) -> None:
    """Names of nodes that hold no subgraph: nothing refers to them, and at 99 % zeros they are 1 % of the file."""
    for node in every_node(model):
        if not any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            node.ClearField("name")


def _compared(dense: onnx.ModelProto, packed: onnx.ModelProto) -> OutputDifference:
    """On random inputs; see `PackReport`."""
    session = open_session(dense)
    inputs = random_feed(session, batch=4, seed=0)
    if inputs is None:
        return OutputDifference(error=None, not_finite=(0, 0))
    return compare_outputs(session, open_session(packed), [inputs])


def _why_constant(weight: StoredWeight) -> str:
    """The reason why a weight is still in a Constant node: in graphs, those of packed element types became initializers."""
    data_type = helper.np_dtype_to_tensor_dtype(weight.array.dtype)
    return "it is in a function, where packing does not reach" if data_type in PACKABLE else not_packed(data_type)
