"""A weight that several layers share: an embedding's table and a head, a parameter of the network and its layers."""

import pytest
import torch
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.shrinking.groups import find_units
from tdcompress.sparsity.units import prunable_weights

TOKENS = torch.randint(0, 11, (3, 5), generator=torch.Generator().manual_seed(0))


class Tied(nn.Module):
    """A language model with one table; what its head says goes through a BatchNorm to a last layer.

    Args:
        head_first: whether the weight has the head's name.
    """

    def __init__(self, *, head_first: bool) -> None:
        super().__init__()
        if head_first:
            self.head, self.table = nn.Linear(6, 11, bias=False), nn.Embedding(11, 6)
        else:
            self.table, self.head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
        self.table.weight = self.head.weight
        self.hidden, self.back = nn.Linear(6, 8), nn.Linear(8, 6)
        self.norm, self.last = nn.BatchNorm1d(11), nn.Linear(11, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.hidden(self.table(tokens).mean(1)).relu()
        return self.last(self.norm(self.head(self.back(hidden))))


@pytest.mark.parametrize("scope", ["layer", "group"])
@pytest.mark.parametrize("head_first", [True, False])
def test_a_layer_that_shares_an_embeddings_table_is_left_whole_and_named(head_first, scope):
    model, owner = Tied(head_first=head_first), "head" if head_first else "table"
    units = find_units(model, TOKENS, prunable_weights(model, ["hidden", "back"]), scope=scope, include=[owner])
    (group,) = units.groups
    assert (group.size, group.filters[0].axis, group.tied) == (11, 0, ())
    units = find_units(model, TOKENS, prunable_weights(model), scope=scope)
    assert units.fixed[owner].startswith("an embedding, or another layer")
    for group in units.groups:  # the BatchNorm sees the head's units, and none of the hidden layer's
        assert "norm.weight" not in [slot.parameter for slot in group.tied]


@pytest.mark.parametrize("head_first", [True, False])
def test_single_weights_of_a_shared_table_are_pruned_once(head_first):
    model = Tied(head_first=head_first)
    masks = tdc.prune(model, granularity="weight", fraction=0.5, exclude=["hidden", "back"])
    assert list(masks) == ["head.weight" if head_first else "table.weight"]
    assert int((model.table.weight == 0).sum()) == 33


def test_a_parameter_of_the_network_has_its_own_name_and_an_excluded_layer_keeps_what_it_shares():
    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
            self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
            self.first.weight = self.second.weight = self.kernel

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.second(self.first(x).relu()).relu())

    model = Outside()
    assert [slot.parameter for slot in prunable_weights(model)] == ["kernel"]
    with pytest.raises(tdc.errors.ModelError, match="every layer of Outside is excluded"):
        prunable_weights(model, ["second"])
