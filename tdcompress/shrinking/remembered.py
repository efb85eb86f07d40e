"""The program that pruning traced, for the shrinking that follows: tracing is a good part of both.

Of a network only the last program is kept, without its weights, for as long as the network lives. It is taken up where nothing
that can be seen has changed: the modules, their plain attributes, the shapes of their tensors, the inputs. What cannot be seen
(a dict's entry, a global) may have changed nevertheless; then the certificate of the shrinking fails, and it traces anew.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from tdcompress.shrinking.trace import Program, first_names, owned_tensors

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


@dataclass(frozen=True, kw_only=True)
class _Remembered:
    look: Hashable
    program: Program


_last: WeakKeyDictionary[nn.Module, _Remembered] = WeakKeyDictionary()


def remember(model: nn.Module, traced: nn.Module, inputs: Sequence[Tensor], program: Program) -> None:
    """Keep the program of a network.

    Args:
        model: the network that a caller holds.
        traced: what was traced in its place: itself, or a copy.
        inputs: that it was traced with, of any shapes.
        program: in eval mode.
    """
    literals = {name: tensor for name, tensor in program.state.items() if name not in program.narrowable}
    _last[model] = _Remembered(look=_look(traced, inputs), program=replace(program, state=literals))


def recall(model: nn.Module, copy: nn.Module, inputs: Sequence[Tensor]) -> Program | None:
    """The program of a network as it would be traced now, or None; it is not kept any longer.

    Args:
        model: the network that a caller holds.
        copy: what would be traced in its place; its weights become the program's.
        inputs: that it would be traced with, of any shapes.
    """
    found = _last.pop(model, None)
    if found is None or found.look != _look(copy, inputs):
        return None
    owned = owned_tensors(copy)
    return replace(found.program, state={**found.program.state, **{name: owned[name] for name in found.program.narrowable}})


def _look(model: nn.Module, inputs: Sequence[Tensor]) -> Hashable:
    """All that can be seen of a network from outside but the values of its tensors."""
    modules = tuple((name, type(module), _attributes(module)) for name, module in model.named_modules(remove_duplicate=False))
    tensors = tuple((name, _kind(tensor)) for name, tensor in owned_tensors(model).items())
    return modules, tensors, tuple(first_names(model).items()), tuple(map(_kind, inputs))


def _attributes(module: nn.Module) -> Hashable:
    """Numbers, words and tuples of them; the mode is the tracer's own."""
    return tuple(sorted((name, repr(value)) for name, value in vars(module).items() if name != "training" and _is_plain(value)))


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple | list) and all(map(_is_plain, value)))


def _kind(tensor: Tensor) -> Hashable:
    return tuple(tensor.shape), tensor.dtype, tensor.device
