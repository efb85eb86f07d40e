"""Frozen dataclasses <-> JSON values: records on disk, jobs between processes, and the tables of a recipe.

``decode`` checks every type, so a wrong value has the same message wherever it was written. Fields that older versions wrote, and
that mean nothing any more, are named in a dataclass's ``RETIRED``: they are passed over. A field with ``LEFT_OUT`` in its
metadata is not written while it has its default, so that records of before it stay as they are; settings of stages have none.
A field with ``VERSION`` is what a file says of its own form: its default is the only value that is read.

All JSON that the package reads is read here, so that what is damaged is told in the same words, and what was read can be written:
it has finite numbers alone, and is not nested so deeply that walking through it would fail.
"""

import dataclasses
import json
import math
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, Union

from tdcompress.errors import ArtifactError, one_line

T = TypeVar("T")
Json = Any

_TOO_DEEP = "nested too deeply"
_DEEPEST = 64  # tables and lists in one another; ours have fewer than ten

LEFT_OUT: Mapping[str, bool] = {"left out": True}
"""Metadata of a field that is written only where it is not at its default."""

VERSION: Mapping[str, bool] = {"version": True}
"""Metadata of a field that says which form a file has: it has to be there, and to be its default."""


class Coded(ABC):
    """A value with a JSON form of its own, where that of a dataclass would not do."""

    @abstractmethod
    def to_json(self) -> Json:
        """Its JSON values."""

    @classmethod
    @abstractmethod
    def from_json(cls, value: Json, where: str) -> Self:
        """Read what ``to_json`` gave.

        Args:
            value: what was read.
            where: dotted path of the value, for messages.

        Raises:
            ValueError: "path: what is wrong".
        """


def encode(value: Any) -> Json:
    """JSON values of a record: dataclasses become objects, tuples become lists.

    Raises:
        TypeError: a value that JSON has no word for.
    """
    if isinstance(value, Coded):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return encode_fields(value)
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} cannot be written as JSON")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def encode_fields(value: Any) -> dict[str, Json]:
    """JSON values of a dataclass by field: what ``encode`` makes of one without a form of its own."""
    written = [
        field
        for field in dataclasses.fields(value)
        if not (field.metadata.get("left out") and getattr(value, field.name) == field.default)
    ]
    return {field.name: encode(getattr(value, field.name)) for field in written}


