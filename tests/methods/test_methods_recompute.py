"""Layers that run again in the backward pass have the gradients of a single run, whatever happens in between."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import tdcompress as tdc

Run = Callable[..., Tensor]
WITHOUT, WITH = partial(checkpoint, use_reentrant=False), partial(checkpoint, use_reentrant=True)


def once(module: Run, x: Tensor) -> Tensor:
    return module(x)


class Inside(nn.Module):
    """A layer that runs inside itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, depth: int = 2) -> Tensor:
        x = torch.tanh(self.layer(x))
        return self(x, depth - 1) if depth else x


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


class Net(nn.Module):
    def __init__(self, block: nn.Module, run: Run) -> None:
        super().__init__()
        self.block, self.head, self.run = block, nn.Linear(4, 2), run
        for index, parameter in enumerate(self.parameters()):
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(index))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.run(self.block, x)))


def make(run: Run, block: type[nn.Module] = Block) -> tdc.TargetedDropout:
    return tdc.TargetedDropout(Net(block(), run).double(), gamma=0.75, alpha=0.8)


def images(seed: int = 0) -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)


def gradients(net: nn.Module) -> list[Tensor]:
    assert all(isinstance(parameter, nn.Parameter) for parameter in net.parameters())
    return [parameter.grad for parameter in net.parameters()]  # type: ignore[misc]


def assert_same(net: nn.Module, expected: nn.Module) -> None:
    for found, wanted in zip(gradients(net), gradients(expected), strict=True):
        torch.testing.assert_close(found, wanted)


def nested(outer: Run, inner: Run, block: Block, x: Tensor) -> Tensor:
    return outer(lambda y: block.two(torch.tanh(inner(block.one, y))), x)


class OwnCheckpoint(torch.autograd.Function):
    """As diffusion models have it: it asks for the gradients of the parameters that it was given, and of no others."""

    @staticmethod
    def forward(ctx: Any, block: nn.Module, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.block, ctx.x, ctx.parameters = block, x, parameters
        with torch.no_grad():
            return block(x)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor | None, ...]:
        x = ctx.x.detach().requires_grad_()
        with torch.enable_grad():
            output = ctx.block(x)
        return None, *torch.autograd.grad(output, (x, *ctx.parameters), gradient)


