"""A recipe with changes of single keys; a key without its table is told where it belongs. Needs what owns the keys, torch too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tdcompress.errors import RecipeError
from tdcompress.recipes.keys import homes
from tdcompress.recipes.source import Recipe, UnknownTableError, load_recipe


def load_changed(path: Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """``load_recipe``, with the tables that have a key of a name where it was given without one.

    Args:
        path: a TOML file.
        changes: dotted key -> value, as ``--set`` gives them.

    Raises:
        RecipeError: as ``load_recipe``; "epochs: unknown key; did you mean train.epochs?".
    """
    try:
        return load_recipe(path, changes)
    except UnknownTableError as error:
        if not (found := homes(error.key)):
            raise
        said = str(error).partition(": unknown key")[0]
        raise RecipeError(f"{said}: unknown key; did you mean {' or '.join(found[:4])}?") from None
