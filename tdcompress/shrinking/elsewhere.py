"""The sizes of inputs at which the forward code computes with other numbers: found by running it, as tracing takes longer."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from tdcompress.shrinking import rules_layout
from tdcompress.shrinking.calls import base_name
from tdcompress.shrinking.duplicate import duplicate
from tdcompress.shrinking.numbers import computing_numbers, picks, zeros_taken
from tdcompress.shrinking.other_sizes import other_batches, other_lengths
from tdcompress.shrinking.sizes import same_tensor
from tdcompress.shrinking.trace import owned_tensors, unfused

Taken = tuple[str, list[object], list[Tensor]]
"""What one operator takes beside the values of inputs, weights and other operators: its name, numbers, literal tensors."""
_Pass = tuple[list[Taken], set[int]]
"""A forward pass, and which of its operators take something else at other sizes."""


def computes_otherwise(model: nn.Module, inputs: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Inputs of other sizes with which the operators, or their numbers, are other ones than with the examples.

    The network runs at every size that it takes: at another batch; with each height, width or length halved, doubled, one longer,
    and a quarter of it; with one of several equal axes, or inputs, doubled alone. A size that shows nothing new beside those
    before it is left out.

    Args:
        model: the network; not modified.
        inputs: the examples, (B, ...) each.

    Returns:
        As few inputs as show every number that changes.
    """
    model = duplicate(model).eval()
    numbers_taken(model, inputs)
    own = numbers_taken(model, inputs)
    if own is None:  # what is wrong with it, tracing tells
        return []
    found = []
    known: list[_Pass] = [(own, set())]
    for resized in chain(_another_batch(model, inputs), *other_lengths(inputs)):
        taken = numbers_taken(model, resized)
        if taken and _shows_more(taken, known):
            taken = numbers_taken(model, resized)  # forward code may keep what it makes for a size: the second time tells
        if taken and _shows_more(taken, known):
            _learn(taken, known)
            found.append(resized)
    return found


def _another_batch(model: nn.Module, inputs: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Inputs of the first other batch size that the network takes."""
    return list(islice((batch for batch in other_batches(inputs) if numbers_taken(model, batch)), 1))


def numbers_taken(model: nn.Module, inputs: Sequence[Tensor]) -> list[Taken] | None:
    """What the operators of one forward pass take, in their order.

    Args:
        model: in eval mode.
        inputs: (B, ...) each.

    Returns:
        None if the network does not take these inputs.
    """
    recorder = _Recorder(owned_tensors(model).values(), inputs)
    try:
        with torch.no_grad(), unfused(), recorder:
            model(*inputs)
    except Exception:  # user code raises anything at a size that it does not take
        return None
    return recorder.taken


def _shows_more(taken: Sequence[Taken], known: Sequence[_Pass]) -> bool:
    changed = [(_changed(own, taken), changing) for own, changing in known]
    return not any(numbers is not None and numbers <= changing for numbers, changing in changed)


def _learn(taken: list[Taken], known: list[_Pass]) -> None:
    for own, changing in known:
        changed = _changed(own, taken)
        if changed is not None:
            changing |= changed
            return
    known.append((taken, set()))


def _changed(own: Sequence[Taken], other: Sequence[Taken]) -> set[int] | None:
    """Which operators take something else; None where the operators are others."""
    if [name for name, *_ in own] != [name for name, *_ in other]:
        return None
    return {index for index, (a, b) in enumerate(zip(own, other, strict=True)) if not _alike(a, b)}


def _alike(a: Taken, b: Taken) -> bool:
    return a[1] == b[1] and len(a[2]) == len(b[2]) and all(map(same_tensor, a[2], b[2]))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what every operator takes.

    Args:
        owned: parameters and buffers, of any shapes.
        inputs: (B, ...) each.
    """

    def __init__(self, owned: Iterable[Tensor], inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.taken: list[Taken] = []
        self._known = WeakTensorKeyDictionary(dict.fromkeys([*owned, *inputs]))
        self._moving = WeakTensorKeyDictionary(dict.fromkeys(inputs))

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = _tensors((args, kwargs))
        literals = [item.detach().clone() for item in tensors if item not in self._known]
        moving = any(item in self._moving for item in tensors)
        if moving:
            self._moving.update(dict.fromkeys(_tensors(result)))
        name, from_table = base_name(func), picks(func) and not moving
        computes = from_table or name not in _MOVES
        if computes:
            numbers = [*computing_numbers(func, args, kwargs, places=from_table), *zeros_taken(args, kwargs)]
            self.taken.append((name, numbers, literals))
        if computes or not literals:
            self._known.update(dict.fromkeys(_tensors(result)))
        return result


def _tensors(items: object) -> list[Tensor]:
    return [item for item in pytree.tree_leaves(items) if isinstance(item, Tensor)]


# What only moves values about: torch takes now one of them, now another, as the strides are.
_MOVES = rules_layout.RULES.keys() | {"clone", "alias", "detach", "contiguous", "as_strided", "lift_fresh"}
