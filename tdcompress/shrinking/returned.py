"""What a network returns, as a tree that torch knows: classes of the user's own become dicts."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils import _pytree as pytree


def as_tree(result: Any) -> Any:
    """A result with its mappings and dataclasses as dicts, where torch takes them for leaves; torch.export refuses those."""
    return pytree.tree_map(_opened, result)


def _opened(leaf: Any) -> Any:
    if isinstance(leaf, Mapping):
        return {key: as_tree(value) for key, value in leaf.items()}
    if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
        return {field.name: as_tree(getattr(leaf, field.name)) for field in dataclasses.fields(leaf)}
    return leaf


@contextmanager
def trees_returned(model: nn.Module) -> Iterator[None]:
    """Let a network return such trees for a while."""
    handle = model.register_forward_hook(lambda module, args, result: as_tree(result))
    try:
        yield
    finally:
        handle.remove()
