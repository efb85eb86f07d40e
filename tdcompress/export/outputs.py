"""What a network returns, as named tensors in order: one tensor, tuples, lists, dicts, and the output classes of libraries."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from tdcompress.errors import UnsupportedError


def named_outputs(result: Any, inputs: Sequence[str] = ()) -> dict[str, Tensor]:
    """The tensors of a result by name, in the order in which the network returns them.

    A single tensor, also alone in a tuple, is "output"; of several the names are "output_0", "output_1", ..., or their keys in a
    mapping (a dict, HuggingFace's ModelOutput), a named tuple or a dataclass; nested ones are joined: "boxes_0". Where several
    would have one name, the first has it, and the others have "_2", "_3", ... behind it. None is left out.

    Args:
        result: what forward returned.
        inputs: names that are taken: of a key that is one of these, the output's name is "KEY_output".

    Raises:
        UnsupportedError: something else than tensors, complex numbers, or nothing.
    """
    found = list(_leaves(result, ""))
    for path, leaf in found:
        if not isinstance(leaf, Tensor):
            hint = "for HuggingFace set model.config.use_cache = False" if "ache" in type(leaf).__name__ + path else "wrap it"
            where = f" as output {path}" if path else ""
            raise UnsupportedError(
                f"the network returns something of type {type(leaf).__name__}{where}, which an ONNX file cannot hold: "
                f"let it return tensors alone ({hint})"
            )
        if leaf.is_complex():
            raise UnsupportedError(
                f"the network returns complex numbers{f' as output {path}' if path else ''}, which onnxruntime does not have: "
                "let it return torch.view_as_real of them, or their real and imaginary parts"
            )
    if not found:
        raise UnsupportedError("the network returns no tensor, so that there is nothing to export")
    if len(found) == 1 and not _has_keys(result):
        return {"output": found[0][1]}
    plain = [path if path and not path[0].isdigit() else f"output_{path or index}" for index, (path, _) in enumerate(found)]
    plain = [f"{name}_output" if name in inputs else name for name in plain]
    named: dict[str, Tensor] = {}
    for name, (_, leaf) in zip(plain, found, strict=True):
        if name in named:
            numbered = (f"{name}_{number}" for number in itertools.count(2))
            name = next(other for other in numbered if other not in {*named, *plain, *inputs})
        named[name] = leaf
    return named


def _has_keys(result: Any) -> bool:
    return not isinstance(result, Tensor) and (
        isinstance(result, Mapping) or hasattr(result, "_fields") or dataclasses.is_dataclass(result)
    )


def _leaves(result: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(result, Tensor) or result is None:
        items: Sequence[tuple[Any, Any]] = []
    elif isinstance(result, Mapping):
        items = list(result.items())
    elif isinstance(result, tuple | list):
        items = list(zip(getattr(result, "_fields", range(len(result))), result, strict=True))
    elif dataclasses.is_dataclass(result):
        items = [(field.name, getattr(result, field.name)) for field in dataclasses.fields(result)]
    else:
        yield path, result
        return
    if isinstance(result, Tensor):
        yield path, result
    for key, value in items:
        yield from _leaves(value, f"{path}_{key}" if path else str(key))


@contextmanager
def flat_outputs(model: nn.Module) -> Iterator[None]:
    """Let a network return a plain tuple of its tensors for a while; the names of its parameters stay as they are."""
    handle = model.register_forward_hook(lambda module, args, result: tuple(named_outputs(result).values()))
    try:
        yield
    finally:
        handle.remove()
