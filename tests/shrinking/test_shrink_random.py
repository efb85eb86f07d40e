"""Random networks pruned at random: chains, branches, concatenations, residual sums, products and groups, each with its
certificate."""

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tdcompress.shrinking.exact import shrink
from tdcompress.shrinking.groups import unit_groups
from tdcompress.shrinking.rebuild import narrow
from tdcompress.sparsity.units import prunable_weights

ACTIVATIONS = (nn.ReLU, nn.Sigmoid, nn.GELU, nn.Hardswish, nn.Identity)
BLOCKS = ("conv", "wide", "branch", "residual", "project", "gate", "depthwise", "grouped", "pool", "transposed", "norm")


class Block(nn.Module):
    """One of BLOCKS; ``width`` channels come in, ``self.width`` go out."""

    def __init__(self, kind: str, width: int, activation: type[nn.Module], padding: int, bias: bool) -> None:
        super().__init__()
        self.kind, self.activation = kind, activation()
        self.width = {"wide": width + 2, "branch": width + 3}.get(kind, width)
        make = {
            "conv": lambda: [nn.Conv2d(width, width, 3, padding=1, bias=bias), nn.BatchNorm2d(width)],
            "wide": lambda: [nn.Conv2d(width, width + 2, 2 * padding + 1, padding=padding, bias=bias)],
            "branch": lambda: [nn.Conv2d(width, 3, 1, bias=bias)],
            "residual": lambda: [
                nn.Conv2d(width, 5, 3, padding=1, bias=bias),
                nn.BatchNorm2d(5),
                nn.Conv2d(5, width, 1, bias=bias),
            ],
            "project": lambda: [
                nn.BatchNorm2d(width),
                nn.Conv2d(width, width, 1, bias=bias),
                nn.Conv2d(width, width, 1, bias=bias),
            ],
            "gate": lambda: [nn.Conv2d(width, 3, 1), nn.Conv2d(3, width, 1)],
            "depthwise": lambda: [nn.Conv2d(width, width, 3, padding=1, groups=width, bias=bias)],
            "grouped": lambda: [nn.Conv2d(width, width, 1, groups=2 if width % 2 == 0 else 1, bias=bias)],
            "pool": lambda: [],
            "transposed": lambda: [nn.ConvTranspose2d(width, width, 3, padding=1, bias=bias)],
            "norm": lambda: [nn.GroupNorm(2 if width % 2 == 0 else 1, width)],
        }
        self.parts = nn.ModuleList(make[kind]())

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "pool":
            return self.activation(nn.functional.max_pool2d(x, 3, 1, 1))
        if self.kind == "branch":
            return torch.cat([self.activation(self.parts[0](x)), x], 1)
        if self.kind == "project":
            x = self.activation(self.parts[0](x))
            return self.parts[1](x) + self.parts[2](x)
        y = x
        if self.kind == "gate":
            y = y.mean((2, 3), keepdim=True)
        for part in self.parts:
            y = part(y)
            if not isinstance(part, nn.Conv2d) or part is not self.parts[-1]:
                y = self.activation(y)
        return x + y if self.kind == "residual" else x * torch.sigmoid(y) if self.kind == "gate" else self.activation(y)


class Network(nn.Module):
    def __init__(self, blocks: list[tuple[str, type[nn.Module], int, bool]], flat: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 1)
        width, made = 4, []
        for kind, activation, padding, bias in blocks:
            made.append(Block(kind, width, activation, padding, bias))
            width = made[-1].width
        self.blocks, self.flat = nn.Sequential(*made), flat
        self.hidden, self.head = nn.Linear(width * (16 if flat else 1), 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        x = x.flatten(1) if self.flat else x.mean((2, 3))
        return self.head(self.hidden(x).tanh())


networks = st.builds(
    Network,
    st.lists(
        st.tuples(st.sampled_from(BLOCKS), st.sampled_from(ACTIVATIONS), st.integers(0, 1), st.booleans()), min_size=1, max_size=5
    ),
    st.booleans(),
)


@settings(derandomize=True, deadline=None, max_examples=15, phases=(Phase.explicit, Phase.generate))
@given(
    network=networks,
    fraction=st.sampled_from((0.3, 0.5, 0.9)),
    scope=st.sampled_from(("layer", "group")),
    unit=st.sampled_from(("whole", "filter")),
    seed=st.integers(0, 99),
)
def test_random_networks_shrink_exactly_and_rebuild(network, fraction, scope, unit, seed):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.parameters():
        tensor.data = torch.randn(tensor.shape, generator=generator)
    x = torch.randn(2, 2, 4, 4, generator=generator)
    parameters = dict(network.named_parameters())
    groups = unit_groups(network, x, prunable_weights(network), scope=scope, unit=unit)
    for group in groups:
        dead = torch.randperm(group.size, generator=generator)[: min(int(fraction * group.size), group.size - 1)].tolist()
        for slot in (*group.filters, *group.tied):
            own = [i for u in dead for i in ((u,) if slot.positions is None else slot.positions[u])]
            parameters[slot.parameter].data.index_fill_(slot.axis, torch.tensor(own, dtype=torch.int64), 0.0)
    shrunk = shrink(network, x)
    assert shrunk.report.max_error <= 1e-10 * shrunk.report.max_output
    assert shrunk.report.parameters_after <= shrunk.report.parameters_before + sum(
        item.units_after for item in shrunk.report.layers
    )
    keeps_zero = all(
        block.kind not in ("norm", "gate") and not isinstance(block.activation, nn.Sigmoid) for block in network.blocks
    )
    if unit == "whole" and scope == "group" and keeps_zero:
        assert all(item.dead_kept == 0 for item in shrunk.report.layers)
    again = narrow(network, shrunk.kept)
    again.load_state_dict(shrunk.model.state_dict())
    network.eval(), again.eval(), shrunk.model.eval()
    with torch.no_grad():
        assert torch.equal(again(x), shrunk.model(x))
