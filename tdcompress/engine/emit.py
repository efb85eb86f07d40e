"""A model as one C file for processors without an operating system: its plan's tables, the kernels that it calls, one arena.

The file is made of a plan as `compile_model` writes it for the portable kernels ("scalar"). It has the same descriptors and
tables, as initialised constants, and the source of the kernels itself (csource.py). Only sizes and places are narrower, 32 bits.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Mapping, Sequence
from ctypes import Array as CArray
from ctypes import Structure, c_void_p
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType

import numpy as np

from tdcompress.engine.binding import LANES, OPERATIONS, TapGroup, Tensor
from tdcompress.engine.bounds import arena_extent
from tdcompress.engine.compile import TARGETS, PlannedModel, plan_model
from tdcompress.engine.csource import c_types, kernel_sources, one_source
from tdcompress.engine.plan import Plan
from tdcompress.engine.planfile import Port
from tdcompress.engine.read import Array
from tdcompress.engine.tables import PAIR
from tdcompress.errors import UnsupportedError, UserError
from tdcompress.files import write_bytes

_NUMBERS: Mapping[str, np.dtype[np.generic]] = MappingProxyType(
    {
        "float": np.dtype(np.float32),
        "uint8_t": np.dtype(np.uint8),
        "uint16_t": np.dtype(np.uint16),
        "uint32_t": np.dtype(np.uint32),
        "int32_t": np.dtype(np.int32),
        "tdc_pair": PAIR,
    }
)
"""C types of the entries of tables."""
_C_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "float32": "float",
        "float64": "double",
        "uint8": "uint8_t",
        "bool": "uint8_t",
        "int8": "int8_t",
        "int32": "int32_t",
        "int64": "int64_t",
    }
)
"""Element types of inputs and outputs."""
_MACROS: Mapping[str, str] = MappingProxyType(
    {
        "TDC_SUFFIX": "scalar",
        "TDC_NARROW": "",
        "PREFETCH(address)": "((void)(address))",
        "DENSE_CHUNK": "32",
    }
)
"""How the kernels are compiled here: without prefetching, and dense layers take 2 KB of the stack, not 16."""
_BOARD = replace(TARGETS["scalar"], max_block=1)
"""The tables of the portable kernels, but for one vector whose sums fill 16 registers; two would wait in memory."""
_STANDARD_HEADERS = frozenset({
    "assert", "complex", "ctype", "errno", "fenv", "float", "inttypes", "iso646", "limits", "locale", "math", "setjmp", "signal",
    "stdalign", "stdarg", "stdatomic", "stdbit", "stdbool", "stdckdint", "stddef", "stdint", "stdio", "stdlib", "stdnoreturn",
    "string", "tgmath", "threads", "time", "uchar", "wchar", "wctype", "features",
})  # fmt: skip
"""The headers of C23, and features.h, which those of glibc and musl include. One of the same name in a folder that a compiler
is given is found before them."""
_PER_LINE = 12
_MOST = 2**31


@dataclass(frozen=True, kw_only=True)
class EmittedModel:
    """What was written. table_bytes: weights and their positions; arena_bytes: working memory; both besides code and stack."""

    source: Path
    header: Path
    function: str
    table_bytes: int
    arena_bytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def emit_c(
    source: str | PathLike[str] | bytes,
    target: str | PathLike[str],
    *,
    shapes: Sequence[Sequence[int]] | None = None,
    external_data: bool = False,
) -> EmittedModel:
    """Write a model as a C file and a header beside it: `NAME.c` has a function `NAME_run` for one image.

    The C is C11 with what gcc and clang share (attributes, unrolling). It allocates nothing and calls
    memcpy, memset and functions of math.h alone. Outputs are, bit for bit, those of the engine's "scalar" instruction set,
    if the compiler contracts no multiplication and addition (-ffp-contract=off) and has the same math.h. One kind of layer
    adds in another order: a sparse convolution whose output has rows of 17 to 32 columns, where a column of its kernel never
    leaves the image.

    Args:
        source: path of an ONNX file, or its bytes.
        target: the C file to write; its name, with what C does not allow replaced, names the function.
        shapes: of each input in turn, with a batch of 1, or of the size that the model fixes; for models that leave other
            sizes open.
        external_data: accept weights in files beside the ONNX file.

    Raises:
        ModelError, UnsupportedError: as ``Session``; also a model too large for addresses of 32 bits.
        UserError: shapes that do not fit; a target that is no C file, or is called like a header of C.
    """
    target = Path(target)
    if target.suffix != ".c":
        raise UserError(f"{target}: the C file's name has to end in .c")
    if target.stem.lower() in _STANDARD_HEADERS:
        raise UserError(
            f"{target}: its header would hide C's own {target.stem.lower()}.h from whatever includes it; take another name"
        )
    planned = plan_model(source, _BOARD, shapes=shapes, external_data=external_data)
    largest = max(4 * planned.plan.arena_elements, *(_elements(port) * 8 for port in (*planned.inputs, *planned.outputs)))
    if largest >= _MOST or planned.plan.table_bytes >= _MOST:
        raise UnsupportedError("the model is too large for addresses of 32 bits, which emitted C is for: use tdcompress compile")
    name = _identifier(target.stem)
    tables = _Tables(planned.plan)
    low, high = arena_extent(planned.plan.descriptors())
    low = low // LANES * LANES
    header = target.with_suffix(".h")
    write_bytes(target, _source(planned, tables, name, header.name, low, high).encode())
    write_bytes(header, _header(planned, name).encode())
    return EmittedModel(
        source=target,
        header=header,
        function=f"{name}_run",
        table_bytes=tables.nbytes,
        arena_bytes=4 * (high - low),
        inputs=planned.inputs,
        outputs=planned.outputs,
    )


def _identifier(text: str) -> str:
    """A name that C takes, whatever the file is called."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return f"model_{name}" if not name or name[0].isdigit() or name[0] == "_" else name


