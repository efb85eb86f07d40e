"""Layers that run another forward for a while."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from torch import Tensor, nn

L = TypeVar("L", bound=nn.Module)


@contextmanager
def forward_replaced(layers: Iterable[L], forward: Callable[..., Tensor]) -> Iterator[None]:
    """Inside, each layer runs ``forward(layer, own, *arguments)``, also where its ``forward`` is called instead of the layer.

    Args:
        layers: each is changed itself, and not its class; modules, names and state_dict stay as they are.
        forward: ``own`` is the layer's forward as it was, which is given back at the end.
    """
    before = [(layer, vars(layer).get("forward")) for layer in layers]
    for layer, _ in before:
        layer.forward = partial(forward, layer, layer.forward)
    try:
        yield
    finally:
        for layer, set_by_others in before:
            del layer.forward
            if set_by_others is not None:
                layer.forward = set_by_others
