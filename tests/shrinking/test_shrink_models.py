"""The project's own networks, pruned by magnitude in both scopes; and what one can do with a shrunk module."""

import copy

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

import tdcompress as tdc
from tdcompress.models.base import ClassifierSettings
from tdcompress.models.registry import MODELS
from tdcompress.shrinking.rebuild import narrow

# name, keys, image: every network, of those that differ in depth alone the shallowest
OWN = (
    ("mlp", {}, (1, 28, 28)),
    ("digits_cnn", {"width": 8, "hidden": 16}, (1, 8, 8)),
    ("lenet5", {}, (3, 32, 32)),
    ("resnet18", {}, (3, 32, 32)),
    ("resnet32", {}, (3, 32, 32)),
    ("cifar_resnet20", {"shortcut": "pad"}, (3, 32, 32)),
    ("cifar_resnet20", {"shortcut": "projection"}, (3, 32, 32)),
    ("wide_resnet", {"depth": 10, "width": 2}, (3, 32, 32)),
    ("vgg16", {}, (3, 32, 32)),
    ("resnet50", {}, (3, 32, 32)),
)
DEEPER = {"cifar_resnet32": "cifar_resnet20", "cifar_resnet56": "cifar_resnet20", "resnet101": "resnet50"}


def test_every_network_of_the_project_is_listed():
    classifiers = {name for name, kind in MODELS.items() if issubclass(kind, ClassifierSettings)}
    assert {name for name, _, _ in OWN} | set(DEEPER) == classifiers
    assert {name for name, _, _ in OWN} >= set(DEEPER.values())


# The heavy ones in one scope: their blocks are shrunk in both here or among torchvision's families.
HEAVY = ("resnet18", "resnet32", "resnet50", "vgg16")
CASES = [(*own, scope) for own in OWN for scope in ("layer", "group") if scope == "group" or own[0] not in HEAVY]


@pytest.mark.filterwarnings("ignore:.*left whole:UserWarning")  # a padded shortcut holds the streams of cifar_resnet20
@pytest.mark.parametrize(("name", "keys", "image", "scope"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_own_networks(name, keys, image, scope):
    build = lambda: tdc.build_model(name, classes=10, image=image, **keys)  # noqa: E731
    model, x = build(), torch.randn(2, *image)
    tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=x, scope=scope)
    shrunk = tdc.shrink(model, x)
    report = shrunk.report
    assert report.max_output > 0
    assert report.max_error <= 1e-10 * report.max_output
    assert report.parameters_after < report.parameters_before
    assert report.notes == ()
    streams = [layer for layer in report.layers if layer.name.endswith(".conv2") and name == "cifar_resnet20"]
    if streams and keys["shortcut"] == "pad":
        assert all(layer.units_after == layer.units_before for layer in streams[:-3])  # the padding holds the stream
        assert all(layer.dead_kept == 0 for layer in streams)  # so that nothing of it is pruned
    elif streams and scope == "group":
        assert all(layer.units_after < layer.units_before for layer in streams[3:])
        assert all(layer.dead_kept == 0 for layer in streams[3:])  # the first stage holds the stem, which is not pruned
    again = narrow(build(), shrunk.kept)
    again.load_state_dict(shrunk.model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(x), model.eval()(x), rtol=1e-3, atol=1e-4)


def small_network():
    return tdc.build_model("wide_resnet", classes=4, image=(3, 8, 8), depth=16, width=1)


@pytest.fixture(scope="module")
def trained():
    """A residual network trained with targeted unit dropout, pruned and shrunk, in each scope."""
    found = {}
    for scope in ("layer", "group"):
        model = small_network()
        generator = torch.Generator().manual_seed(0)
        x, labels = torch.randn(16, 3, 8, 8, generator=generator), torch.arange(16) % 4
        net = tdc.TargetedDropout(model, granularity="unit", gamma=0.5, alpha=0.5, example_inputs=x[:2], scope=scope).train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(net(x), labels).backward()
            optimizer.step()
            net.step()
        masks = tdc.prune(net, granularity="unit", fraction=0.5, example_inputs=x[:2], scope=scope)
        found[scope] = (net.plain(), masks, tdc.shrink(net.plain(), x[:2], align=4), x, labels)
    return found


@pytest.mark.parametrize("scope", ["layer", "group"])
def test_targeted_unit_dropout_trains_prunes_and_shrinks(trained, scope):
    model, masks, shrunk, x, _ = trained[scope]
    parameters = dict(model.named_parameters())
    assert all(not parameters[name][~mask.expand_as(parameters[name])].any() for name, mask in masks.items())
    report = shrunk.report
    assert report.max_output > 0
    assert report.max_error <= 1e-10 * report.max_output
    widths = {layer.name: layer.units_after for layer in report.layers}
    assert all(width % 4 == 0 for name, width in widths.items() if name != "head")
    assert (widths["stages.2.1.conv2"] == 32) == (scope == "group")
    with torch.no_grad():
        torch.testing.assert_close(shrunk.model.eval()(x), model.eval()(x), rtol=1e-3, atol=1e-4)


def test_a_shrunk_module_is_fine_tuned(trained):
    shrunk, x, labels = copy.deepcopy(trained["group"][2].model).train(), *trained["group"][3:]
    shapes = [parameter.shape for parameter in shrunk.parameters()]
    optimizer = torch.optim.SGD(shrunk.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(shrunk(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert shapes == [parameter.shape for parameter in shrunk.parameters()]


def test_a_shrunk_module_is_compiled_and_exported(trained, tmp_path):
    shrunk, x = trained["group"][2].model.eval(), trained["group"][3][:2]
    with torch.no_grad():
        expected = shrunk(x)
        torch.testing.assert_close(torch.compile(shrunk, backend="eager")(x), expected)
    tdc.export_onnx(shrunk, x, tmp_path / "small.onnx")  # compares with torch itself
    assert tdc.verify(tmp_path / "small.onnx")


def test_a_shrunk_module_is_saved_and_loaded(trained, tmp_path):
    shrunk, x = trained["group"][2], trained["group"][3]
    safetensors.torch.save_file(shrunk.model.state_dict(), tmp_path / "small.safetensors")
    again = narrow(small_network(), shrunk.kept)
    again.load_state_dict(safetensors.torch.load_file(tmp_path / "small.safetensors"))
    with torch.no_grad():
        assert torch.equal(again.eval()(x), shrunk.model.eval()(x))


def test_fine_tuning_with_frozen_masks_keeps_what_shrinks(trained):
    model, masks, shrunk, x, labels = trained["group"]
    model = copy.deepcopy(model).train()
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
        with torch.no_grad():
            for name, mask in masks.items():
                parameters[name].mul_(mask)
    assert tdc.shrink(model, x[:2], align=4).kept["tensors"].keys() == shrunk.kept["tensors"].keys()


def test_a_network_without_any_living_path_says_that_the_certificate_proves_little():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    nn.init.zeros_(model[0].weight)
    for bias in (0.0, 0.5):
        nn.init.constant_(model[2].bias, bias)
        nn.init.zeros_(model[0].bias)
        (note,) = tdc.shrink(model, torch.randn(2, 4)).report.notes
        assert "whatever its input is" in note
