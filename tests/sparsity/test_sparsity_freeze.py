"""Pruned entries stay exactly zero in loops of one's own, whatever makes the steps."""

import copy
import gc
import weakref
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.errors import ArgumentError, ModelError
from tdcompress.sparsity import freeze as module
from tdcompress.sparsity.freeze import pruned_entries


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 4, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16, 3),
        )


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 2, 4, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)


def loss_of(model: nn.Module, seed: int) -> Tensor:
    pixels, labels = batch(seed)
    return nn.functional.cross_entropy(model(pixels), labels)


def held(model: nn.Module, masks: dict[str, Tensor]) -> Tensor:
    parameters = dict(model.named_parameters())
    return torch.cat([parameters[name].detach()[~mask.expand_as(parameters[name])] for name, mask in masks.items()])


def zero_bits(values: Tensor) -> bool:
    """+0 everywhere, not -0."""
    return torch.equal(values.view(torch.int32), torch.zeros_like(values).view(torch.int32))


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


def test_the_state_dict_stays_as_it_is() -> None:
    model = network()
    tdc.prune(model, fraction=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    types = [type(each) for each in model.modules()]
    tdc.freeze(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert [type(each) for each in model.modules()] == types


def trained_on(model: nn.Module, steps: int = 2) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for seed in range(steps):
        optimizer.zero_grad()
        loss_of(model, seed).backward()
        optimizer.step()
    return model


def test_it_ends_with_remove_and_with_the_block() -> None:
    model = network()
    masks = tdc.prune(model, fraction=0.5)
    other = model[0].register_forward_pre_hook(lambda *_: None)
    with tdc.freeze(model):
        trained_on(model)
        assert zero_bits(held(model, masks))
    assert bool((held(trained_on(model), masks) != 0).float().mean() > 0.9)
    masks = tdc.prune(model, fraction=0.5)
    handle = tdc.freeze(model)
    handle.remove()
    handle.remove()
    assert bool((held(trained_on(model), masks) != 0).float().mean() > 0.9)
    assert list(model[0]._forward_pre_hooks) == [other.id]
    assert not model[0].weight._post_accumulate_grad_hooks


def test_the_second_freeze_takes_the_place_of_the_first() -> None:
    model = network()
    tdc.prune(model, fraction=0.3)
    first = tdc.freeze(model)
    trained_on(model)
    more = tdc.prune(model, fraction=0.6)
    tdc.freeze(model)
    first.remove()  # over already
    assert zero_bits(held(trained_on(model), more))
    assert [len(layer._forward_pre_hooks) for layer in model] == [1, 0, 0, 1, 0, 0, 0]


def test_a_deep_copy_is_frozen_and_independent() -> None:
    model = network()
    masks = tdc.prune(model, fraction=0.5)
    handle = tdc.freeze(model)
    copied = copy.deepcopy(model)
    handle.remove()
    assert zero_bits(held(trained_on(copied), masks))
    assert zero_bits(held(model, masks))  # the copy's steps do not touch it
    assert held(trained_on(model), masks).any()
    tdc.freeze(copied).remove()
    assert held(trained_on(copied), masks).any()


def test_it_goes_with_the_network_to_another_type_and_back() -> None:
    model = network()
    masks = tdc.prune(model, fraction=0.5)
    tdc.freeze(model)
    model.double()
    pixels, labels = batch(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    nn.functional.cross_entropy(model(pixels.double()), labels).backward()
    optimizer.step()
    assert not held(model, masks).any()
    assert zero_bits(held(trained_on(model.float()), masks))


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


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_inside_targeted_dropout(granularity: str) -> None:
    model, (pixels, labels) = network(), batch(0)
    masks = tdc.prune(model, granularity=granularity, fraction=0.3, example_inputs=pixels)  # type: ignore[arg-type]
    net = tdc.TargetedDropout(model, granularity=granularity, gamma=0.6, alpha=0.5, example_inputs=pixels)  # type: ignore[arg-type]
    tdc.freeze(net, masks)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(pixels), labels).backward()
        optimizer.step()
        net.step()
        assert zero_bits(held(model, masks))
    for parameter in model.parameters():
        parameter.data += 1.0
    found = net.eval()(pixels)
    assert zero_bits(held(model, masks))
    assert torch.equal(found, model(pixels))


def test_with_targeted_dropout_around_a_part() -> None:
    part = tdc.TargetedDropout(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6)), gamma=0.5, alpha=1.0)
    model = nn.Sequential(part, nn.ReLU(), nn.Linear(6, 3))
    masks = tdc.prune(model, fraction=0.3)
    tdc.freeze(model, masks)
    for parameter in model.parameters():
        parameter.data += 1.0
    found = model(torch.ones(1, 4))
    assert zero_bits(held(model, masks))
    assert torch.equal(found, model(torch.ones(1, 4)))


