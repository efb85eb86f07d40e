"""What torch.export took for true of the free axes while it traced a network: the file computes what the network does only there.

A forward that branches on a size goes one way in a trace, and a file has that way alone. torch.export notes the condition; given
to torch.onnx.export, it narrows what was asked of it to what it noted, and says nothing. So the notes are read here: of each size
its range, sizes that are one, and conditions that the program would check while it runs (PyTorch's ``ShapeEnv``).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils._sympy.printers import PythonPrinter

FreeLengths = Mapping[str, int]
"""How long each free axis is, by name."""
LARGEST = 2**31
"""Bounds from here on concern indices of 64 bits: no tensor has such an axis."""


@dataclass(frozen=True, kw_only=True)
class Assumption:
    """A condition on lengths of free axes.

    Attributes:
        said: as an expression of Python with the names of the axes: "batch <= 100".
        axes: these names.
        holds: whether it is true of lengths, which name at least these axes.
        numbers: whole numbers in it.
        fixes: whether it leaves an axis one length.
        same: whether it is that two axes are equally long; the file has one name for both.
    """

    said: str
    axes: tuple[str, ...]
    holds: Callable[[FreeLengths], bool]
    numbers: tuple[int, ...]
    fixes: bool = False
    same: bool = False


@dataclass(frozen=True, kw_only=True)
class Symbol:
    """What a symbol of a program stands for: (length - offset) / factor of a free axis.

    Attributes:
        name: of the axis.
        factor: 1, or what the axis is a multiple of: torch.export then counts its parts.
        offset: a whole number.
    """

    name: str
    factor: int = 1
    offset: int = 0

    def value(self, lengths: FreeLengths) -> int:
        """Of the symbol."""
        return (lengths[self.name] - self.offset) // self.factor

    def __str__(self) -> str:
        length = f"({self.name} - {self.offset})" if self.offset else self.name
        return f"({length} // {self.factor})" if self.factor != 1 else length


Symbols = Mapping[str, Symbol]


def read_assumptions(program: ExportedProgram, axes: Sequence[Mapping[int, str]]) -> list[Assumption]:
    """The conditions under which a program was traced, each once.

    Args:
        program: of torch.export, or what torch.onnx.export made of it.
        axes: of each input its free axes, with their names; one name is one length.
    """
    sizes, symbols = _sizes(program, axes), read_symbols(program, axes)
    found = [_equal(name, size, symbols) for name, size in sizes if symbols.get(str(size)) != Symbol(name=name)]
    environment = _environment(program)
    if environment is not None:
        found += _ranges(environment, symbols)
        conditions = [each.expr for each in environment.guards]
        conditions += [each.expr for noted in environment.deferred_runtime_asserts.values() for each in noted]
        found += [_condition(each, symbols) for each in conditions if _about(each, symbols)]
    return list({each.said: each for each in found}.values())


def read_symbols(program: ExportedProgram, axes: Sequence[Mapping[int, str]]) -> dict[str, Symbol]:
    """What the symbols of a program stand for; of several axes the first with that symbol alone."""
    symbols: dict[str, Symbol] = {}
    sizes = [(name, size) for name, size in _sizes(program, axes) if hasattr(size, "free_symbols")]
    for name, size in sorted(sizes, key=lambda pair: not pair[1].is_Symbol):
        unknown = [symbol for symbol in size.free_symbols if str(symbol) not in symbols]
        if len(size.free_symbols) == len(unknown) == 1:
            at_0, at_1 = (int(size.subs({unknown[0]: value})) for value in (0, 1))
            symbols[str(unknown[0])] = Symbol(name=name, factor=at_1 - at_0, offset=at_0)
    return symbols


def breaking(assumption: Assumption, others: Sequence[Assumption], lengths: FreeLengths) -> list[dict[str, int]]:
    """Lengths that an assumption is false of: the nearest shorter and longer ones, then the farthest tried. None if never false.

    Where possible all else that was assumed is true of them, so that what happens there is due to this assumption.

    Args:
        assumption: it.
        others: all assumptions of the program; it may be among them.
        lengths: of the trace: all are true of them.
    """
    found = []
    for changed in _changes(assumption, lengths):
        if not assumption.holds(changed):
            also = sum(not each.holds(changed) for each in others if each is not assumption)
            found.append((also, changed))
    least = min((also for also, _ in found), default=0)
    best = [changed for also, changed in found if also == least]
    best.sort(key=lambda changed: sum(abs(changed[name] - lengths[name]) for name in lengths))
    sides = [[each for each in best if (sum(each.values()) > sum(lengths.values())) == longer] for longer in (False, True)]
    chosen: list[dict[str, int]] = []
    for each in (*(side[0] for side in sides if side), *(side[-1] for side in sides if side)):
        if each not in chosen:
            chosen.append(each)
    return chosen


def _changes(assumption: Assumption, lengths: FreeLengths) -> Iterator[dict[str, int]]:
    """Other lengths of one of its axes, then of all of them at once."""
    near = {number + step for number in assumption.numbers for step in (-1, 0, 1)} | {2 * number for number in assumption.numbers}
    for axis in assumption.axes:
        own = lengths[axis]
        values = near | {1, 2, 3, own // 4, own // 2, own - 1, own + 1, own + 2, 2 * own, 2 * own + 1, 3 * own, 4 * own}
        for value in sorted(values - {own}):
            if 1 <= value < LARGEST:
                yield {**lengths, axis: value}
    for value in (1, 2):
        yield {**lengths, **dict.fromkeys(assumption.axes, value)}


def _sizes(program: ExportedProgram, axes: Sequence[Mapping[int, str]]) -> list[tuple[str, Any]]:
    """The name and the size of every free axis; a size is a whole number, or an expression of sympy."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    inputs = [nodes[name] for name in program.graph_signature.user_inputs if isinstance(name, str)]
    found = []
    for node, named in zip(inputs, axes, strict=True):
        for axis, name in named.items():
            size = node.meta["val"].shape[axis]
            found.append((name, size.node.expr if isinstance(size, torch.SymInt) else size))
    return found


