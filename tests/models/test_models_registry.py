from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import EntryPoint, EntryPoints

import pytest
import torch
from torch import nn

from tdcompress.errors import ModelError, UserError
from tdcompress.models import user_models
from tdcompress.models.registry import MODELS, build_model, settings_type
from tdcompress.sparsity.units import prunable_weights


def test_every_name_is_its_settings_own():
    for name, kind in MODELS.items():
        assert kind.name == name
        assert settings_type(name) is kind
        kind()  # every key has a default


def test_the_seed_decides_the_weights_and_torchs_generator_stays():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first, again, other = (build_model("lenet5", classes=10, seed=seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet23", {}, r"no model 'resnet23'; did you mean 'resnet"),
        ("torchvision/resnet19", {}, r"torchvision has no classifier 'resnet19'; did you mean 'resnet1"),
        (
            "wide_resnet",
            {"widht": 2},
            r"model wide_resnet has no key 'widht'; did you mean 'width'\? \(it has depth, width, prune_stem\)",
        ),
        ("lenet5", {"width": 2}, r"model lenet5 has no key 'width' \(it has no keys of its own\)"),
        ("mlp", {"hidden": 0}, r"model mlp: hidden: number of units, 1 or more, not 0"),
    ],
)
def test_unknown_names_keys_and_values(name, options, message):
    with pytest.raises(UserError, match=message):
        build_model(name, classes=10, **options)


@pytest.mark.parametrize(
    ("name", "image", "spared"),
    [
        ("resnet18", (3, 32, 32), ("conv1", "fc")),
        ("squeezenet1_1", (3, 64, 64), ("classifier.1",)),
        ("mobilenet_v3_small", (3, 32, 32), ("classifier.3",)),
        ("shufflenet_v2_x0_5", (3, 32, 32), ("fc",)),
        ("densenet121", (3, 32, 32), ("classifier",)),
        ("googlenet", (3, 64, 64), ("fc",)),
        ("inception_v3", (3, 96, 96), ("fc",)),
    ],
)
def test_torchvisions_classifiers(name, image, spared):
    model = build_model(f"torchvision/{name}", classes=7, image=image)
    assert model.unprunable == spared
    assert model.training
    assert {f"{part}.weight" for part in spared}.isdisjoint(slot.parameter for slot in prunable_weights(model))
    images = torch.zeros(2, *image)
    assert model(images).shape == model.eval()(images).shape == (2, 7)


def test_torchvision_transformers_take_the_image_size():
    model = build_model("torchvision/vit_b_32", classes=3, image=(3, 64, 64))
    assert model.unprunable == ("heads.head",)
    assert model.encoder.pos_embedding.shape[1] == 4 + 1


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("torchvision/resnet18", (1, 28, 28), "torchvision/resnet18 takes images of 3 channels, not 1"),
        ("torchvision/alexnet", (3, 16, 16), r"torchvision/alexnet cannot take images of shape \(3, 16, 16\)"),
        ("torchvision/vit_b_32", (3, 65, 65), "torchvision/vit_b_32 cannot be built for 65x65 images"),
        ("torchvision/vit_b_32", (3, 64, 32), r"torchvision/vit_b_32 cannot take images of shape \(3, 64, 32\)"),
    ],
)
def test_images_that_torchvisions_networks_cannot_take(name, image, message):
    with pytest.raises(ModelError, match=message):
        build_model(name, classes=10, image=image)


def test_torchvision_stem_key_belongs_to_resnets_alone():
    assert build_model("torchvision/resnet18", classes=10, prune_stem=True).unprunable == ("fc",)
    with pytest.raises(UserError, match="has no key 'prune_stem'"):
        build_model("torchvision/squeezenet1_1", classes=10, prune_stem=True)
    assert settings_type("torchvision/resnet18")() == settings_type("torchvision/resnet18")()


def tiny(classes: int, image: tuple[int, int, int], *, width: int = 4, scale=0.5, note: str | None = None) -> nn.Module:
    """A user's network."""
    channels, height, columns = image
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * columns, width), nn.ReLU(), nn.Linear(width, classes))


