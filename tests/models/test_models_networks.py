"""Every network by its exact size, its shapes, and an export with a free batch size."""

import math

import pytest
import torch
from torch import nn

from tdcompress.errors import ModelError
from tdcompress.models.basic_resnet import BasicUnit
from tdcompress.models.initialise import dirac
from tdcompress.models.lenet5 import LeNet5
from tdcompress.models.preactivation import PreActivationUnit
from tdcompress.models.registry import MODELS, build_model
from tdcompress.sparsity.units import prunable_weights

CIFAR = (3, 32, 32)


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def prunable_count(model: nn.Module) -> int:
    parameters = dict(model.named_parameters())
    return sum(parameters[slot.parameter].numel() for slot in prunable_weights(model))


def random_images(count: int, image: tuple[int, int, int]) -> torch.Tensor:
    return torch.randn(count, *image, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "classes", "image", "options", "parameters", "prunable"),
    [
        ("mlp", 10, CIFAR, {}, 30_840, 30_720),
        ("mlp", 10, (1, 8, 8), {"hidden": 3}, 64 * 3 + 3 + 3 * 10 + 10, 64 * 3),
        ("digits_cnn", 10, (1, 8, 8), {}, 90_090, 88_352),
        ("lenet5", 10, CIFAR, {}, 208_382, 202_850),
        ("lenet5", 10, (1, 28, 28), {}, 156 + 2_416 + 256 * 500 + 500 + 5_010, 150 + 2_400 + 128_000),
        ("resnet32", 10, CIFAR, {}, 1_857_498, 1_849_344),
        ("resnet32", 10, CIFAR, {"prune_stem": True}, 1_857_498, 1_849_344 + 7 * 7 * 3 * 16),
        ("resnet18", 10, CIFAR, {}, 11_173_962, 11_157_504),
        ("cifar_resnet20", 10, CIFAR, {}, 269_722, 267_264),
        ("cifar_resnet32", 10, CIFAR, {}, 464_154, 460_800),
        ("cifar_resnet56", 10, CIFAR, {}, 853_018, 847_872),
        ("cifar_resnet20", 10, CIFAR, {"shortcut": "projection"}, 272_474, 269_824),
        ("wide_resnet", 10, CIFAR, {}, 36_479_194, 36_454_400),
        ("wide_resnet", 10, CIFAR, {"depth": 16, "width": 1}, 175_066, 9_216 + 32_768 + 131_072),
        ("vgg16", 100, CIFAR, {}, 34_019_364, 33_584_832),
        ("resnet50", 1000, (3, 224, 224), {}, 25_557_032, 23_445_504),
        ("resnet101", 1000, (3, 64, 64), {}, 44_549_160, 42_385_408),
    ],
)
def test_exact_sizes(name, classes, image, options, parameters, prunable):
    model = build_model(name, classes=classes, image=image, **options)
    assert (parameter_count(model), prunable_count(model)) == (parameters, prunable)
    assert model.training


def test_resnet32_keeps_the_published_number_of_weights_at_99_percent():
    model = build_model("resnet32", classes=10)
    parameters = dict(model.named_parameters())
    kept = 0
    for slot in prunable_weights(model):
        outputs, fan_in = parameters[slot.parameter].flatten(1).shape
        kept += outputs * (fan_in - math.floor(0.99 * fan_in))
    assert kept == 19_392


def test_resnet32_as_released():
    model = build_model("resnet32", classes=10).eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, round(norm.momentum, 12)) for norm in norms} == {(1e-3, 0.003)}
    assert sum(isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) for module in model.modules()) == 3
    # stages of stride 1, 2, 2 on a stem that keeps the size
    sizes = []
    handles = [stage.register_forward_hook(lambda *call: sizes.append(tuple(call[2].shape[1:]))) for stage in model.stages]
    model(random_images(1, CIFAR))
    for handle in handles:
        handle.remove()
    assert sizes == [(32, 32, 32), (64, 16, 16), (128, 8, 8)]


def test_a_preactivation_unit_by_hand():
    vanishing = 1e-30  # beside a variance of 1, in float32; torch 2.11 refuses 0
    unit = PreActivationUnit(2, 4, 2, 0.1, vanishing).eval()
    x = random_images(3, (2, 6, 6))
    active = x.clamp(min=0)  # fresh statistics are mean 0, variance 1
    expected = nn.functional.conv2d(active, unit.projection.weight, stride=2)
    inner = nn.functional.conv2d(active, unit.conv1.weight, stride=2, padding=1).clamp(min=0)
    expected = expected + nn.functional.conv2d(inner, unit.conv2.weight, padding=1)
    torch.testing.assert_close(unit(x), expected)
    same = PreActivationUnit(4, 4, 1, 0.1, vanishing).eval()
    assert same.projection is None
    nn.init.zeros_(same.conv2.weight)
    assert torch.equal(same(expected), expected)


