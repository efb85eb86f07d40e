"""Words that travel inside the file: the model's `metadata_props`, string to string."""

from collections.abc import Mapping

import onnx

from tdcompress.errors import ModelError

RECIPE_KEY = "recipe_key"
"""Which recipe's run ships a file; a run stamps the copies in its folder with it."""

GRANULARITY = "prune_granularity"
"""What was pruned: "weight", "unit", "2:4" or "1x4"."""


def get_metadata(model: onnx.ModelProto) -> dict[str, str]:
    """All metadata of the model.

    Raises:
        ModelError: a key occurs twice, so that readers would disagree about its value.
    """
    found: dict[str, str] = {}
    for entry in model.metadata_props:
        if entry.key in found:
            raise ModelError(f"metadata key {entry.key!r} occurs twice in the model")
        found[entry.key] = entry.value
    return found


def set_metadata(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Set these entries in place, keep the others; sorted by key, so that the order of calls leaves no trace.

    Raises:
        ModelError: a key or a value is not a string, or a key is empty.
    """
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str) or not key:
            raise ModelError(f"metadata is text to text; {key!r}: {value!r} is not")
    merged = get_metadata(model) | dict(metadata)
    del model.metadata_props[:]
    for key in sorted(merged):
        model.metadata_props.add(key=key, value=merged[key])


def entry_bytes(key: str, value: str) -> int:
    """By how much an entry makes a file longer."""
    entry = onnx.StringStringEntryProto(key=key, value=value)
    return len(onnx.ModelProto(metadata_props=[entry]).SerializeToString())
