"""Every key of a recipe's tables, and other values for it."""

import dataclasses
import typing
from typing import Any, Literal


def keys_below(kind: type, path: str) -> list[tuple[str, Any, Any]]:
    """(dotted key, type, default) of each key of a settings dataclass."""
    found = []
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        below, own = hints[field.name], f"{path}.{field.name}"
        if dataclasses.is_dataclass(below):
            found += keys_below(below, own)
        else:
            found.append((own, below, None if field.default is dataclasses.MISSING else field.default))
    return found


def others(kind: Any, value: Any) -> list[Any]:
    """Values of a type that are not this one."""
    options = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return [option for option in options if option != value]
    if typing.get_origin(kind) is tuple:
        numbers = [[0.25, 0.25], [1, 2], [2], [0.9, 0.99]]
        return [["conv2"], ["engine"], ["float16"], *numbers]
    if kind in (bool, int, float, str):
        words, numbers = ["adam", "piecewise", "Other"], [0.25, 0.5, 2.0]
        plain: dict[Any, list[Any]] = {bool: [not value], str: words, int: [2, 4, 3], float: numbers}
        return [option for option in plain[kind] if option != value]
    return [other for option in options if option is not type(None) for other in others(option, value)]