def test_under_torch_compile() -> None:
    model = network()
    masks = tdc.prune(model, fraction=0.5)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    tdc.freeze(compiled)
    trained_on(compiled)
    assert zero_bits(held(model, masks))
    parameters = dict(model.named_parameters())
    assert all(not bool(parameters[name].grad[~mask].any()) for name, mask in masks.items())


def test_under_distributed_data_parallel() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = network()
        masks = tdc.prune(model, fraction=0.5)
        wrapped = nn.parallel.DistributedDataParallel(model)
        tdc.freeze(wrapped)
        trained_on(wrapped, 3)
        assert zero_bits(held(model, masks))
        parameters = dict(model.named_parameters())
        assert all(not bool(parameters[name].grad[~mask].any()) for name, mask in masks.items())
    finally:
        dist.destroy_process_group()


def test_what_shrinking_and_tracing_see_is_not_frozen() -> None:
    model, (pixels, _) = network(), batch(0)
    masks = tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=pixels)
    tdc.freeze(model, masks)
    expected = tdc.shrink(copy.deepcopy(model), pixels)
    small = tdc.shrink(model, pixels)
    assert small.kept == expected.kept
    assert not any(isinstance(h, module._Keeper) for layer in small.model.modules() for h in layer._forward_pre_hooks.values())
    program = torch.export.export(model.eval(), (pixels,))
    assert not any("masked_fill" in str(node.target) for node in program.graph.nodes)
    assert zero_bits(held(trained_on(model.train()), masks))


def test_a_dropped_network_leaves_nothing() -> None:
    gc.collect()
    before = len(module._KEEPERS)
    model = network()
    tdc.prune(model, fraction=0.5)
    tdc.freeze(model)
    assert len(module._KEEPERS) == before + 2
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert len(module._KEEPERS) == before


def found_in(model: nn.Module) -> dict[str, list[bool]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: zeros.flatten().tolist() for p, zeros in pruned_entries(model)}


def test_zeros_that_tell_of_pruning_and_those_that_do_not() -> None:
    layer, norm, started = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)
    head = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]))
        layer.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))  # that of the first filter has just begun at 0
        norm.weight.copy_(torch.tensor([1.0, 0.0, 0.0]))
        norm.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
        started.weight.zero_()
        started.bias.zero_()
    assert found_in(nn.Sequential(layer, norm, started, head)) == {
        "0.weight": [False, True, True, True, False, False],
        "0.bias": [False, True, False],
        "1.weight": [False, True, False],
        "1.bias": [False, True, False],
    }
    residual = nn.BatchNorm1d(3)  # its scale begins at 0, so that the block begins as the identity
    nn.init.zeros_(residual.weight)
    assert found_in(nn.Sequential(nn.Linear(3, 3), residual)) == {}


def test_the_dead_filters_of_a_grouped_transposed_convolution() -> None:
    layer = nn.ConvTranspose2d(4, 6, 2, groups=2)
    with torch.no_grad():
        layer.bias.zero_()
        layer.weight[:2, 1] = 0.0  # output 1 of the first group
        layer.weight[2:, 2] = 0.0  # output 2 of the second: 3 + 2
        layer.weight[3, 0] = 0.0  # a part of output 3
    assert found_in(layer)["bias"] == [False, True, False, False, False, True]


def test_all_that_pruning_units_made_zero_is_found_without_its_masks() -> None:
    model = network()
    trained_on(model)
    masks = tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=batch(0)[0])
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: zeros for p, zeros in pruned_entries(model)}
    assert found.keys() == masks.keys()
    assert all(torch.equal(found[name], ~mask) for name, mask in masks.items())


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