def test_a_padded_shortcut_by_hand():
    unit = BasicUnit(2, 4, 2, "pad").eval()
    nn.init.zeros_(unit.conv2.weight)
    x = random_images(1, (2, 4, 4))
    expected = torch.zeros(1, 4, 2, 2)
    expected[:, 1:3] = x[:, :, ::2, ::2].clamp(min=0)
    assert torch.equal(unit(x), expected)


def test_lenet5_as_released():
    model = LeNet5(10, CIFAR)
    assert model.conv1.bias.tolist() == pytest.approx([0.1] * 6)
    assert model.conv2.bias.tolist() == pytest.approx([0.1] * 16)
    assert not model.hidden.bias.any()
    # glorot normal: variance 2 / (400 + 500)
    assert model.hidden.weight.std().item() == pytest.approx((2 / 900) ** 0.5, rel=0.01)


SMALL = [
    ("mlp", (3, 8, 8), {}),
    ("digits_cnn", (1, 8, 8), {}),
    ("digits_cnn", (3, 10, 14), {"width": 4}),
    ("lenet5", (3, 32, 32), {}),
    ("lenet5", (1, 16, 20), {}),
    ("resnet32", (3, 16, 16), {}),
    ("cifar_resnet20", (3, 16, 16), {}),
    ("cifar_resnet20", (1, 16, 16), {"shortcut": "projection"}),
    ("wide_resnet", (3, 8, 8), {"depth": 10, "width": 1}),
    ("resnet18", (3, 8, 8), {}),
]


@pytest.mark.parametrize(("name", "image", "options"), SMALL)
def test_exports_with_a_free_batch_size_and_trains(name, image, options):
    model = build_model(name, classes=7, image=image, **options)
    model(random_images(4, image)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    model.eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    exported = torch.export.export(model, (random_images(2, image),), dynamic_shapes=({0: batch},))
    for size in (1, 5):
        images = random_images(size, image)
        torch.testing.assert_close(exported.module()(images), model(images))


@pytest.mark.parametrize(
    ("name", "image"), [("lenet5", (1, 8, 8)), ("vgg16", (3, 31, 32)), ("digits_cnn", (1, 3, 8)), ("resnet18", (3, 7, 7))]
)
def test_images_that_are_too_small_are_refused(name, image):
    with pytest.raises(ModelError, match=rf"{name} takes images of at least \d+x\d+, not {image[1]}x{image[2]}"):
        build_model(name, classes=10, image=image)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("mlp", "hidden", 0),
        ("digits_cnn", "width", 0),
        ("digits_cnn", "hidden", -1),
        ("wide_resnet", "depth", 27),
        ("wide_resnet", "width", 0),
    ],
)
def test_values_out_of_range_are_refused(name, key, value):
    with pytest.raises(ValueError, match=f"^{key}: "):
        MODELS[name](**{key: value})


def test_dirac_convolutions_pass_their_channels_on():
    model = build_model("vgg16", classes=10, image=(3, 32, 32), seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dirac(model)
    convolutions = [(name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)]
    first, *others = convolutions
    assert torch.equal(first[1].weight, before[f"{first[0]}.weight"])
    assert len(others) > 10
    for name, conv in others:
        inputs, x = conv.in_channels, torch.randn(2, conv.in_channels, 5, 5, generator=torch.Generator().manual_seed(0))
        passed = min(inputs, conv.out_channels)
        out = torch.nn.functional.conv2d(x, conv.weight, padding=1)
        torch.testing.assert_close(out[:, :passed], x[:, :passed])
        assert torch.equal(conv.weight[passed:], before[f"{name}.weight"][passed:])


def test_dirac_needs_a_convolution_behind_the_first():
    with pytest.raises(ModelError, match=r'model\.init: "dirac" is for convolutions behind the first; this '):
        dirac(build_model("mlp", classes=10, image=(1, 8, 8)))


@pytest.mark.parametrize("wrap", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm], ids=["old", "new"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_dirac_refuses_a_weight_that_is_computed(wrap):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), wrap(torch.nn.Conv2d(2, 2, 3)))
    with pytest.raises(ModelError, match=r'"dirac" writes weights, and that of 1 is computed from other parameters'):
        dirac(model)