def _elements(port: Port) -> int:
    return int(np.prod(port.shape, dtype=np.int64))


def _told(port: Port) -> str:
    """A port in a comment: names come from the model and may hold anything."""
    shape = "x".join(map(str, port.shape)) or "scalar"
    return f"{re.sub(r'[^A-Za-z0-9_.:-]', '_', port.name)}: {port.dtype} {shape}"


def _arguments(planned: PlannedModel) -> list[tuple[str, str, Port]]:
    """(type, name, port) of each argument of the function."""
    found = []
    for ports, word, constant in ((planned.inputs, "input", "const "), (planned.outputs, "output", "")):
        for index, port in enumerate(ports, start=1):
            found.append((constant + _C_TYPES[port.dtype], word if len(ports) == 1 else f"{word}_{index}", port))
    return found


def _signature(planned: PlannedModel, name: str) -> str:
    return f"int {name}_run({', '.join(f'{kind} *{argument}' for kind, argument, _ in _arguments(planned))})"


def _header(planned: PlannedModel, name: str) -> str:
    upper = name.upper()
    arguments = _arguments(planned)
    sizes = [f"#define {upper}_{argument.upper()}_ELEMENTS {_elements(port)}" for _, argument, port in arguments]
    told = [f" *   {argument}: {_told(port)}" for _, argument, port in arguments]
    return "\n".join(
        [
            f"/* {name}: a model as C, made by tdcompress emit-c. */",
            f"#ifndef TDCOMPRESS_{upper}_H",
            f"#define TDCOMPRESS_{upper}_H",
            "",
            "#include <stdint.h>",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            *sizes,
            "",
            "/* One image. Arrays are row-major:",
            *told,
            " * Gives 0; 1 if an input names a row that a table does not have: outputs are then not to be used.",
            " * Its working memory is static: one call at a time, from one thread or task. Arrays must not overlap. */",
            f"{_signature(planned, name)};",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            "#endif",
            "",
        ]
    )


def _source(planned: PlannedModel, tables: _Tables, name: str, header: str, low: int, high: int) -> str:
    plan, kernels = planned.plan, kernel_sources()
    calls = plan.descriptors()
    names = {code: kernel for kernel, (code, _) in OPERATIONS.items()}
    used = [kernels[names[op.kind]] for op in plan.ops[: plan.op_count]]
    # planes.c has what the other kernels call when they have written a tensor
    files = dict.fromkeys(["planes.c", *(kernel.file for kernel in used)])
    code = one_source(files, _MACROS)
    constants = tables.add("constants", plan.constants) if plan.constants else "NULL"
    structures = [
        f"static const {kernel.descriptor} call_{index} = {_initialiser(descriptor, tables, low)};"
        for index, (kernel, descriptor) in enumerate(zip(used, calls, strict=True))
    ]
    spaces = ", ".join(f"(void *){argument}" for _, argument, _ in _arguments(planned))
    runs = [f"    KERNEL({names[op.kind]})(&call_{index}, &context);" for index, op in enumerate(plan.ops[: plan.op_count])]
    return "\n".join(
        [
            f"/* {name}: a model as C, made by tdcompress emit-c. Changes here are lost when it is made again.",
            " *",
            " * SPDX-License-Identifier: Apache-2.0 (the kernels, of tdcompress)",
            " *",
            " * C11, for gcc and clang. Sizes and places have 32 bits. */",
            f'#include "{header}"',
            "",
            _adapted(code),
            "/* ---- the model: tables, calls, working memory ---- */",
            *tables.definitions,
            "",
            *structures,
            "",
            f"static float arena[{high - low}];",
            "",
            f"{_signature(planned, name)} {{",
            f"    void *const spaces[] = {{arena, {spaces}, (void *){constants}}};",
            "    int32_t fault = 0;",
            "    const tdc_context context = {.spaces = spaces, .fault = &fault};",
            *runs,
            "    return fault != 0;",
            "}",
            "",
        ]
    )


