"""What public functions and classes are given, held against the types that their signatures name.

One mechanism for all of them, so that a wrong type has the same message everywhere. What a value may be within its type, its own
function says.
"""

import functools
import inspect
import math
import numbers
import os
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, ParamSpec, TypeVar, Union

from tdcompress.errors import ArgumentError, did_you_mean

P = ParamSpec("P")
R = TypeVar("R")

# one, several
_WORDS: Mapping[Any, tuple[str, str]] = {
    bool: ("True or False", "True or False"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    bytes: ("bytes", "bytes"),
    types.NoneType: ("None", "None"),
}
_KNOWN_AS = {  # torch and numpy are not imported here
    "Module": "torch.nn.Module",
    "Optimizer": "torch.optim.Optimizer",
    "PathLike": "path",
    "Tensor": "tensor",
    "ndarray": "numpy array",
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse arguments that are not of the types in a function's signature, before it does anything.

    Python's own TypeError is left for what Python itself refuses: an argument too many, or one that is missing.

    Args:
        function: of the public interface; or the ``__init__`` of a class.

    Raises:
        ArgumentError: by the function that is returned: "prune: fraction has to be a number or None, and is 'half'".
    """
    signature = inspect.signature(function)
    whose = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)
        require_types(whose, function, given)
        return function(*args, **kwargs)

    return call


def require_types(whose: str, of: Callable[..., object], given: Mapping[str, object]) -> None:
    """Refuse values that are not of the types that a function, or a dataclass, names.

    Args:
        whose: what the message begins with.
        of: has the annotations.
        given: values by name; what has no annotation is passed over.

    Raises:
        ArgumentError: names the value, what it has to be, and what it is.
    """
    wanted = _annotations(of)
    for name, value in given.items():
        if name in wanted:
            _require(f"{whose}: {name}", value, wanted[name])


def require_range(where: str, value: int, low: int, high: int) -> None:
    """Refuse a whole number out of range.

    Args:
        where: what the message begins with: function and argument.
        value: what was given.
        low: the least.
        high: the most.

    Raises:
        ArgumentError: names the value and the range.
    """
    if not low <= value <= high:
        raise ArgumentError(f"{where} has to be {low} to {high}, and is {value}")


@functools.cache
def _annotations(of: Callable[..., object]) -> Mapping[str, Any]:
    kinds = {each.name: each.kind for each in inspect.signature(of).parameters.values()}
    many = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: kind for name, kind in typing.get_type_hints(of).items() if kinds.get(name, many[0]) not in many}


def _require(where: str, value: object, kind: Any) -> None:
    """Refuse a value; one that is wrong inside a list or mapping is named by its place there."""
    if _fits(value, kind):
        if _is_path(kind) and isinstance(value, str | os.PathLike) and not _names_a_file(value):
            raise ArgumentError(f"{where} has to name a file or folder, and is {given(value)}")
        return
    for container in (kind, *typing.get_args(kind)):
        _require_entries(where, value, container)
    known = [word for option in (kind, *typing.get_args(kind)) for word in typing.get_args(option) if isinstance(word, str)]
    hint = did_you_mean(value, known) if isinstance(value, str) else ""
    raise ArgumentError(f"{where} has to be {words(kind)}, and is {given(value)}{hint}")


def _require_entries(where: str, value: object, kind: Any) -> None:
    """Refuse the first entry of a list or mapping that is wrong, where the value is one and should be."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is Sequence and isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for index, item in enumerate(value):
            _require(f"{where}[{index}]", item, options[0])
    if origin is tuple and isinstance(value, tuple | list) and len(value) == len(options):
        for index, (item, option) in enumerate(zip(value, options, strict=True)):
            _require(f"{where}[{index}]", item, option)
    if origin is Mapping and isinstance(value, Mapping):
        for key, item in value.items():
            _require(f"{where}, a key of it,", key, options[0])
            _require(f"{where}[{key!r}]", item, options[1])


def _fits(value: Any, kind: Any) -> bool:
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if kind in (Any, object):
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in options)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in options)
    if origin is Sequence:
        several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return several and all(_fits(item, options[0]) for item in value)
    if origin is tuple:
        kinds = options[:1] * len(value) if options[-1] is Ellipsis and isinstance(value, Sequence) else options
        return isinstance(value, tuple | list) and len(value) == len(kinds) and all(map(_fits, value, kinds))
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(k, options[0]) and _fits(v, options[1]) for k, v in value.items())
    if origin is Callable:
        return callable(value)
    if kind in (int, float):
        number = isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
        return number and _is_finite(value)
    return isinstance(value, origin or kind)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _names_a_file(path: "str | os.PathLike[str]") -> bool:
    name = os.fspath(path)
    return isinstance(name, str) and bool(name) and "\0" not in name


def words(kind: Any, *, several: bool = False) -> str:
    """A type as a reader of the message says it: ``Sequence[str] | None`` is "a list of texts or None"."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if _is_path(kind):
            options = tuple(each for each in options if each is not str)  # text is one way to write a path
        return _either([words(option, several=several) for option in options])
    if origin is Literal:
        return _either([repr(option) for option in options])
    if origin in (Sequence, tuple):
        number = str(len(options)) + " " if origin is tuple and options[-1] is not Ellipsis else ""
        return f"{'lists' if several else 'a list'} of {number}{words(options[0], several=True)}"
    if origin is Mapping:
        return (
            f"{'mappings' if several else 'a mapping'} of {words(options[0], several=True)} to {words(options[1], several=True)}"
        )
    if origin is Callable:
        return "functions" if several else "a function"
    if kind in (Any, object):
        return "values" if several else "a value"
    if kind in _WORDS:
        return _WORDS[kind][several]
    name = (origin or kind).__name__
    name = _KNOWN_AS.get(name, name)
    return f"{name}s" if several else f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _is_path(kind: Any) -> bool:
    options = typing.get_args(kind)
    return str in options and any(typing.get_origin(option) is os.PathLike for option in options)


def _either(options: Sequence[str]) -> str:
    *others, last = dict.fromkeys(options)
    return f"{', '.join(others)} or {last}" if others else last


def given(value: object) -> str:
    """What a message says of a value: itself where that is short, else what it is."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, str | bytes | int | float):
        return reprlib.repr(value)
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
