"""Pruned entries stay exactly zero in loops of one's own, whatever makes the steps."""

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from frozen_networks import batch, held, loss_of, network, trained_on, zero_bits
from hypothesis import given
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.errors import ArgumentError, ModelError


class Noisy(torch.optim.Optimizer):
    """Adds noise to every entry, and remembers it."""

    def __init__(self, params) -> None:
        super().__init__(params, {})
        self.generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                noise = torch.randn(p.shape, generator=self.generator)
                self.state[p]["noise"] = noise
                p.add_(noise, alpha=0.01)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "sgd-each": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, foreach=False),
    "sgd-fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01, weight_decay=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.01),
    "noisy": Noisy,
}


@pytest.mark.parametrize("granularity", ["weight", "unit"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_are_exact_after_every_step_and_in_every_forward_pass(name: str, granularity: str) -> None:
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    for seed in range(3):  # so that there are moments of what will be pruned
        optimizer.zero_grad()
        loss_of(model, seed).backward()
        optimizer.step()
    masks = tdc.prune(model, granularity=granularity, fraction=0.5, example_inputs=batch(0)[0])  # type: ignore[arg-type]
    tdc.freeze(model, masks)
    seen: list[bool] = []
    model[3].register_forward_hook(lambda *_: seen.append(zero_bits(held(model, masks))))
    for seed in range(3, 8):
        optimizer.zero_grad()
        loss_of(model, seed).backward()
        optimizer.step()
        assert zero_bits(held(model, masks))
        if name != "noisy" and seed > 3:
            parameters = dict(model.named_parameters())
            for key, mask in masks.items():
                for value in optimizer.state[parameters[key]].values():
                    if isinstance(value, Tensor) and value.shape == mask.shape:
                        assert not value[~mask].any()
    assert seen == [True] * 5
    parameters = dict(model.named_parameters())
    assert all(bool((parameters[key][mask] != 0).all()) for key, mask in masks.items())  # the others train


def test_lbfgs_which_runs_the_network_inside_its_step() -> None:
    model = network()
    masks = tdc.prune(model, fraction=0.5)
    tdc.freeze(model, masks)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    seen: list[bool] = []
    model[0].register_forward_hook(lambda *_: seen.append(zero_bits(held(model, {"0.weight": masks["0.weight"]}))))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, 0)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert len(seen) > 2
    assert all(seen)
    assert zero_bits(held(model, masks))


@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.9), name=st.sampled_from(["sgd", "adam", "adamw"]))
def test_it_equals_training_with_every_mask_applied_by_hand(seed: int, share: float, name: str) -> None:
    """Independent: the gradients and the weights are multiplied by the masks in the loop."""
    frozen, manual = network(seed % 7), network(seed % 7)
    generator = torch.Generator().manual_seed(seed)
    masks = {key: torch.rand(p.shape, generator=generator) >= share for key, p in frozen.named_parameters() if p.ndim > 1}
    tdc.freeze(frozen, masks)
    parameters = dict(manual.named_parameters())
    with torch.no_grad():
        for key, mask in masks.items():
            parameters[key].mul_(mask)
    one, other = OPTIMIZERS[name](frozen.parameters()), OPTIMIZERS[name](manual.parameters())
    for step in range(3):
        for model, optimizer in ((frozen, one), (manual, other)):
            optimizer.zero_grad()
            loss_of(model, seed + step).backward()
            if model is manual:
                for key, mask in masks.items():
                    parameters[key].grad.mul_(mask)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
    for (key, left), right in zip(frozen.named_parameters(), manual.parameters(), strict=True):
        assert torch.equal(left, right), key


def test_updates_by_hand_and_loaded_weights_are_undone_when_the_layer_runs() -> None:
    model = network()
    masks = tdc.prune(model, fraction=0.5)
    tdc.freeze(model, masks)
    loss_of(model, 0).backward()
    for parameter in model.parameters():
        parameter.data -= 0.1 * (parameter.grad + 0.01)
    assert held(model, masks).any()
    loss_of(model, 1)
    assert zero_bits(held(model, masks))
    model.load_state_dict(network(1).state_dict())
    model[:2](batch(0)[0])  # a part of it alone
    assert zero_bits(held(model, {"0.weight": masks["0.weight"]}))


def test_parameters_that_begin_to_train_later() -> None:
    model = network()
    masks = tdc.prune(model, fraction=0.5)
    model.requires_grad_(False)
    tdc.freeze(model)
    loss_of(model.requires_grad_(True), 0).backward()
    assert not any(bool(p.grad[~masks[name]].any()) for name, p in model.named_parameters() if name in masks)
    assert zero_bits(held(trained_on(model), masks))


def test_several_forward_passes_before_one_backward_pass() -> None:
    model = network()
    masks = tdc.prune(model, fraction=0.5)
    tdc.freeze(model)
    (loss_of(model, 0) + loss_of(model, 1)).backward()
    parameters = dict(model.named_parameters())
    assert all(not bool(parameters[name].grad[~mask].any()) for name, mask in masks.items())
    assert all(bool(parameters[name].grad[mask].any()) for name, mask in masks.items())


def test_tied_weights() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    model[2].weight = model[0].weight
    masks = tdc.prune(model, fraction=0.5)
    tdc.freeze(model, {"2.weight": masks["0.weight"]})  # by either name
    with torch.no_grad():
        model[0].weight.data += 1
    model[2](torch.ones(1, 4))
    assert not model[0].weight[~masks["0.weight"]].any()


def test_nothing_to_freeze_is_said(caplog: pytest.LogCaptureFixture) -> None:
    tdc.freeze(network()).remove()
    assert caplog.messages == ["freeze: this Sequential has no zeros to keep; prune it first, if it should have"]


def test_what_cannot_be_frozen_is_refused() -> None:
    with pytest.raises(ModelError, match=r"masks: Sequential has no parameter '0\.weigth'; did you mean '0\.weight'"):
        tdc.freeze(network(), {"0.weigth": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(ModelError, match=r"masks: that of 0\.weight has shape \(7, 7\), the parameter \(6, 2, 3, 3\)"):
        tdc.freeze(network(), {"0.weight": torch.zeros(7, 7, dtype=torch.bool)})
    with pytest.raises(
        ModelError, match=r"masks: that of 0\.weight has shape \(3,\), the parameter"
    ):  # though it would broadcast
        tdc.freeze(network(), {"0.weight": torch.zeros(3, dtype=torch.bool)})
    with pytest.raises(ModelError, match=r"that of 0\.weight is torch\.float32, not a bool tensor"):
        tdc.freeze(network(), {"0.weight": torch.zeros(6, 2, 3, 3)})
    with pytest.raises(ArgumentError, match="model has to be a torch"):
        tdc.freeze("model")  # type: ignore[arg-type]
    with torch.inference_mode():
        made = network()
        tdc.prune(made, fraction=0.5)
    with pytest.raises(ModelError, match="inference_mode"):
        tdc.freeze(made)
