"""Every classifier family of torchvision, pruned at random per layer and per group, with the certificate.

Light networks are taken as they are; of the heavy ones the same classes with fewer or narrower stages.
"""

from collections.abc import Callable

import pytest
import torch
import torchvision.models as tv
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import BasicBlock, Bottleneck

from tdcompress.shrinking.exact import shrink
from tdcompress.shrinking.groups import unit_groups
from tdcompress.shrinking.rebuild import narrow
from tdcompress.sparsity.units import prunable_weights


def vgg11_bn() -> nn.Module:
    model = tv.vgg11_bn(num_classes=10, init_weights=False)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))
    return model


def alexnet() -> nn.Module:
    model = tv.alexnet(num_classes=10)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Sequential(nn.Dropout(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))
    return model


EFFICIENTNET = [
    MBConvConfig(1, 3, 1, 32, 16, 1, 1, 1),
    MBConvConfig(6, 3, 2, 16, 24, 2, 1, 1),
    MBConvConfig(6, 5, 2, 24, 40, 2, 1, 1),
]
MOBILENET_V3 = [
    InvertedResidualConfig(16, 3, 16, 16, True, "RE", 2, 1, 1),
    InvertedResidualConfig(16, 3, 72, 24, False, "RE", 2, 1, 1),
    InvertedResidualConfig(24, 5, 96, 40, True, "HS", 1, 1, 1),
    InvertedResidualConfig(40, 5, 120, 40, True, "HS", 1, 1, 1),
]
FAMILIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "alexnet": (alexnet, 64),
    "vgg11_bn": (vgg11_bn, 32),
    "resnet18": (lambda: tv.ResNet(BasicBlock, [2, 1, 1, 1], num_classes=10), 32),
    "resnet50": (lambda: tv.ResNet(Bottleneck, [2, 1, 1, 1], num_classes=10), 32),
    "resnext50_32x4d": (lambda: tv.ResNet(Bottleneck, [1, 2, 1, 1], num_classes=10, groups=32, width_per_group=4), 32),
    "wide_resnet50_2": (lambda: tv.ResNet(Bottleneck, [1, 1, 1, 1], num_classes=10, width_per_group=128), 32),
    "densenet121": (lambda: tv.DenseNet(16, (2, 3, 2), 32, num_classes=10), 64),
    "mobilenet_v2": (lambda: tv.MobileNetV2(10, 0.5, [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]), 32),
    "mobilenet_v3_small": (lambda: tv.MobileNetV3(MOBILENET_V3, 64, num_classes=10), 32),
    "shufflenet_v2_x0_5": (lambda: tv.ShuffleNetV2([2, 3, 2], [24, 48, 96, 192, 256], num_classes=10), 64),
    "squeezenet1_1": (lambda: tv.squeezenet1_1(num_classes=10), 64),
    "efficientnet_b0": (lambda: tv.EfficientNet(EFFICIENTNET, 0.2, num_classes=10, last_channel=64), 32),
    "regnet_y_400mf": (lambda: tv.RegNet(BlockParams.from_init_params(6, 16, 27.89, 2.09, 8, se_ratio=0.25), 10), 32),
    "mnasnet0_5": (lambda: tv.mnasnet0_5(num_classes=10), 32),
    "googlenet": (lambda: tv.googlenet(num_classes=10, aux_logits=False, init_weights=False), 64),
    "convnext_tiny": (
        lambda: tv.ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)], num_classes=10, layer_scale=1.0),
        32,
    ),
    "vit_b_16": (lambda: tv.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=10), 32),
    "swin_t": (lambda: tv.SwinTransformer([4, 4], 12, [2, 1], [3, 6], [7, 7], num_classes=10), 32),
}


BY_LAYER = ("resnext50_32x4d", "densenet121", "mobilenet_v2", "shufflenet_v2_x0_5", "vit_b_16")


@pytest.mark.parametrize(("name", "scope"), [(name, "group") for name in FAMILIES] + [(name, "layer") for name in BY_LAYER])
def test_family(name, scope, settle, prune):
    build, size = FAMILIES[name]
    torch.manual_seed(0)
    model = settle(build())
    head = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    nn.init.normal_(head.weight, std=0.1)  # some constructors start from 0
    x = torch.randn(2, 3, size, size)
    prune(model, unit_groups(model, x, prunable_weights(model), scope=scope))
    shrunk = shrink(model, x)
    report = shrunk.report
    assert report.max_output > 0
    assert report.max_error <= 1e-10 * report.max_output
    assert report.parameters_after < report.parameters_before
    if scope == "group" and name not in ("shufflenet_v2_x0_5", "convnext_tiny", "vit_b_16", "swin_t"):
        assert all(layer.dead_kept == 0 for layer in report.layers)
    again = narrow(build(), shrunk.kept)
    again.load_state_dict(shrunk.model.state_dict())
    again.train()(x)  # an ordinary module: also what runs in training alone fits
