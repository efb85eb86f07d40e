"""An optimizer carried over a shrinking trains on as the masked network would have."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import Phase, given, settings
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.errors import ModelError, UnsupportedError
from tdcompress.shrinking.exact import Shrunk


class Block(nn.Module):
    """A stem, a residual block with a grouped convolution, and a head; 3 x 6 x 6 images, 4 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.one, self.one_norm = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=4)
        self.two = nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        y = torch.relu(self.grouped(torch.relu(self.one_norm(self.one(x)))))
        return self.head(torch.relu(x + self.two(y)).mean((2, 3)))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Linear(3, 8), nn.MultiheadAttention(8, 4, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(2).transpose(1, 2))
        return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


def network(kind: type[nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind().double()


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 3, 6, 6, generator=generator, dtype=torch.float64), torch.randint(0, 4, (8,), generator=generator)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> list[float]:
    losses = []
    for seed in seeds:
        pixels, labels = batch(seed)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(pixels), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
}


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """Dead units, and what stays without them."""

    masks: dict[str, Tensor]
    small: Shrunk


@cache
def cutting(scope: str, fraction: float) -> Cutting:
    model, pixels = network(Block, 0), batch(99)[0]
    masks = tdc.prune(model, granularity="unit", fraction=fraction, scope=scope, example_inputs=pixels)  # type: ignore[arg-type]
    small = tdc.shrink(model, pixels)
    assert not small.report.folded_biases
    assert small.report.parameters_after < small.report.parameters_before
    return Cutting(masks=masks, small=small)


@given(
    seed=st.integers(0, 10**6),
    name=st.sampled_from(sorted(OPTIMIZERS)),
    cut=st.sampled_from([("layer", 0.5), ("group", 0.5)]),
)
@settings(max_examples=12, phases=[Phase.generate])  # each trains 11 steps; no shrinking of examples
def test_training_on_equals_training_the_masked_network(seed: int, name: str, cut: tuple[str, float]) -> None:
    full, described = network(Block, seed), cutting(*cut)
    check_equality(full, described.masks, described.small.kept, name, seed)


def check_equality(full: nn.Module, masks: dict[str, Tensor], kept: dict[str, Any], name: str, seed: int) -> nn.Module:
    """Train, prune, narrow; then train the masked network and the narrow one on, and compare losses and weights."""
    optimizer, masked = OPTIMIZERS[name](full.parameters()), OPTIMIZERS[name](full.parameters())
    train(full, optimizer, range(seed, seed + 3))  # so that there are moments, also of what goes
    masked.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # which would else share what it loads
    tdc.freeze(full, masks)
    narrow = tdc.narrow(full, kept)
    tdc.freeze(narrow)  # the dead units that stay
    tdc.narrow_state(optimizer, full, narrow, kept)
    seeds = range(seed + 3, seed + 7)
    assert train(narrow, optimizer, seeds) == pytest.approx(train(full, masked, seeds), abs=1e-9)
    for (key, found), expected in zip(narrow.named_parameters(), tdc.narrow(full, kept).parameters(), strict=True):
        assert found.detach().numpy() == pytest.approx(expected.detach().numpy(), abs=1e-9), key
    return narrow


def test_attention_heads() -> None:
    """The values of the first head are zero, so that it gives nothing."""
    masks = {
        "attention.in_proj_weight": torch.ones(24, 1, dtype=torch.bool),
        "attention.in_proj_bias": torch.ones(24, dtype=torch.bool),
    }
    for mask in masks.values():
        mask[16:18] = False
    model = network(Attending, 0)
    tdc.freeze(model, masks).remove()
    small = tdc.shrink(model, batch(0)[0])
    for name in ("adam", "sgd"):
        narrow = check_equality(network(Attending, 1), masks, small.kept, name, 5)
        assert narrow.attention.in_proj_weight.shape == (18, 8)


def test_momentum_by_hand() -> None:
    """Two of three units stay; the momentum of each entry is its number."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    count = 0
    for parameter in model.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.arange(parameter.numel()).view(parameter.shape) + float(count)
        count += parameter.numel()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0.0, 0.0
        model[0].weight[::2], model[2].weight[:] = 1.0, 1.0
    small = tdc.shrink(model, torch.ones(1, 2))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert tdc.narrow_state(optimizer, model, small.model, small.kept) is None
    kept = [optimizer.state[p]["momentum_buffer"].tolist() for p in small.model.parameters()]
    assert kept == [[[0.0, 1.0], [4.0, 5.0]], [6.0, 8.0], [[9.0, 11.0]], [12.0]]
    assert optimizer.param_groups[0]["params"] == list(small.model.parameters())
    assert len(optimizer.state) == 4
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_groups_wrappers_others_and_new_biases() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0.0, 2.0  # a constant, which moves into a bias that is not there yet
    other = nn.Parameter(torch.ones(3))
    matrices, rest = [model[i].weight for i in (0, 2, 4)], [model[0].bias, other, model[4].bias]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}])
    net = tdc.TargetedDropout(model, gamma=0.0)
    (net(torch.ones(2, 2)).sum() + other.sum()).backward()
    optimizer.step()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0.0, 2.0
    small = tdc.shrink(net, torch.ones(2, 2))
    assert small.kept["new_biases"] == ["2.bias"]
    tdc.narrow_state(optimizer, net, torch.compile(small.model, backend="eager"), small.kept)
    narrow = small.model
    first, second = optimizer.param_groups
    assert [id(p) for p in first["params"]] == [id(p) for p in (*(narrow[i].weight for i in (0, 2, 4)), narrow[2].bias)]
    assert [id(p) for p in second["params"]] == [id(narrow[0].bias), id(other), id(narrow[4].bias)]
    assert narrow[2].bias not in optimizer.state
    assert optimizer.state[other]["step"] == 1
    for parameter in narrow.parameters():
        if parameter is not narrow[2].bias:
            assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape
    narrow(torch.ones(2, 2)).sum().backward()
    optimizer.step()


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    model = network(Block, 0)
    before = copy.deepcopy(model)
    small = cutting("group", 0.5).small
    for optimizer, message in (
        (torch.optim.Adafactor(model.parameters()), r"row_var of stem\.weight has shape .* cannot be narrowed; start a new"),
        (torch.optim.LBFGS(model.parameters()), "LBFGS remembers all parameters as one vector"),
    ):
        if "row_var" in message:
            train(model, optimizer, range(1))
        with pytest.raises(UnsupportedError, match=message):
            tdc.narrow_state(optimizer, model, small.model, small.kept)
        assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(ModelError, match="the optimizer trains no parameter of this Block"):
        tdc.narrow_state(optimizer, before, small.model, small.kept)
    with pytest.raises(ModelError, match=r"stem\.weight: kept is not of these two networks"):
        tdc.narrow_state(optimizer, model, before, small.kept)
    with pytest.raises(ModelError, match=r"kept_channels is damaged, or of another version \(names no format\)"):
        tdc.narrow_state(optimizer, model, small.model, {})
