"""Layers that run again in the backward pass, as `torch.utils.checkpoint` has them, run with what they ran with before."""

import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, saved_tensors_hooks
from torch.utils.hooks import RemovableHandle

from tdcompress.methods.base import Parameters

OwnPlace = tuple[nn.Module, str, nn.Parameter]
"""Where one of the network's own parameters stands: a module, its name there, and itself."""


class Recompute:
    """Lends a network's modules the effective parameters where they run again in the backward pass.

    A forward pass by ``functional_call`` is over then, and the modules hold their own parameters. Whose backward pass it is, the
    node says that autograd is at: its number is one of those given out while the forward pass ran, or since, while a module ran
    again. So backward passes of the network itself, and of its evaluation, find its own parameters.

    The hooks are on the network's modules between forward passes alone. In copies, and in what is pickled, they do nothing.

    Args:
        model: the network.
        effective: some of its parameters, by name -> those of them that differ, differentiable.
    """

    def __init__(self, model: nn.Module, effective: Callable[[Parameters], Mapping[str, Tensor]]) -> None:
        self._model = model
        self._effective = effective
        self._handles: list[RemovableHandle] = []
        self._names: dict[int, str] = {}  # of the parameters that differ, by id
        self._numbers: list[range] = []  # of the nodes that forward passes made
        self._given: list[tuple[str, weakref.ref[Tensor]]] = []  # the effective parameters that they had
        self._lent: dict[nn.Module, list[list[OwnPlace]]] = defaultdict(list)  # by module, what each run of it was lent
        self._outside: dict[int, int] = {}  # by thread, the number of the next node when something last ran in no backward pass

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no forward pass behind it, but the hooks."""
        return vars(Recompute(self._model, self._effective)) | {"_handles": self._handles}

    @contextmanager
    def forward_pass(self, params: Mapping[str, Tensor]) -> Iterator[None]:
        """Around a forward pass with these effective parameters, each of its own shape: what runs again later has them too."""
        self._unhook()
        self._names = {id(own): name for name, own in self._model.named_parameters() if name in params}
        begin = _next_number()
        try:
            yield
        finally:
            if numbers := range(begin, self._see_outside()):
                self._numbers.append(numbers)
                self._given += [(name, weakref.ref(tensor)) for name, tensor in params.items()]
            if self._numbers:
                self._hook()

    def end(self) -> None:
        """No backward pass will follow: take the hooks off, so that the network is an ordinary one."""
        self.give_back()
        self._unhook()
        self._numbers.clear()
        self._given.clear()

    def give_back(self) -> None:
        """Let the modules have their own parameters where an interrupt ended a second run, so that no hook was called."""
        while self._lent and _running() is None:
            _, runs = self._lent.popitem()
            for places in runs:
                _put_back(places)

    def _hook(self) -> None:
        for module, compiled in dict(_entered(self._model)).items():
            # in front of other people's hooks, which may read parameters, and behind them
            self._handles.append(module.register_forward_pre_hook(_Hook(self._lend, compiled), prepend=True))
            # checkpoint ends a second run by an exception
            self._handles.append(module.register_forward_hook(_Hook(self._take_back, compiled), always_call=True))

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _lend(self, module: nn.Module) -> None:
        node, places = _running(), list[OwnPlace]()
        if node is None:
            self._see_outside()
        elif self._is_ours(node):
            places = self._own_places(module)
        self._lent[module].append(places)  # also where there are none: a module may run inside itself
        if node is None or not places:
            return
        with saved_tensors_hooks(_itself, _itself):  # those of checkpoint count what the layers save, and masks are none of it
            lent = {**self._effective({self._names[id(own)]: own for _, _, own in places}), **self._inputs_of(node)}
        for owner, key, own in places:
            owner._parameters[key] = lent[self._names[id(own)]]  # type: ignore[assignment]  # as functional_call puts them there

    def _take_back(self, module: nn.Module) -> None:
        if runs := self._lent[module]:  # none where another hook in front raised before ours was called
            _put_back(runs.pop())
        if _running() is None:
            self._see_outside()

    def _see_outside(self) -> int:
        number = self._outside[threading.get_ident()] = _next_number()
        return number

    def _is_ours(self, node: Node) -> bool:
        """Whether a forward pass made a node, or its backward pass did (a second run that has a backward pass of its own)."""
        number = node._sequence_nr()
        since = range(self._outside.get(threading.get_ident(), 0), _next_number())
        return any(number in numbers for numbers in (*self._numbers, since))

    def _own_places(self, module: nn.Module) -> list[OwnPlace]:
        """Where parameters that differ stand in a module and below it; none where effective ones stand there already."""
        every = ((owner, key, own) for owner in module.modules() for key, own in owner._parameters.items())
        return [(owner, key, own) for owner, key, own in every if own is not None and id(own) in self._names]

    def _inputs_of(self, node: Node) -> dict[str, Tensor]:
        """The parameters that a node was given itself: an ``autograd.Function`` may ask for the gradients of just those."""
        before = {each for each, _ in node.next_functions if each is not None}
        alive = ((name, ref()) for name, ref in self._given)
        return {name: tensor for name, tensor in alive if tensor is not None and tensor.grad_fn in before}


class _Hook:
    """A hook that a copy of its module does not inherit: it is there, and does nothing.

    Args:
        act: on the module.
        compiled: whether it acts also in what torch.compile traces; else its module is in a compiled one, which was lent all.
    """

    def __init__(self, act: Callable[[nn.Module], None] | None = None, compiled: bool = False) -> None:
        self._act = torch.compiler.disable(act) if compiled else act  # type: ignore[no-untyped-call]
        self._compiled = compiled

    def __call__(self, module: nn.Module, *_arguments: object) -> None:
        if self._act is not None and (self._compiled or not torch.compiler.is_compiling()):
            self._act(module)

    def __reduce__(self) -> tuple[type["_Hook"], tuple[()]]:
        return _Hook, ()


def _entered(module: nn.Module, compiled: bool = False) -> Iterator[tuple[nn.Module, bool]]:
    """All modules, and whether each is compiled in place, or inside such a one; not those inside ``torch.compile(module)``."""
    compiled = compiled or module._compiled_call_impl is not None
    yield module, compiled
    if not isinstance(getattr(module, "_orig_mod", None), nn.Module):
        for child in module.children():
            yield from _entered(child, compiled)


def _put_back(places: list[OwnPlace]) -> None:
    for owner, key, own in places:
        owner._parameters[key] = own


def _running() -> Node | None:
    """The node that autograd is at in this thread; None where no backward pass runs."""
    node: Node | None = torch._C._current_autograd_node()  # torch's stubs know no None here
    return node


def _next_number() -> int:
    """What autograd numbers the next node in this thread with."""
    return torch._C._autograd._get_sequence_nr()


def _itself(tensor: Tensor) -> Tensor:
    return tensor
