"""Layers that run again in the backward pass, as `torch.utils.checkpoint` has them, run with what they ran with before."""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, saved_tensors_hooks
from torch.utils.hooks import RemovableHandle

from tdcompress.methods.base import Parameters


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
        self._names: dict[int, str] = {}
        self._passes: list[_ForwardPass] = []
        self._lent: dict[nn.Module, list[_Loan]] = {}
        self._outside: dict[int, int] = {}  # by thread, the number of the next node when something last ran in no backward pass

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_names": {}, "_passes": [], "_lent": {}, "_outside": {}}  # a copy has no forward pass behind it

    @contextmanager
    def forward_pass(self, params: Mapping[str, Tensor]) -> Iterator[None]:
        """Around a forward pass with these effective parameters, each of its own shape: what runs again later has them too."""
        self._unhook()
        begin = torch._C._autograd._get_sequence_nr()
        try:
            yield
        finally:
            if numbers := range(begin, self._see_outside()):
                self._passes.append(
                    _ForwardPass(numbers=numbers, params={name: weakref.ref(each) for name, each in params.items()})
                )
            self._hook()

    def end(self) -> None:
        """No backward pass will follow: take the hooks off, so that the network is an ordinary one."""
        self.give_back()
        self._unhook()
        self._passes.clear()

    def give_back(self) -> None:
        """Let the modules have their own parameters where an interrupt ended a second run, so that no hook was called."""
        while self._lent and _running() is None:
            _, loans = self._lent.popitem()
            for loan in loans:
                loan.give_back()

    def _hook(self) -> None:
        if not self._passes:
            return
        for module, compiled in _entered(self._model, {}).items():
            lend, take_back = [_not_traced(each) if compiled else each for each in (self._lend, self._take_back)]
            # in front of other people's hooks, which may read parameters, and behind them
            self._handles.append(module.register_forward_pre_hook(_Hook(lend, compiled), prepend=True))
            # checkpoint ends a second run by an exception
            self._handles.append(module.register_forward_hook(_Hook(take_back, compiled), always_call=True))

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._names = {}  # the parameters may be others after it

    def _see_outside(self) -> int:
        number = self._outside[threading.get_ident()] = torch._C._autograd._get_sequence_nr()
        return number

    def _pass_of(self, node: Node) -> "_ForwardPass | None":
        """The forward pass that made a node, or whose backward pass did (a second run that has a backward pass of its own)."""
        number = node._sequence_nr()
        for each in self._passes:
            if number in each.numbers:
                return each
        since = range(self._outside.get(threading.get_ident(), 0), torch._C._autograd._get_sequence_nr())
        return self._passes[-1] if self._passes and number in since else None

    def _lend(self, module: nn.Module) -> None:
        loan = _Loan()
        self._lent.setdefault(module, []).append(loan)  # a module may run inside itself
        node = _running()
        if node is None:
            self._see_outside()
            return
        if (of := self._pass_of(node)) is None:
            return
        names = self._names = self._names or {id(parameter): name for name, parameter in self._model.named_parameters()}
        places = [(owner, key, own) for owner in module.modules() for key, own in owner._parameters.items() if id(own) in names]
        if not places:
            return  # a module around it was lent all
        with saved_tensors_hooks(_itself, _itself):  # those of checkpoint count what the layers save, and masks are none of it
            params = {**self._effective({names[id(own)]: own for _, _, own in places if own is not None}), **of.inputs(node)}
        loan.places = [(owner, key, own) for owner, key, own in places if own is not None and names[id(own)] in params]
        for owner, key, own in loan.places:
            owner._parameters[key] = params[names[id(own)]]  # type: ignore[assignment]  # as functional_call puts them there

    def _take_back(self, module: nn.Module) -> None:
        if not (loans := self._lent.get(module)):
            return
        loan = loans.pop()
        if not loans:
            del self._lent[module]
        loan.give_back()
        if _running() is None:
            self._see_outside()


@dataclass(frozen=True, kw_only=True)
class _ForwardPass:
    """A forward pass: the numbers of its nodes, and its effective parameters by name."""

    numbers: range
    params: "Mapping[str, weakref.ref[Tensor]]"

    def inputs(self, node: Node) -> dict[str, Tensor]:
        """The parameters that this node was given itself: an ``autograd.Function`` may ask for the gradients of just those."""
        given = {each for each, _ in node.next_functions if each is not None}
        held = {name: tensor for name, ref in self.params.items() if (tensor := ref()) is not None}
        return {name: tensor for name, tensor in held.items() if tensor.grad_fn in given}


@dataclass(kw_only=True)
class _Loan:
    """What one run of a module was lent: the places, each with the parameter of its own."""

    places: list[tuple[nn.Module, str, nn.Parameter]] = field(default_factory=list)

    def give_back(self) -> None:
        for owner, key, own in self.places:
            owner._parameters[key] = own


class _Hook:
    """A hook that a copy of its module does not inherit: it is there, and does nothing.

    Args:
        act: on the module.
        compiled: whether it acts also in what torch.compile traces; else its module is in a compiled one, which was lent all.
    """

    def __init__(self, act: Callable[[nn.Module], None] | None = None, compiled: bool = False) -> None:
        self._act = act
        self._compiled = compiled

    def __call__(self, module: nn.Module, *_arguments: object) -> None:
        if self._act is not None and (self._compiled or not torch.compiler.is_compiling()):
            self._act(module)

    def __reduce__(self) -> tuple[type["_Hook"], tuple[()]]:
        return _Hook, ()


def _entered(module: nn.Module, found: dict[nn.Module, bool], compiled: bool = False) -> dict[nn.Module, bool]:
    """All modules, and whether each is compiled in place, or inside such a one; not those inside ``torch.compile(module)``."""
    if module not in found:
        found[module] = compiled or getattr(module, "_compiled_call_impl", None) is not None
        if not isinstance(getattr(module, "_orig_mod", None), nn.Module):
            for child in module.children():
                _entered(child, found, found[module])
    return found


def _running() -> Node | None:
    """The node that autograd is at in this thread; None where no backward pass runs."""
    node: Node | None = torch._C._current_autograd_node()  # torch's stubs know no None here
    return node


def _not_traced(act: Callable[[nn.Module], None]) -> Callable[[nn.Module], None]:
    disabled: Callable[[nn.Module], None] = torch.compiler.disable(act)  # type: ignore[no-untyped-call]
    return disabled


def _itself(tensor: Tensor) -> Tensor:
    return tensor