def _environment(program: ExportedProgram) -> Any:
    """The ShapeEnv of a program; None if it has no free size."""
    for node in program.graph.nodes:
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None and mode.shape_env is not None:
            return mode.shape_env
    return None


def _ranges(environment: Any, symbols: Symbols) -> Iterator[Assumption]:
    for symbol, bounds in environment.var_to_range.items():
        axis = symbols.get(str(symbol))
        if axis is None:
            continue
        if (lower := axis.factor * bounds.lower + axis.offset) > 1:
            yield _bound(axis.name, int(lower), ">=")
        if bounds.upper < LARGEST:
            yield _bound(axis.name, int(axis.factor * bounds.upper + axis.offset), "<=")


def _bound(name: str, bound: int, sign: str) -> Assumption:
    def holds(lengths: FreeLengths) -> bool:
        return lengths[name] >= bound if sign == ">=" else lengths[name] <= bound

    return Assumption(said=f"{name} {sign} {bound}", axes=(name,), holds=holds, numbers=(bound,))


def _equal(name: str, size: Any, symbols: Symbols) -> Assumption:
    """That an axis is as long as others say, a multiple of something, or has one length."""
    used = _names_in(size, symbols)
    other = symbols.get(str(size))
    same = other is not None and other == Symbol(name=other.name)

    def holds(lengths: FreeLengths) -> bool:
        return lengths[name] == int(_value(size, lengths, symbols))

    said = f"{name} == {_said(size, symbols)}"
    axes = tuple(sorted({name, *used}))
    return Assumption(said=said, axes=axes, holds=holds, numbers=_numbers(size), fixes=not used, same=same)


def _condition(expression: Any, symbols: Symbols) -> Assumption:
    def holds(lengths: FreeLengths) -> bool:
        try:
            return bool(_value(expression, lengths, symbols))
        except (AssertionError, ZeroDivisionError):  # remainders of or by what no size can be: the trace meant none of these
            return False

    used = tuple(sorted(_names_in(expression, symbols)))
    return Assumption(said=_said(expression, symbols), axes=used, holds=holds, numbers=_numbers(expression))


def _about(expression: Any, symbols: Symbols) -> bool:
    """Whether a condition is one on free axes alone, not on sizes that depend on values."""
    used = {str(symbol) for symbol in getattr(expression, "free_symbols", ())}
    return bool(used) and used <= set(symbols)


def _value(expression: Any, lengths: FreeLengths, symbols: Symbols) -> Any:
    if not hasattr(expression, "free_symbols"):
        return expression
    return expression.subs({symbol: symbols[str(symbol)].value(lengths) for symbol in expression.free_symbols})


def _names_in(expression: Any, symbols: Symbols) -> set[str]:
    return {symbols[str(symbol)].name for symbol in getattr(expression, "free_symbols", ())}


def _numbers(expression: Any) -> tuple[int, ...]:
    if not hasattr(expression, "atoms"):
        return (int(expression),)
    return tuple(sorted({abs(int(atom)) for atom in expression.atoms() if atom.is_Integer}))


def _said(expression: Any, symbols: Symbols) -> str:
    text: str = PythonPrinter().doprint(expression) if hasattr(expression, "free_symbols") else str(expression)
    for symbol, axis in symbols.items():
        text = re.sub(rf"\b{re.escape(symbol)}\b", str(axis), text)
    return text