RUNS = {
    "a function of their own": lambda block, x: OwnCheckpoint.apply(block, x, *block.parameters()),
    "non-reentrant": WITHOUT,
    "reentrant": WITH,
    **{
        f"{i} {j}": partial(nested, outer, inner)
        for i, outer in (("without", WITHOUT), ("with", WITH))
        for j, inner in (("without", WITHOUT), ("with", WITH))
    },
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_every_kind_of_second_run(run: Run) -> None:
    net, expected = make(run), make(once)
    for each in (net, expected):
        losses = [each(images(seed)).square().sum() for seed in range(2)]
        (losses[0] + losses[1]).backward()
    assert_same(net, expected)


@pytest.mark.parametrize("run", [WITHOUT, WITH])
def test_a_module_that_runs_inside_itself(run: Run) -> None:
    net, expected = make(run, Inside), make(once, Inside)
    for each in (net, expected):
        each(images()).square().sum().backward()
    assert_same(net, expected)


def plain_before(net: tdc.TargetedDropout, x: Tensor) -> None:
    loss = net(x).square().sum()
    (loss + sum(parameter.square().sum() for parameter in net.plain().parameters())).backward()


def plain_beside(net: tdc.TargetedDropout, x: Tensor) -> None:
    (net(x).square().sum() + net.model(x).square().sum()).backward()


def evaluated_after(net: tdc.TargetedDropout, x: Tensor) -> None:
    net(x).square().sum().backward()
    net.eval()(x).square().sum().backward()


def evaluated_between(net: tdc.TargetedDropout, x: Tensor) -> None:
    loss = net(x).square().sum()
    net.eval()(x).square().sum().backward()
    net.train()
    loss.backward()


def penalised(net: tdc.TargetedDropout, x: Tensor) -> None:
    loss = net(x).square().sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    (loss + gradient.square().sum()).backward()


@pytest.mark.parametrize("update", [plain_before, plain_beside, evaluated_after, evaluated_between, penalised])
def test_other_passes_and_calls_in_between(update: Callable[[tdc.TargetedDropout, Tensor], None]) -> None:
    net, expected = make(WITHOUT), make(once)
    for each in (net, expected):
        update(each, images())
    assert_same(net, expected)


def test_hooks_of_other_people_see_the_same_parameters_both_times() -> None:
    class Standardised(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.standard, self.bias)

    def standardise(module: nn.Module, _inputs: object) -> None:
        module.standard = module.weight - module.weight.mean(1, keepdim=True)  # type: ignore[operator,union-attr]

    net, expected = make(WITHOUT), make(once)
    for each in (net, expected):
        each.model.block.one.__class__ = Standardised
        each.model.block.one.register_forward_pre_hook(standardise)
        each(images()).square().sum().backward()
    assert_same(net, expected)


@pytest.mark.parametrize("then", ["forward", "evaluation", "state_dict", "load_state_dict", "step", "plain", "to", "zero_grad"])
def test_an_interrupt_in_a_second_run_leaves_the_parameters(then: str) -> None:
    net, expected = make(WITHOUT), make(once)
    runs: list[int] = []

    def interrupt(*_: object) -> None:
        runs.append(0)
        if len(runs) == 2:
            raise KeyboardInterrupt

    net.model.block.two.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        net(images()).square().sum().backward()
    if then == "forward":
        net.model.head.zero_grad()
        for each in (net, expected):
            each(images()).square().sum().backward()
        assert_same(net, expected)
    elif then == "evaluation":
        assert torch.equal(net.eval()(images()), expected.eval()(images()))
    elif then == "state_dict":
        assert torch.equal(net.state_dict()["model.block.one.weight"], expected.model.block.one.weight)
    elif then == "load_state_dict":
        net.load_state_dict({name: value.clone() for name, value in expected.state_dict().items()})
    elif then == "to":
        net.to(torch.float32)
    else:
        getattr(net, then)()
    assert all(isinstance(parameter, nn.Parameter) for parameter in net.model.parameters())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_between_the_passes_train_on(copied: Callable[[Any], Any]) -> None:
    net, expected = make(WITHOUT), make(WITHOUT)
    loss = net(images()).square().sum()
    plain, wrapped = copied(net.model), copied(net)
    loss.backward()
    expected(images()).square().sum().backward()
    assert_same(net, expected)
    wrapped(images()).square().sum().backward()
    assert_same(wrapped, expected)
    plain(images()).square().sum().backward()
    net.zero_grad()
    net.model(images()).square().sum().backward()
    assert_same(plain, net.model)
    wrapped.step()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in wrapped.modules())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("run", [once, WITHOUT, WITH])
@pytest.mark.parametrize("way", ["part", "part, in place", "whole"])
def test_what_is_compiled(way: str, run: Run) -> None:
    torch._dynamo.reset()
    expected, model = make(once), Net(Block(), run).double()
    if way == "part":
        model.block = torch.compile(model.block, backend="eager", fullgraph=True)  # type: ignore[assignment]
    elif way == "part, in place":
        model.block.compile(backend="eager", fullgraph=run is once)
    net = tdc.TargetedDropout(model, gamma=0.75, alpha=0.8)
    compiled = torch.compile(net, backend="eager", fullgraph=True) if way == "whole" else net
    for each, called in ((net, compiled), (expected, expected)):
        if way == "whole":
            each(images()).sum().backward()  # whose hooks are there while the compiler traces
        called(images()).square().sum().backward()
        each.step()
        called(images()).square().sum().backward()
    assert_same(net, expected)
