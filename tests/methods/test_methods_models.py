"""Every method with every network of the project, in both granularities: a step, what it deploys, and its pruning."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from tdcompress.methods.base import TrainStep
from tdcompress.methods.registry import METHODS
from tdcompress.methods.wrapper import SparseNet
from tdcompress.models.base import ClassifierSettings
from tdcompress.models.basic_resnet import BasicResNet
from tdcompress.models.registry import MODELS, build_model
from tdcompress.models.vgg16 import STAGES, Vgg16
from tdcompress.shrinking.groups import unit_groups
from tdcompress.sparsity.masks import apply_masks, unit_masks, weight_masks
from tdcompress.sparsity.units import Targets, prunable_weights

CLASSES = 4
Image = tuple[int, int, int]


def by_name(name: str, image: Image, **options: object) -> Callable[[], tuple[nn.Module, Image]]:
    return lambda: (build_model(name, classes=CLASSES, image=image, **options), image)


def narrow(build: Callable[..., nn.Module], image: Image, *arguments: object, **options: object) -> Any:
    """A network whose settings have no width, built of its own parts with few filters."""

    def made() -> tuple[nn.Module, Image]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return build(*arguments, **options), image

    return made


# Every family of the registry: what a method meets there is the kinds of layers and how they are joined, not their widths.
NETWORKS: dict[str, Callable[[], tuple[nn.Module, Image]]] = {
    "mlp": by_name("mlp", (3, 8, 8)),
    "digits_cnn": by_name("digits_cnn", (1, 8, 8), width=6, hidden=8),
    "lenet5": by_name("lenet5", (1, 16, 16)),
    "cifar_resnet20": by_name("cifar_resnet20", (3, 8, 8)),
    "resnet32": by_name("resnet32", (3, 8, 8)),
    "wide_resnet": by_name("wide_resnet", (3, 8, 8), depth=10, width=1),
    "resnet18": narrow(
        BasicResNet,
        (3, 8, 8),
        classes=CLASSES,
        channels=3,
        filters=(4, 6, 8, 10),
        units=2,
        shortcut="projection",
        prune_stem=False,
    ),
    "vgg16": narrow(Vgg16, (3, 32, 32), CLASSES, (3, 32, 32), [[len(stage) * 2] * len(stage) for stage in STAGES], 12),
    "resnet50": narrow(ResNet, (3, 16, 16), Bottleneck, [1, 2, 1, 1], num_classes=CLASSES, width_per_group=4),
    "torchvision/squeezenet1_1": by_name("torchvision/squeezenet1_1", (3, 32, 32)),
}


def test_every_network_of_the_registry_is_here():
    families = {"cifar_resnet32": "cifar_resnet20", "cifar_resnet56": "cifar_resnet20", "resnet101": "resnet50"}
    assert {families.get(name, name) for name in MODELS if issubclass(MODELS[name], ClassifierSettings)} <= set(NETWORKS)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, Targets, torch.Tensor]:
    model, image = NETWORKS[request.param]()
    images = torch.randn(4, *image, generator=torch.Generator().manual_seed(0))
    weights = prunable_weights(model)
    return model, Targets(weights=weights, groups=unit_groups(model, images, weights)), images


@pytest.mark.parametrize("granularity", ["weight", "unit"])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_and_pruning(make_settings, network: tuple[nn.Module, Targets, torch.Tensor], name: str, granularity: str):
    fresh, targets, images = network
    model = copy.deepcopy(fresh)
    settings = make_settings(name, granularity)
    net = SparseNet(model, settings.build(targets, model), l1=settings.l1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    net.train()
    net.begin_step(TrainStep(train_size=4), torch.Generator().manual_seed(0))
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
    filters = [slot for group in targets.groups for slot in group.filters]  # units that can never leave are in no group
    for slot in targets.weights if granularity == "weight" else filters:
        pruned = float((~masks[slot.parameter]).float().mean())
        assert 0.3 < pruned < 0.7
        assert bool((params[slot.parameter][~masks[slot.parameter].expand_as(params[slot.parameter])] == 0).all())
