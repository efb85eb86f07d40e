"""The numbers of a recipe: those that the machine counts in, each written in one way."""

from typing import Any

from tdcompress.recipes.positions import Source

LARGEST = 2**63 - 1  # torch, numpy and JSON readers count in 64 bits; TOML's reader has no limit


def plain_numbers(values: Any, source: Source, path: str = "") -> Any:
    """The same values, with 0.0 for -0.0: keys and names of rows are made of what is written.

    Args:
        values: of a recipe, nested.
        source: where they came from.
        path: the dotted key of ``values``; numbers in a list have its key.

    Raises:
        RecipeError: a whole number of more than 64 bits; says file, line and key.
    """
    if isinstance(values, dict):
        return {key: plain_numbers(value, source, f"{path}.{key}".lstrip(".")) for key, value in values.items()}
    if isinstance(values, list):
        return [
            plain_numbers(value, source, f"{path}.{place}" if isinstance(value, dict) else path)
            for place, value in enumerate(values)
        ]
    if type(values) is int and abs(values) > LARGEST:
        raise source.error(path, f"{path}: a whole number of {values.bit_length()} bits is out of range; below 2 to the 63rd")
    return 0.0 if type(values) is float and values == 0.0 else values
