"""What pruning traced is taken up by the shrinking that follows, unless something changed."""

import gc
import weakref

import pytest
import torch
from torch import nn

import tdcompress as tdc
from tdcompress.shrinking import remembered
from tdcompress.shrinking.trace import trace


class Residual(nn.Module):
    def __init__(self, factors=(1.0,)):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.scale, self.hidden = 1.0, {"factors": factors}

    def forward(self, x):
        x = self.first(x).relu()
        x = x + self.norm(self.second(x)) * self.scale
        for factor in self.hidden["factors"]:
            x = x * factor + 1.0
        return self.last(x.mean((2, 3)))


@pytest.fixture
def traces(monkeypatch):
    """How often networks are exported."""
    count = []
    export = torch.export.export

    def counted(*arguments, **options):
        count.append(type(arguments[0]).__name__)
        return export(*arguments, **options)

    monkeypatch.setattr(torch.export, "export", counted)
    return count


def pruned(net, x, scope="group"):
    tdc.prune(net, fraction=0.5, granularity="unit", scope=scope, example_inputs=x)
    return net


@pytest.mark.parametrize("scope", ["layer", "group"])
def test_pruning_and_shrinking_trace_once(traces, scope):
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    net = pruned(Residual().eval(), x, scope)
    before = len(traces)
    once = tdc.shrink(net, x)
    reused = len(traces) - before
    again = tdc.shrink(net, x)  # nothing is remembered any more
    assert len(traces) - before == 2 * reused + 1
    assert once.kept == again.kept
    assert once.report.parameters_after < once.report.parameters_before
    torch.testing.assert_close(once.model(x), again.model(x), rtol=0, atol=0)


def change_attribute(net):
    net.scale = 2.0


def change_module(net):
    net.last = nn.Linear(8, 4, bias=False)


def change_type(net):
    net.double()


@pytest.mark.parametrize("change", [change_attribute, change_module, change_type])
def test_what_can_be_seen_to_have_changed_is_traced_anew(change):
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    net = pruned(Residual().eval(), x)
    change(net)
    x = x.to(net.first.weight.dtype)
    assert remembered.recall(net, net, (x,)) is None
    torch.testing.assert_close(tdc.shrink(net, x).model(x), net(x))


def test_what_cannot_be_seen_fails_the_certificate_and_is_traced_anew(traces):
    """The constants of dead channels are other ones than those that pruning saw."""
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    net = pruned(Residual(factors=[1.0]).eval(), x)
    net.hidden["factors"] = [0.5, 3.0]
    shrunk = tdc.shrink(net, x)
    assert shrunk.report.parameters_after < shrunk.report.parameters_before
    torch.testing.assert_close(shrunk.model(x), net(x))


def test_a_program_is_rebound_to_the_weights_of_now():
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    net = pruned(Residual().eval(), x)
    with torch.no_grad():
        net.first.weight.fill_(3.0)
    found, fresh = remembered.recall(net, net, (x,)), trace(net, x)
    assert found.state.keys() == fresh.state.keys()
    for name, value in fresh.state.items():
        assert torch.equal(found.state[name], value)


def test_networks_are_not_kept_alive():
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    net = pruned(Residual().eval(), x)
    there = weakref.ref(net)
    del net
    gc.collect()
    assert there() is None