@pytest.fixture
def installed(monkeypatch):
    """Make a callable look like the entry point "tiny" of an installed package."""

    class Point(EntryPoint):
        def load(self):
            return loaded[self.value]

    loaded: dict[str, Callable] = {}

    def install(factory: Callable, count: int = 1, name: str = "tiny") -> None:
        values = [f"package{index}:factory" for index in range(count)]
        loaded.update(dict.fromkeys(values, factory))
        points = EntryPoints(Point(name=name, value=value, group=user_models.GROUP) for value in values)
        monkeypatch.setattr(user_models, "entry_points", lambda **keys: points.select(**keys))
        user_models.user_settings_type.cache_clear()

    yield install
    user_models.user_settings_type.cache_clear()


def test_an_entry_points_parameters_are_its_keys(installed):
    installed(tiny)
    kind = settings_type("tiny")
    assert [(field.name, field.type, field.default) for field in fields(kind)] == [
        ("width", int, 4),
        ("scale", float, 0.5),
        ("note", str | None, None),
    ]
    model = build_model("tiny", classes=3, image=(1, 2, 2), width=6)
    assert model[1].weight.shape == (6, 4)
    assert [slot.parameter for slot in prunable_weights(model)] == ["1.weight"]
    with pytest.raises(UserError, match=r"model tiny has no key 'with'; did you mean 'width'"):
        build_model("tiny", classes=3, **{"with": 6})


def test_an_own_name_wins_over_an_entry_point(installed):
    installed(tiny, name="lenet5")
    assert settings_type("lenet5") is MODELS["lenet5"]


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda classes, image: "no module", "returned str, not a torch.nn.Module"),
        (lambda classes, image: nn.Flatten(), r"gives \(2, 12\) for 2 images, not \(2, 10\) logits"),
        (lambda classes, image: nn.Linear(5, classes), r"tiny cannot take images of shape \(3, 2, 2\)"),
        (lambda classes: None, r"has to take \(classes, image\)"),
        (lambda classes, image, depth=None: None, "parameter 'depth' needs a type or a default"),
        (lambda classes, image, filters=[8]: None, "'filters' has a list as default; make it a tuple or None"),
        (lambda classes, image, *others, **more: "no module", "returned str, not a torch.nn.Module"),
        (5, "cannot be loaded: 5 is not a callable object"),
    ],
)
def test_unusable_entry_points_are_refused(installed, factory, message):
    installed(factory)
    with pytest.raises(ModelError, match=message):
        build_model("tiny", classes=10, image=(3, 2, 2))


class Remembering(nn.Flatten):
    """State that is no tensor, as layers of other packages keep it."""

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 0}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


def turned(kind: torch.dtype, *, trained: bool) -> Callable[..., nn.Module]:
    """Makes networks that hold a complex number."""

    def make(classes: int, image: tuple[int, int, int]) -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, classes))
        angle = torch.ones(1, dtype=kind)
        if trained:
            model[1].register_parameter("angle", nn.Parameter(angle))
        else:
            model[1].register_buffer("angle", angle)
        return model

    return make


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            lambda classes, image: nn.Sequential(Remembering(), nn.Linear(12, classes)),
            r"^tiny: 0\._extra_state of its state_dict is a dict; files of weights hold tensors alone",
        ),
        (turned(torch.cfloat, trained=True), r"^tiny: 1\.angle is torch\.complex64; recipes train real numbers"),
        (turned(torch.cdouble, trained=False), r"^tiny: 1\.angle is torch\.complex128, which files of weights \(safetensors\) "),
    ],
    ids=["state", "trained", "type"],
)
def test_networks_that_cannot_be_trained_or_kept_are_refused_before_they_train(installed, factory, message):
    installed(factory)
    with pytest.raises(ModelError, match=message):
        build_model("tiny", classes=10, image=(3, 2, 2))


def test_complex_numbers_that_do_not_train_are_kept(installed):
    installed(turned(torch.cfloat, trained=False))
    assert build_model("tiny", classes=10, image=(3, 2, 2))[1].angle.tolist() == [1.0]


def test_one_name_of_two_packages_is_refused(installed):
    installed(tiny, count=2)
    with pytest.raises(ModelError, match="2 installed packages give the name 'tiny'"):
        settings_type("tiny")
