"""Every method with every network of the project, in both granularities: a step, what it deploys, and its pruning."""

import copy
import math

import pytest
import torch
from torch import nn

from tdcompress.methods.base import Step
from tdcompress.methods.registry import METHODS
from tdcompress.methods.wrapper import SparseNet
from tdcompress.models.registry import build_model
from tdcompress.shrink.groups import unit_groups
from tdcompress.sparsity.masks import apply_masks, unit_masks, weight_masks
from tdcompress.sparsity.units import Targets, prunable_weights

NEEDED = {"targeted": {"gamma": 0.5}, "random_prune": {"fraction": 0.5}, "l1": {"l1": 0.1}}
NETWORKS: dict[str, tuple[tuple[int, int, int], dict[str, object]]] = {
    "mlp": ((3, 8, 8), {}),
    "digits_cnn": ((1, 8, 8), {"width": 6, "hidden": 8}),
    "lenet5": ((1, 28, 28), {}),
    "cifar_resnet20": ((3, 8, 8), {}),
    "resnet32": ((3, 8, 8), {}),
    "wide_resnet": ((3, 8, 8), {"depth": 10, "width": 1}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, Targets, torch.Tensor]:
    image, options = NETWORKS[request.param]
    model = build_model(request.param, classes=4, image=image, **options)
    images = torch.randn(4, *image, generator=torch.Generator().manual_seed(0))
    weights = prunable_weights(model)
    return model, Targets(weights=weights, groups=unit_groups(model, images, weights)), images


@pytest.mark.parametrize("granularity", ["weight", "unit"])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_and_pruning(network: tuple[nn.Module, Targets, torch.Tensor], name: str, granularity: str):
    fresh, targets, images = network
    model = copy.deepcopy(fresh)
    settings = METHODS[name](granularity=granularity, **NEEDED.get(name, {}))  # type: ignore[arg-type]
    net = SparseNet(model, settings.build(targets, model), l1=settings.l1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    net.train()
    net.begin_step(Step(train_size=4), torch.Generator().manual_seed(0))
    loss, penalty = nn.functional.cross_entropy(net(images), torch.arange(4)), net.penalty()
    (loss if penalty is None else loss + penalty).backward()
    assert all(math.isfinite(float(p.grad.norm())) for p in net.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in net.method.parameters())
    optimizer.step()
    net.end_step()
    net.eval()
    scores = net.method.scores(net.parameters_by_name())
    with torch.no_grad():
        evaluated = net(images)
        plain = net.plain()
        assert torch.equal(plain(images), evaluated)
    params = {key: value.detach() for key, value in plain.named_parameters()}
    if granularity == "weight":
        masks = weight_masks(params, targets.weights, scores=scores, fraction=0.5)
    else:
        masks = unit_masks(params, targets.groups, scores=scores, fraction=0.5)
    apply_masks(plain, masks)
    for slot in targets.weights:
        pruned = float((~masks[slot.parameter]).float().mean())
        assert 0.3 < pruned < 0.7
        assert bool((params[slot.parameter][~masks[slot.parameter].expand_as(params[slot.parameter])] == 0).all())
