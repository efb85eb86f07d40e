"""Networks that return classes of their own are pruned and shrunk as those that return dicts."""

from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.shrinking.returned import as_tree

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Output(OrderedDict):
    """A mapping that torch does not know."""


@dataclass
class Record:
    logits: Tensor
    more: object = None


RETURNED = {
    "dataclass": lambda z: Record(logits=z, more="as it is"),
    "mapping": lambda z: Output(logits=z, more=None),
    "nested": lambda z: [Record(logits=z, more={"twice": Record(logits=2 * z)})],
}


class Returns(nn.Module):
    def __init__(self, how) -> None:
        super().__init__()
        self.how, self.a, self.b = how, nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor):
        return self.how(self.b(self.a(x).relu().mean((2, 3))))


@pytest.mark.parametrize("kind", RETURNED)
@pytest.mark.parametrize("scope", ["layer", "group"])
def test_a_class_of_ones_own_is_returned_by_the_narrow_network_too(kind, scope):
    torch.manual_seed(0)
    model = Returns(RETURNED[kind])
    tdc.prune(model, granularity="unit", scope=scope, fraction=0.5, example_inputs=X)
    shrunk = tdc.shrink(model, X)
    assert shrunk.model.a.out_channels == 4
    assert 0 <= shrunk.report.max_error <= 1e-10 * shrunk.report.max_output
    assert type(shrunk.model(X)) is type(model.eval()(X))  # no hook is left


def test_what_a_tree_is_made_of():
    leaf = torch.zeros(())
    assert as_tree(leaf) is leaf
    tree = as_tree((Record(logits=leaf, more=Output(a=[leaf, Record])), {"n": 1}))
    assert tree == ({"logits": leaf, "more": {"a": [leaf, Record]}}, {"n": 1})