def _adapted(code: str) -> str:
    """Kernels that are this file's own; sizes and places in 32 bits, as addresses have, but not elements of an input."""
    own = re.sub(r"^void (?=KERNEL\(|close_planes\()", "static __attribute__((unused)) void ", code, flags=re.M)
    return re.sub(r"(?<!CONVERT\()\bint64_t\b", "int32_t", own)


def _in_arena(tensor: Tensor) -> bool:
    """Whether it is there at all, and in the arena."""
    return bool(tensor.channels and tensor.space == 0)


def _number(value: float | np.float32) -> str:
    """A floating-point number, in the fewest digits that give it back; NaN and infinity without math.h, which few models need."""
    if np.isnan(value):
        return '__builtin_nanf("")'
    if np.isinf(value):
        return "-__builtin_inff()" if value < 0 else "__builtin_inff()"
    return f"{value!s}f" if isinstance(value, np.float32) else repr(float(value))


def _initialiser(structure: Structure, tables: _Tables, low: int) -> str:
    """What a structure holds besides zeros; tables by their names, tensors of the arena from `low` on."""
    parts = []
    for name, kind, *_ in structure._fields_:
        value = getattr(structure, name)
        if isinstance(value, Structure):
            text = _initialiser(value, tables, low)
        elif isinstance(value, CArray):
            text = f"{{{', '.join(map(str, value))}}}" if any(value) else ""
        elif name == "groups":
            text = tables.groups(value[: structure.group_count], low)
        elif kind is c_void_p:
            text = tables.add(name, value) if value else ""
        elif isinstance(value, float):
            text = _number(value) if value or np.signbit(value) else ""  # a zero that is left out has no sign
        else:
            moved = value - low if isinstance(structure, Tensor) and name == "offset" and _in_arena(structure) else value
            text = str(moved) if moved else ""
        if text and text != "{0}":
            parts.append(f".{name} = {text}")
    return f"{{{', '.join(parts)}}}" if parts else "{0}"


class _Tables:
    """Definitions of tables, each once, whoever reads it."""

    def __init__(self, plan: Plan) -> None:
        self._sizes = plan.sizes
        self._types = {**c_types(), "constants": "float"}
        self._names: dict[tuple[str, object], str] = {}
        self.definitions: list[str] = []
        self.nbytes = 0

    def add(self, name: str, address: int) -> str:
        """The C name of the table at an address that is called `name` in its descriptor."""
        kind = self._types[name]
        known = self._names.get((kind, address))
        if known is not None:
            return known
        items = np.frombuffer(ctypes.string_at(address, self._sizes[address]), _NUMBERS[kind])
        self.nbytes += items.nbytes
        return self._define(kind, name, address, list(_items(items)))

    def groups(self, groups: Sequence[TapGroup], low: int) -> str:
        """The groups of a convolution, equal ones once."""
        items = [_initialiser(group, self, low) for group in groups]
        return self._names.get(("tdc_group", tuple(items))) or self._define("tdc_group", "groups", tuple(items), items)

    def _define(self, kind: str, name: str, key: object, items: Sequence[str]) -> str:
        unique = f"{name}_{len(self._names)}"
        self._names[kind, key] = unique
        lines = [", ".join(items[start : start + _PER_LINE]) for start in range(0, len(items), _PER_LINE)]
        rows = ",\n    ".join(lines or ["0"])  # C has no array without entries: one that nothing reads
        self.definitions.append(f"static const {kind} {unique}[{len(items) or 1}] = {{\n    {rows}}};")
        return unique


def _items(table: Array) -> Iterator[str]:
    """The entries of a table as C."""
    if table.dtype == PAIR:
        for (first, second), (left, right) in zip(table["offset"], table["weight"], strict=True):
            yield f"{{{{{first}, {second}}}, {{{_number(left)}, {_number(right)}}}}}"
    elif table.dtype == np.float32:
        yield from map(_number, table)
    else:
        yield from map(str, table.tolist())
