"""How long freezing lasts: until it is removed or done anew, in copies and other types, and what it leaves behind."""

import copy
import gc
import weakref

import torch
from frozen_networks import batch, held, network, trained_on, zero_bits
from torch import nn

import tdcompress as tdc
from tdcompress.sparsity import freeze as module


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
