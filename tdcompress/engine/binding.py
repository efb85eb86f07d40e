"""The C structures of csrc/tdc.h, field by field, and the calls into the library.

Every field is 8 bytes wide, and the sizes are compared with the library's own when it is loaded, so the two cannot
drift apart unseen.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, c_char_p, c_double, c_int64, c_void_p
from dataclasses import dataclass
from types import MappingProxyType

from tdcompress.engine.build import instead, load_library
from tdcompress.errors import TdcompressError, UnsupportedError

HIGHEST_ISA = "TDCOMPRESS_ENGINE_ISA"  # the best instruction set to be used; better ones count as absent
MAX_DIMS = 8
LANES = 16

DTYPES: Mapping[str, int] = MappingProxyType(
    {"float32": 0, "uint8": 1, "int8": 2, "int32": 3, "int64": 4, "float64": 5, "bool": 1}
)
ACTIVATIONS: tuple[str, ...] = (
    "none", "relu", "clip", "leaky", "hardsigmoid", "hardswish", "sigmoid", "tanh", "exp", "sqrt", "erf", "abs", "neg",
    "reciprocal", "log",
)  # fmt: skip
BINARIES: tuple[str, ...] = (
    "add", "sub", "mul", "div", "max", "min", "pow", "equal", "less", "less_equal", "keep", "drop",
)  # fmt: skip
POOLS: tuple[str, ...] = ("max", "average", "average_padded")
LINEARS: tuple[str, ...] = ("dense", "rows", "lanes", "tokens")
REDUCTIONS: tuple[str, ...] = ("mean", "sum", "max", "min")


class Tensor(Structure):
    """tdc_tensor."""

    _fields_ = [
        (name, c_int64)
        for name in (
            "space", "offset", "image_stride", "dtype", "channels", "height", "width",
            "pitch", "segments", "rows", "row_stride", "plane_stride", "halo_top", "halo_bottom",
        )
    ]  # fmt: skip


class Act(Structure):
    """tdc_act."""

    _fields_ = [("kind", c_int64), ("a", c_double), ("b", c_double)]


class TapGroup(Structure):
    """tdc_group."""

    _fields_ = [("shift", c_int64), ("bits", c_void_p), ("lanes", c_void_p)]


class Epilogue(Structure):
    """tdc_epilogue."""

    _fields_ = [
        ("bias", c_void_p), ("has_residual", c_int64), ("has_output", c_int64), ("has_output2", c_int64),
        ("residual", Tensor), ("output", Tensor), ("output2", Tensor),
        ("scale2", c_void_p), ("shift2", c_void_p), ("act", Act), ("act2", Act),
    ]  # fmt: skip


class ConvOp(Structure):
    """tdc_conv."""

    _fields_ = [
        ("input", Tensor), ("epilogue", Epilogue), ("filters", c_int64), ("vectors", c_int64), ("row_vectors", c_int64),
        ("group_count", c_int64), ("groups", POINTER(TapGroup)), ("pairs", c_void_p), ("rows", c_void_p),
        ("offsets", c_void_p), ("group_counts", c_void_p), ("weights", c_void_p),
        ("taps", c_int64), ("sets", c_int64), ("blocks_per_set", c_int64), ("filters_per_set", c_int64),
    ]  # fmt: skip


class LinearOp(Structure):
    """tdc_linear."""

    _fields_ = [
        ("input", Tensor), ("output", Tensor), ("kind", c_int64), ("tokens", c_int64), ("features", c_int64),
        ("outputs", c_int64), ("weights", c_void_p), ("row_starts", c_void_p), ("columns16", c_void_p), ("columns32", c_void_p),
        ("positions", c_void_p), ("step_counts", c_void_p), ("bias", c_void_p), ("act", Act),
    ]  # fmt: skip


class CopyOp(Structure):
    """tdc_copy."""

    _fields_ = [("input", Tensor), ("output", Tensor)]


class SplitOp(Structure):
    """tdc_split."""

    _fields_ = [("input", Tensor), ("output", Tensor), ("stride_y", c_int64), ("stride_x", c_int64)]


class MapOp(Structure):
    """tdc_map."""

    _fields_ = [("input", Tensor), ("output", Tensor), ("scale", c_void_p), ("shift", c_void_p), ("act", Act)]


class BinaryOp(Structure):
    """tdc_binary."""

    _fields_ = [
        ("a", Tensor), ("b", Tensor), ("output", Tensor), ("constant_a", c_void_p), ("constant_b", c_void_p),
        ("operation", c_int64), ("ndim", c_int64),
        ("dims", c_int64 * MAX_DIMS), ("stride_a", c_int64 * MAX_DIMS), ("stride_b", c_int64 * MAX_DIMS), ("act", Act),
    ]  # fmt: skip


class BinaryRowsOp(Structure):
    """tdc_binary_rows."""

    _fields_ = [("a", Tensor), ("b", Tensor), ("output", Tensor), ("operation", c_int64), ("act", Act)]


class PoolOp(Structure):
    """tdc_pool."""

    _fields_ = [
        ("input", Tensor), ("output", Tensor), ("scratch", Tensor), ("kind", c_int64),
        *((name, c_int64) for name in (
            "kernel_y", "kernel_x", "stride_y", "stride_x",
            "pad_top", "pad_left", "pad_bottom", "pad_right", "dilation_y", "dilation_x",
        )),
    ]  # fmt: skip


class ReducePlanesOp(Structure):
    """tdc_reduce_planes."""

    _fields_ = [("input", Tensor), ("output", Tensor), ("kind", c_int64)]


class ReduceOp(Structure):
    """tdc_reduce."""

    _fields_ = [
        ("input", Tensor), ("output", Tensor), ("kind", c_int64), ("kept", c_int64), ("ndim", c_int64),
        ("dims", c_int64 * MAX_DIMS), ("strides", c_int64 * MAX_DIMS),
    ]  # fmt: skip


class SoftmaxOp(Structure):
    """tdc_softmax."""

    _fields_ = [
        ("input", Tensor),
        ("output", Tensor),
        ("outer", c_int64),
        ("size", c_int64),
        ("inner", c_int64),
        ("logarithm", c_int64),
    ]


class PermuteOp(Structure):
    """tdc_permute."""

    _fields_ = [
        ("input", Tensor), ("output", Tensor), ("input_start", c_int64), ("output_start", c_int64), ("ndim", c_int64),
        ("dims", c_int64 * MAX_DIMS), ("stride_in", c_int64 * MAX_DIMS), ("stride_out", c_int64 * MAX_DIMS),
    ]  # fmt: skip


class FillOp(Structure):
    """tdc_fill."""

    _fields_ = [("output", Tensor), ("value", c_double)]


class MatMulOp(Structure):
    """tdc_matmul."""

    _fields_ = [
        ("a", Tensor), ("b", Tensor), ("output", Tensor),
        *((name, c_int64) for name in ("batch", "rows", "inner", "columns", "stride_a", "stride_b")),
    ]  # fmt: skip


class ResampleOp(Structure):
    """tdc_resample."""

    _fields_ = [
        ("input", Tensor), ("output", Tensor),
        *((name, c_int64) for name in ("outer", "size_in", "size_out", "inner", "taps")),
        ("indices", c_void_p), ("weights", c_void_p),
    ]  # fmt: skip


class LookupOp(Structure):
    """tdc_lookup."""

    _fields_ = [
        ("input", Tensor), ("output", Tensor), *((name, c_int64) for name in ("count", "rows", "width")), ("table", c_void_p),
    ]  # fmt: skip


OPERATIONS: Mapping[str, tuple[int, type[Structure]]] = MappingProxyType(
    {
        name: (code, structure)
        for code, (name, structure) in enumerate(
            {
                "conv_sparse": ConvOp,
                "conv_dense": ConvOp,
                "linear": LinearOp,
                "copy": CopyOp,
                "split": SplitOp,
                "map": MapOp,
                "binary": BinaryOp,
                "binary_rows": BinaryRowsOp,
                "pool": PoolOp,
                "reduce_planes": ReducePlanesOp,
                "reduce": ReduceOp,
                "softmax": SoftmaxOp,
                "permute": PermuteOp,
                "fill": FillOp,
                "matmul": MatMulOp,
                "resample": ResampleOp,
                "lookup": LookupOp,
            }.items()
        )
    }
)
"""Kernel name -> its OP_* number and descriptor, in the order of the enum in tdc.h."""


class Op(Structure):
    """tdc_op."""

    _fields_ = [("kind", c_int64), ("descriptor", c_void_p)]


class Job(Structure):
    """tdc_job."""

    _fields_ = [
        *((name, c_int64) for name in ("isa", "op_count", "space_count", "threads", "batch", "arena_bytes")),
        *((name, c_void_p) for name in ("ops", "spaces", "arenas")),
    ]  # fmt: skip


class _Isa(Structure):
    _fields_ = [("name", c_char_p), ("max_block", c_int64), ("dense_filters", c_int64), ("linear_lanes", c_int64)]


@dataclass(frozen=True, kw_only=True)
class InstructionSet:
    """An instruction set that this machine has.

    Attributes:
        index: its number in the library.
        name: "avx512", for example.
        max_block: vectors of an output plane in the sparse kernel's largest block.
        dense_filters: filters that share a loaded row in the dense kernel.
        linear_lanes: whether the fully connected kernel with outputs in its lanes is there.
    """

    index: int
    name: str
    max_block: int
    dense_filters: int
    linear_lanes: bool


class Library:
    """The loaded library.

    Raises:
        UnsupportedError: it cannot be compiled or loaded here.
        TdcompressError: its structures are not this file's.
    """

    def __init__(self) -> None:
        library = load_library()
        try:
            library.tdc_sizeof.argtypes, library.tdc_sizeof.restype = [c_int64], c_int64
            library.tdc_isa_at.argtypes, library.tdc_isa_at.restype = [c_int64], POINTER(_Isa)
            self.run = library.tdc_execute
        except AttributeError as error:
            raise UnsupportedError(f"engine: {library._name} is another library ({error}); {instead()}") from error
        self.run.argtypes = [c_void_p, c_void_p]
        self.run.restype = c_int64
        for name, (code, structure) in OPERATIONS.items():
            if library.tdc_sizeof(code) != ctypes.sizeof(structure):
                raise TdcompressError(f"engine: {library._name} does not match this version ({name}); {instead()}")
        found = []
        for index in range(3):
            if pointer := library.tdc_isa_at(index):
                isa = pointer.contents
                found.append(
                    InstructionSet(
                        index=index,
                        name=isa.name.decode(),
                        max_block=isa.max_block,
                        dense_filters=isa.dense_filters,
                        linear_lanes=bool(isa.linear_lanes),
                    )
                )
        self.instruction_sets: Sequence[InstructionSet] = tuple(found)  # the best one first
        if best := os.environ.get(HIGHEST_ISA):
            self.instruction_sets = found[found.index(self.instruction_set(best)) :]

    def instruction_set(self, name: str | None) -> InstructionSet:
        """The named instruction set, or the best one.

        Raises:
            UnsupportedError: this machine does not have it.
        """
        if name is None:
            return self.instruction_sets[0]
        for isa in self.instruction_sets:
            if isa.name == name:
                return isa
        raise UnsupportedError(
            f"engine: this machine has no {name!r}; it has {', '.join(isa.name for isa in self.instruction_sets)} "
            f"(see {HIGHEST_ISA})"
        )


@functools.cache
def library() -> Library:
    """The one library of this process."""
    return Library()
