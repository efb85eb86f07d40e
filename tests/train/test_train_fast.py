"""The fast path makes the reference's steps: same candidates, and, with the same chance, the same weights within rounding."""

import dataclasses
import threading
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from tdcompress.data.augment import Augmentation
from tdcompress.errors import ArtifactError, InterruptedRun, TrainingError, UserError
from tdcompress.methods.base import Method, MethodSettings
from tdcompress.methods.none import NoneSettings
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.models.initialise import glorot_normal
from tdcompress.models.preactivation import PreActivationResNet
from tdcompress.shrinking.groups import unit_groups
from tdcompress.sparsity.units import Slot, Targets, UnitGroup, prunable_weights
from tdcompress.tasks.images import first_sides
from tdcompress.train.fast import program
from tdcompress.train.fast.support import FOLLOWED, SGD_FOLLOWED, layout_of, why_not
from tdcompress.train.loop import train
from tdcompress.train.optim import OWN_KEYS, OptimizerSettings
from tdcompress.train.settings import TrainSettings
from tdcompress.train.together import alone, own_stream

METHODS = {
    "weights": TargetedSettings(gamma=0.5, alpha=0.6),
    "xtreme": TargetedSettings(keep_per_filter=2, alpha=0.6),
    "ramp": TargetedSettings(gamma=0.9, alpha=0.9, schedule="ramp", ramp_epochs=(1.0, 1.0)),
    "units": TargetedSettings(granularity="unit", gamma=0.5, alpha=0.6),
    "weights of units": TargetedSettings(granularity="unit", gamma=0.5, alpha=0.6, draw="weight"),
    "layers": TargetedSettings(gamma=0.7, alpha=0.6, shares="layer"),
    "erk": TargetedSettings(gamma=0.9, alpha=1.0, shares="erk", schedule="cubic", schedule_epochs=3),
    "network": TargetedSettings(gamma=0.9, alpha=0.9, shares="global", schedule="cubic", schedule_epochs=3),
    "frozen units": TargetedSettings(granularity="unit", gamma=0.5, alpha=0.9, schedule="cubic", schedule_epochs=3),
    "units of the network": TargetedSettings(granularity="unit", gamma=0.5, alpha=0.6, shares="global"),
    "streams": TargetedSettings(granularity="unit", scope="group", gamma=0.5, alpha=0.6),
}


_groups: dict[object, tuple[UnitGroup, ...]] = {}  # those of ``residual_net``, which is always the same


def residual_net(settings: TargetedSettings) -> SparseNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = PreActivationResNet(
            classes=2,
            channels=1,
            stem_filters=8,
            stem_kernel=3,
            filters=(8, 12),  # eight or more: torch 2.14 corrupts memory in a strided 1x1 convolution of fewer channels with AVX2
            units=1,
            norm_momentum=0.1,
            norm_epsilon=1e-3,
            prune_stem=False,
        )
        glorot_normal(model)
    for module in list(model.modules()):
        if hasattr(module, "relu"):
            module.relu = nn.SiLU()  # where ReLU has its kink, a rounding would decide a whole gradient
    weights = prunable_weights(model)
    groups = ()
    if settings.granularity == "unit":
        asked = (settings.scope, settings.unit)
        if asked not in _groups:
            _groups[asked] = unit_groups(model, torch.zeros(2, 1, 8, 8), weights, scope=settings.scope, unit=settings.unit)
        groups = _groups[asked]
    targets = Targets(weights=weights, groups=groups)
    return SparseNet(model, settings.build(targets, model))


def linear_net(settings: MethodSettings) -> SparseNet:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    targets = Targets(weights=(Slot(parameter="1.weight"),))
    return SparseNet(model, settings.build(targets, model))


@pytest.mark.parametrize("settings", [NoneSettings(), TargetedSettings(gamma=0.5)])
def test_a_compiler_can_follow_the_views_of_the_parameters(settings: MethodSettings) -> None:
    layout = layout_of(linear_net(settings))
    vector = torch.arange(float(layout.size))
    compiled = torch.compile(layout.views, backend="eager", fullgraph=True)(vector)
    assert {name: view.tolist() for name, view in compiled.items()} == {n: v.tolist() for n, v in layout.views(vector).items()}