def shallow(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, their values as they are: for another dataclass that has them too."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def decode(kind: type[T], value: Json, where: str = "") -> T:
    """Read a record, or a part of one, from JSON (or TOML) values.

    Args:
        kind: the type wanted: a dataclass, str, int, float, bool, None, Literal, a union, tuple, list, dict, or Any.
        value: what was read.
        where: dotted path of the value, for messages.

    Raises:
        ValueError: "path: what is wrong", also for unknown and missing fields.
    """
    result: T = _decode(kind, value, where)
    return result


def decode_written(kind: type[T], value: Json, where: str = "") -> T:
    """Read what ``encode`` wrote of just this type: no default stands in for a field that another version did not write.

    Args:
        kind: as for ``decode``.
        value: what was read.
        where: dotted path of the value, for messages.

    Raises:
        ValueError: as ``decode``; or ``encode`` would write it differently.
    """
    result = decode(kind, value, where)
    if (written := encode(result)) != value:
        raise ValueError(f"{_difference(value, written, where)}: not as this version writes it")
    return result


def _difference(value: Json, written: Json, where: str) -> str:
    """Dotted path of the first place in which two values differ."""
    if not isinstance(value, Mapping) or not isinstance(written, Mapping):
        return where
    key = next(key for key in {**written, **value} if key not in value or key not in written or value[key] != written[key])
    return _difference(value.get(key), written.get(key), f"{where}.{key}".lstrip("."))


def parse_json(text: str | bytes) -> Json:
    """Read JSON that may be damaged or hostile.

    Args:
        text: of a file, say; bytes are UTF-8.

    Raises:
        ValueError: no JSON, no UTF-8, a number that is not finite, or tables and lists nested too deeply.
    """
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except UnicodeDecodeError:
        raise ValueError("no JSON: not UTF-8 text") from None
    _check_depth(value)
    return value


def _finite(text: str) -> float:
    """A number of a JSON file; "NaN" and "1e999" are none."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{one_line(text, 40)} is not a finite number")
    return value


def _check_depth(value: Json) -> None:
    """Refuse tables and lists that are nested too deeply, without a call for each level."""
    level = [value]
    for _ in range(_DEEPEST + 1):
        tables = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        if not tables:
            return
        level = [item for table in tables for item in table]
    raise ValueError(_TOO_DEEP)


def decode_json(kind: type[T], text: str | bytes, where: str = "") -> T:
    """Read a record from JSON that may be damaged, hostile or of another version.

    Args:
        kind: as for ``decode``.
        text: as for ``parse_json``.
        where: what holds it, for messages.

    Raises:
        ValueError: as ``parse_json`` and ``decode``.
    """
    return decode(kind, parse_json(text), where)


class FormatError(ValueError):
    """A file of another form than this version reads: whole, as far as can be told."""


def check_format(said: Json, name: str, read: int) -> None:
    """Check which form a file says that it has, before anything else in it is believed.

    Args:
        said: the file's JSON.
        name: of the field that says it: "format", "schema".
        read: the only one that this version reads.

    Raises:
        FormatError: another one.
        ValueError: none.
    """
    if not isinstance(said, Mapping) or name not in said:
        raise ValueError(f"names no {name}")
    if type(said[name]) is not int or said[name] != read:
        raise FormatError(f"{name} {one_line(repr(said[name]), 40)}, this version reads {read}")


def decode_file(kind: type[T], path: Path) -> T:
    """Read a record that a run wrote as a JSON file. Whatever is wrong with the file is told in one line.

    Args:
        kind: as for ``decode``.
        path: the file.

    Raises:
        ArtifactError: no such file, not JSON, or not such a record.
    """
    try:
        return decode_json(kind, path.read_bytes(), path.stem)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: is missing; run the recipe again to rebuild it") from None
    except OSError as error:
        reason = error.strerror or one_line(error)
    except ValueError as error:
        reason = one_line(error)
    raise ArtifactError(f"{path}: damaged, or of another version ({reason}); run the recipe again to rebuild it")


def _decode(kind: Any, value: Json, where: str) -> Any:
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is Literal:
        if not any(type(value) is type(option) and value == option for option in options):
            raise ValueError(f"{where}: {value!r} is none of {', '.join(repr(option) for option in options)}")
        return value
    if origin in (Union, types.UnionType):
        return _decode_union(options, value, where)
    if origin is tuple:
        return _decode_tuple(options, value, where)
    if origin is list:
        return list(_decode_tuple((options[0], ...), value, where))
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: a table is needed, not {value!r}")
        return {key: _decode(options[1], item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, Coded):
        return kind.from_json(value, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return decode_fields(kind, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise ValueError(f"{where}: a whole number of {len(str(value))} digits is out of range") from None
    if kind is type(None):
        kind = types.NoneType
    if type(value) is not kind:
        raise ValueError(f"{where}: {kind.__name__} needed, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value} is not a finite number")
    return value


def _decode_union(options: tuple[Any, ...], value: Json, where: str) -> Any:
    if value is None and types.NoneType in options:
        return None
    problems = []
    for option in options:
        if option is types.NoneType:
            continue
        try:
            return _decode(option, value, where)
        except ValueError as error:
            problems.append(str(error))
    if len(problems) > 1:  # the place is said once
        problems = [f"{where}: " + "; or ".join(problem.removeprefix(f"{where}: ") for problem in problems)]
    raise ValueError(problems[0])


def _decode_tuple(options: tuple[Any, ...], value: Json, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: a list is needed, not {value!r}{_as_list(options, value, where)}")
    if len(options) == 2 and options[1] is Ellipsis:
        options = (options[0],) * len(value)
    if len(options) != len(value):
        raise ValueError(f"{where}: {len(options)} values are needed, not {len(value)}")
    return tuple(_decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(options, value, strict=True)))


def _as_list(options: tuple[Any, ...], value: Json, where: str) -> str:
    """How a single value is written in a list of any length; "" where it is no entry of one, or the length is fixed."""
    if isinstance(value, Mapping) or value is None or options[1:] != (Ellipsis,):
        return ""
    try:
        _decode(options[0], value, where)
    except ValueError:
        return ""
    return f"; write {where} = {json.dumps([value], ensure_ascii=False)}"


def decode_fields(kind: type[T], value: Json, where: str) -> T:
    """Read a dataclass from its fields: what ``decode`` does for one without a form of its own.

    Args:
        kind: the dataclass.
        value: its JSON, a mapping from field to value.
        where: of the value in its file, for messages.

    Raises:
        ValueError: as ``decode``.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: a table is needed, not {value!r}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    for name, field in fields.items():
        if field.metadata.get("version"):
            check_format(value, name, typing.cast(int, field.default))
    value = {key: item for key, item in value.items() if key not in getattr(kind, "RETIRED", ())}
    for key in value:
        if key not in fields:
            raise UnknownKeyError(f"{where}.{key}".lstrip("."), tuple(fields))
    given = {key: _decode(hints[key], item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    for name, field in fields.items():
        if name not in given and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{f'{where}.{name}'.lstrip('.')}: missing")
    try:
        return kind(**given)
    except UnknownKeyError:
        raise
    except ValueError as error:  # a dataclass's own check: "key: what is wrong"
        raise ValueError(f"{where}.{error}".lstrip(".")) from None


class UnknownKeyError(ValueError):
    """A field that the record does not have.

    Args:
        path: dotted path of the unknown key.
        known: the keys that exist at that place.
    """

    def __init__(self, path: str, known: tuple[str, ...]) -> None:
        super().__init__(f"{path}: unknown key; known are {', '.join(known)}")
        self.path = path
        self.known = known
