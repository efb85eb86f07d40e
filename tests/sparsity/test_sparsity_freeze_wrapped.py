"""Freezing beside what else takes hold of a network: targeted dropout, torch.compile, DDP, shrinking, tracing."""

import copy

import pytest
import torch
import torch.distributed as dist
from frozen_networks import batch, held, network, trained_on, zero_bits
from torch import nn

import tdcompress as tdc
from tdcompress.sparsity import freeze as module


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