def same_chance(net: SparseNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fast path draw as the reference does: tensor by tensor, in its order."""
    layout, targets, settings = layout_of(net), net.method.targets, net.method.settings
    params = net.parameters_by_name()

    def drawn(count: int, generator: torch.Generator) -> torch.Tensor:
        if settings.granularity == "weight":
            values = {slot.parameter: torch.rand(params[slot.parameter].shape, generator=generator) for slot in targets.weights}
            return torch.cat([piece.flattened(values[piece.name]) for piece in layout.matrices])
        if settings.draw == "unit":
            return torch.cat([torch.rand(group.size, generator=generator) for group in targets.groups])
        whole = {name: torch.zeros_like(value) for name, value in params.items()}
        for group in targets.groups:
            for slot in (*group.filters, *group.tied):
                whole[slot.parameter] = torch.rand(params[slot.parameter].shape, generator=generator)
        return layout.gather(whole)

    monkeypatch.setattr(program, "uniform_numbers", drawn)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("nesterov", [True, False])
def test_both_paths_make_the_same_steps(
    small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nesterov: bool
) -> None:
    optimizer = OptimizerSettings(name="sgd", lr=0.05, momentum=0.9, nesterov=nesterov, weight_decay=1e-3)
    settings = dataclasses.replace(small.SETTINGS, optimizer=optimizer)
    one, other = residual_net(METHODS[name]), residual_net(METHODS[name])
    same_chance(other, monkeypatch)
    first = small.run(tmp_path / "reference", one, settings, path="reference")
    second = small.run(tmp_path / "fast", other, settings, path="fast")
    assert (first.path, second.path) == ("reference", "fast")
    for key, value in one.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[key], value, rtol=1e-3, atol=1e-5, msg=f"{key} differs")
    for left, right in zip(first.history, second.history, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-4)
        assert left["train_accuracy"] == right["train_accuracy"]
        assert left["lr"] == right["lr"]


def test_both_paths_take_the_same_average(small: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = OptimizerSettings(name="sgd", lr=0.05, momentum=0.9, weight_decay=1e-2, decoupled=True)
    settings = dataclasses.replace(small.SETTINGS, optimizer=optimizer, average="ema", average_share=0.5, average_decay=0.9)
    one, other = residual_net(METHODS["erk"]), residual_net(METHODS["erk"])
    same_chance(other, monkeypatch)
    first = small.run(tmp_path / "reference", one, settings, path="reference")
    second = small.run(tmp_path / "fast", other, settings, path="fast")
    for key, value in one.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[key], value, rtol=1e-3, atol=1e-5, msg=f"{key} differs")
    assert first.test_accuracy == second.test_accuracy
    zeros = {name: int((value == 0).sum()) for name, value in other.parameters_by_name().items()}
    for name, count in other.method.counts(3.0).counts.items():
        assert zeros[name] == count


def test_both_paths_mirror_the_same_images_where_flips_alternate(small: ModuleType, tmp_path: Path) -> None:
    augment = Augmentation(flip="alternating", cutout=3)
    data = dataclasses.replace(small.images(96), augment=augment, sides=first_sides(96, seed=2))
    nets = {}
    for path in ("reference", "fast"):
        nets[path] = small.linear_net()
        arguments = {"seed": 5, "device": small.CPU, "folder": tmp_path / path, "path": path}
        train(nets[path], data, small.images(40, seed=1), small.SETTINGS, **arguments)
    torch.testing.assert_close(nets["fast"].state_dict(), nets["reference"].state_dict(), rtol=1e-4, atol=1e-5)


def test_a_stopped_training_goes_on_with_the_same_bits(small: ModuleType, tmp_path: Path) -> None:
    whole, parts = residual_net(METHODS["weights"]), residual_net(METHODS["weights"])
    small.run(tmp_path / "whole", whole, path="fast")
    calls = iter([None, None, 15])
    with pytest.raises(InterruptedRun):
        small.run(tmp_path / "parts", parts, path="fast", should_stop=lambda: next(calls))
    again = residual_net(METHODS["weights"])
    small.run(tmp_path / "parts", again)
    assert small.same_bits(whole, again)
    assert small.timeless(tmp_path / "parts") == small.timeless(tmp_path / "whole")


def test_a_checkpoint_stays_on_its_path(small: ModuleType, tmp_path: Path) -> None:
    small.run(tmp_path, residual_net(METHODS["weights"]), path="fast")
    assert small.run(tmp_path, residual_net(METHODS["weights"])).path == "fast"
    with pytest.raises(ArtifactError, match="of the fast path, not of the reference path"):
        small.run(tmp_path, residual_net(METHODS["weights"]), path="reference")


def test_what_is_not_finite_changes_nothing_and_is_told(small: ModuleType, tmp_path: Path) -> None:
    net = residual_net(METHODS["weights"])
    before = {name: value.detach().clone() for name, value in net.parameters_by_name().items()}
    with torch.no_grad():
        net.model.head.bias[0] = torch.nan
    with pytest.raises(TrainingError, match="6 steps was not finite"):
        small.run(tmp_path, net, path="fast")
    for name, value in net.parameters_by_name().items():
        if name != "head.bias":
            assert torch.equal(value, before[name]), name


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoreSettings(TrainSettings):
    """With a key that only the reference path knows."""

    new_key: float = 0.0


def test_every_key_of_train_is_followed_by_the_fast_path_or_refused() -> None:
    """Adding a key to [train] touches its dataclass and the update: until the fast path follows it, that refuses it."""
    net = residual_net(METHODS["weights"])
    assert {field.name for field in dataclasses.fields(TrainSettings)} >= FOLLOWED
    assert why_not(net, MoreSettings()) is None
    assert why_not(net, MoreSettings(new_key=0.5)) == "it does not know train.new_key"
    of_others = {field.name for field in dataclasses.fields(OptimizerSettings)} - SGD_FOLLOWED
    assert of_others == OWN_KEYS["adam"] | OWN_KEYS["adamw"]


@pytest.mark.parametrize(
    ("make", "settings", "reason"),
    [
        (lambda small: residual_net(METHODS["weights"]), {"accumulate": 2}, "micro-batches"),
        (lambda small: linear_net(TargetedSettings(granularity="2:4", gamma=0.5)), {}, "TargetedPattern has no fast form"),
        (lambda small: linear_net(TargetedSettings(granularity="1x4", gamma=0.5)), {}, "TargetedPattern has no fast form"),
        (lambda small: residual_net(METHODS["weights"]), {"optimizer": OptimizerSettings(name="adam")}, "not sgd"),
    ],
)
def test_what_the_fast_path_lacks_is_said(
    small: ModuleType, tmp_path: Path, make: object, settings: dict[str, object], reason: str
) -> None:
    net = make(small)  # type: ignore[operator]
    changed = dataclasses.replace(small.SETTINGS, **settings)
    assert reason in (why_not(net, changed) or "")
    with pytest.raises(UserError, match=reason):
        small.run(tmp_path, net, changed, path="fast")


class Dropping(nn.Module):
    """Without a layer that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.norm = nn.Linear(64, 2), nn.BatchNorm1d(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dropped: torch.Tensor = self.head(self.norm(nn.functional.dropout(x.flatten(1), 0.5, self.training)))
        return dropped


@pytest.mark.parametrize("make", [lambda small: small.conv_net(), lambda _: SparseNet(Dropping(), Method(Targets(weights=())))])
def test_a_network_that_draws_itself_is_not_for_the_fast_path(small: ModuleType, tmp_path: Path, make: object) -> None:
    """What it draws would follow from no seed, and a stopped training would go on with other numbers."""
    net = make(small)  # type: ignore[operator]
    net.model.eval()
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    with pytest.raises(UserError, match="the fast path cannot make this training: the network draws from torch's global"):
        small.run(tmp_path, net, path="fast")
    assert not any(module.training for module in net.model.modules())
    assert all(torch.equal(before[name], value) for name, value in net.model.state_dict().items())


def test_a_layout_holds_every_entry_once() -> None:
    net = residual_net(METHODS["weights"])
    layout = layout_of(net)
    params = {name: torch.rand(value.shape) for name, value in net.parameters_by_name().items()}
    vector = layout.gather(params)
    assert vector.shape == (sum(value.numel() for value in params.values()),)
    assert all(torch.equal(view, params[name]) for name, view in layout.views(vector).items())
    for run in layout.runs:
        memory = vector[run.start : run.start + run.rows * run.fan_in]
        assert torch.equal(run.memory(run.logical(vector)), memory)
    piece = layout.matrices[-1]
    rows = torch.cat([run.logical(vector).flatten() for run in layout.runs])[piece.start : piece.stop]
    assert torch.equal(rows, params[piece.name].flatten())


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@CUDA
@pytest.mark.parametrize("name", ["weights", "units", "streams"])
def test_a_captured_training_takes_the_references_course(small: ModuleType, tmp_path: Path, name: str) -> None:
    device = torch.device("cuda")
    ends = {
        path: small.run(tmp_path / path, residual_net(METHODS[name]), path=path, device=device) for path in ("reference", "fast")
    }
    assert ends["fast"].path == "fast"
    assert ends["fast"].loss == pytest.approx(ends["reference"].loss, rel=0.25)  # they draw other numbers


@CUDA
def test_a_captured_training_goes_on(small: ModuleType, tmp_path: Path) -> None:
    calls = iter([None, 15])
    with pytest.raises(InterruptedRun):
        small.run(tmp_path, residual_net(METHODS["weights"]), device=torch.device("cuda"), should_stop=lambda: next(calls))
    again = small.run(tmp_path, residual_net(METHODS["weights"]), device=torch.device("cuda"))
    assert again.path == "fast"
    assert again.resumed_from_step > 0


@CUDA
def test_threads_train_beside_each_other(small: ModuleType, tmp_path: Path) -> None:
    device = torch.device("cuda")
    done: list[str] = []

    def train(index: int) -> None:
        with own_stream(device), alone(device):
            done.append(small.run(tmp_path / str(index), residual_net(METHODS["weights"]), device=device).path)

    threads = [threading.Thread(target=train, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == ["fast"] * 3
