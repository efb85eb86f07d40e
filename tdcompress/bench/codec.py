"""Frozen dataclasses from JSON values, checked against their type hints; `dataclasses.asdict` is the other direction."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tdcompress.errors import ArtifactError

Record = TypeVar("Record")


def decode(kind: type[Record], value: object, where: str) -> Record:
    """Build a dataclass from a JSON object that holds exactly its fields.

    Understands bool, int, float, str, None, Literal, unions, `tuple[X, ...]`, `Mapping[str, X]` and dataclasses of these.

    Raises:
        ArtifactError: a field is missing, unknown or of another type; the message names it.
    """
    result: Record = _decode(kind, value, where)
    return result


def _decode(kind: Any, value: object, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_record(kind, value, where)
    origin = get_origin(kind)
    if origin is tuple and isinstance(value, list):
        element = get_args(kind)[0]
        return tuple(_decode(element, item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        element = get_args(kind)[1]
        return {key: _decode(element, item, f"{where}.{key}") for key, item in value.items()}
    if origin is Literal and value in get_args(kind):
        return value
    if origin in (Union, types.UnionType):
        options = get_args(kind)
        if value is None and type(None) in options:
            return None
        rest = [option for option in options if option is not type(None)]
        if len(rest) == 1:
            return _decode(rest[0], value, where)
    if kind is float and type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    if kind in (bool, int, str) and type(value) is kind:
        return value
    raise ArtifactError(f"{where}: {str(value)[:60]!r} is not {getattr(kind, '__name__', kind)}")


def _decode_record(kind: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise ArtifactError(f"{where}: {str(value)[:60]!r} is not a {kind.__name__}")
    hints = get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    if missing := sorted(names - value.keys()):
        raise ArtifactError(f"{where}: field {missing[0]!r} is missing")
    if unknown := sorted(value.keys() - names):
        raise ArtifactError(f"{where}: field {unknown[0]!r} is unknown")
    return kind(**{name: _decode(hints[name], value[name], f"{where}.{name}") for name in names})
