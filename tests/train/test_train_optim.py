"""Learning rates as literals per step, and which parameters an optimizer decays."""

import math

import pytest
import torch
from torch import nn

from tdcompress.train.optim import LrSchedule, OptimizerSettings, decayed_parameters, parameter_groups

RELEASED = LrSchedule(name="piecewise", unit="steps", milestones=(40_000, 60_000, 80_000), factors=(0.1, 0.01, 0.001))


@pytest.mark.parametrize(
    ("step", "lr"),
    [(0, 0.4), (39_999, 0.4), (40_000, 0.04), (59_999, 0.04), (60_000, 0.004), (80_000, 0.0004), (99_999, 0.0004)],
)
def test_the_released_resnet32_rates(step: int, lr: float) -> None:
    assert 0.4 * RELEASED.factor(step, 390, 256) == pytest.approx(lr, rel=1e-12)


def test_milestones_in_epochs() -> None:
    schedule = LrSchedule(name="piecewise", milestones=(1, 2.5), factors=(0.5, 0.25))
    assert [schedule.factor(step, 4, 4) for step in range(12)] == [1.0] * 4 + [0.5] * 6 + [0.25] * 2


def test_constant_with_warmup() -> None:
    assert [LrSchedule(warmup_epochs=1).factor(step, 4, 2) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [LrSchedule().factor(step, 4, 2) for step in (0, 7)] == [1.0, 1.0]


def test_cosine() -> None:
    schedule = LrSchedule(name="cosine")
    assert [schedule.factor(step, 2, 4) for step in (0, 2, 4, 6)] == pytest.approx(
        [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )


def test_cosine_with_warmup_ends_at_its_final_factor() -> None:
    schedule = LrSchedule(name="cosine", warmup_epochs=1, final_factor=0.1)
    # 2 steps of warm-up, then half a cosine over the 8 that follow
    assert [schedule.factor(step, 2, 5) for step in (0, 1, 2, 6, 10)] == pytest.approx([0.5, 1.0, 1.0, 0.55, 0.1])


def test_one_cycle_goes_up_and_down_in_straight_lines() -> None:
    schedule = LrSchedule(name="one_cycle", warmup_share=0.2, final_factor=0.2)
    # 2 of 10 steps up, then from 1 to 0.2 over the 8 that follow
    assert [schedule.factor(step, 5, 2) for step in range(11)] == pytest.approx(
        [0.5, 1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    )
    assert LrSchedule(name="one_cycle").factor(2, 5, 2) == 1.0  # 0.3 of the steps by default


def test_one_cycle_along_cosines() -> None:
    schedule = LrSchedule(name="one_cycle", warmup_share=0.4, curve="cosine")
    root = math.sqrt(0.5)
    expected = [(1 - root) / 2, 0.5, (1 + root) / 2, 1.0, 1.0, 1 - (1 - math.sqrt(3) / 2) / 2]
    assert [schedule.factor(step, 5, 2) for step in range(6)] == pytest.approx(expected)


def test_milestones_by_share_of_the_training_are_exact() -> None:
    schedule = LrSchedule(name="piecewise", unit="share", milestones=(0.3, 0.7), factors=(0.1, 0.01))
    assert [schedule.factor(step, 5, 2) for step in range(10)] == [1.0] * 3 + [0.1] * 4 + [0.01] * 3
    assert schedule.factor(69, 10, 10) == 0.1  # 0.7 * 100 is a little above 70 in floating-point numbers
    assert schedule.factor(70, 10, 10) == 0.01


def test_a_training_that_ends_before_its_first_milestone_is_told() -> None:
    assert RELEASED.unreached(390, 256) is None
    said = RELEASED.unreached(390, 60)
    assert said is not None
    assert said == (
        "milestones: the first one, 40000 steps, comes after the last step of this training, which has 23400 (60 epochs): "
        'its learning rate never changes; lower them, or give them with unit = "share"'
    )
    late = LrSchedule(name="piecewise", milestones=(1,), factors=(0.1,)).unreached(3, 1)
    assert late is not None
    assert late.startswith(
        "milestones: the first one, 1 epoch, comes after the last step of this training, which has 3 (1 epoch): "
    )
    late = LrSchedule(name="piecewise", unit="share", milestones=(0.9,), factors=(0.1,)).unreached(3, 1)
    assert late is not None
    assert late.startswith("milestones: the first one, 0.9 of the training, comes after the last step of this training, which ")
    assert RELEASED.unreached(390, 0) is None  # nothing is trained
    assert LrSchedule(name="piecewise", milestones=(2,), factors=(0.1,)).unreached(3, 2) is not None
    assert LrSchedule(name="piecewise", unit="share", milestones=(0.9,), factors=(0.1,)).unreached(10, 1) is None
    assert LrSchedule(name="cosine").unreached(390, 60) is None


@pytest.mark.parametrize("name", ["constant", "cosine", "inverse_sqrt"])
def test_a_warm_up_that_the_training_does_not_end_is_told(name: str) -> None:
    schedule = LrSchedule(name=name, warmup_epochs=5)  # type: ignore[arg-type]
    assert max(schedule.factor(step, 6, 1) for step in range(6)) == 0.2
    assert schedule.unreached(6, 1) == (
        "warmup_epochs: the warm-up takes 5 epochs, and this training has 1: its learning rate ends at 0.2 of what it would come "
        "to; shorten it"
    )
    assert schedule.factor(29, 6, 5) == 1.0
    assert schedule.unreached(6, 5) is None
    assert schedule.unreached(6, 0) is None


@pytest.mark.parametrize(("unit", "milestone"), [("epochs", 1.95), ("steps", 21.5), ("share", 0.96)])
def test_a_milestone_behind_the_last_step_is_told_although_the_training_ends_later(unit: str, milestone: float) -> None:
    schedule = LrSchedule(name="piecewise", unit=unit, milestones=(milestone,), factors=(0.1,))  # type: ignore[arg-type]
    assert schedule.factor(21, 11, 2) == 1.0  # of 22 steps the last
    said = schedule.unreached(11, 2)
    assert said is not None
    assert ('unit = "share"' in said) == (unit != "share")


@pytest.mark.parametrize(("unit", "milestone"), [("epochs", 1.9), ("steps", 21), ("share", 0.95)])
def test_a_milestone_at_the_last_step_is_reached(unit: str, milestone: float) -> None:
    schedule = LrSchedule(name="piecewise", unit=unit, milestones=(milestone,), factors=(0.1,))  # type: ignore[arg-type]
    assert schedule.factor(21, 11, 2) == 0.1
    assert schedule.unreached(11, 2) is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "linear"}, "name: 'linear' is no schedule"),
        ({"unit": "hours"}, "unit: 'hours' is no unit"),
        ({"name": "piecewise"}, "milestones: .*increasing and above 0"),
        ({"name": "piecewise", "milestones": (2, 2), "factors": (0.1, 0.1)}, "milestones: .*increasing"),
        ({"name": "piecewise", "milestones": (math.nan,), "factors": (0.1,)}, "milestones: .*increasing"),
        ({"name": "piecewise", "milestones": (2,), "factors": ()}, "factors: 0 for 1 milestones"),
        ({"name": "piecewise", "milestones": (2,), "factors": (-1.0,)}, "factors: -1.0 is out of range"),
        ({"name": "cosine", "milestones": (2,)}, "milestones: not a key of cosine"),
        ({"name": "constant", "final_factor": 0.5}, "final_factor: not a key of constant"),
        ({"name": "cosine", "final_factor": 1.5}, "final_factor: 1.5 is out of range"),
        ({"warmup_share": 0.3}, "warmup_share: not a key of constant, only of one_cycle"),
        ({"name": "cosine", "curve": "linear"}, "curve: not a key of cosine"),
        ({"name": "one_cycle", "curve": "cubic"}, "curve: 'cubic' is no curve"),
        ({"name": "one_cycle", "warmup_share": 1.0}, "warmup_share: 1.0 is out of range"),
        ({"name": "one_cycle", "warmup_epochs": 1.0}, "warmup_epochs: one_cycle rises over warmup_share"),
        ({"name": "piecewise", "unit": "share", "milestones": (1.0,), "factors": (0.1,)}, "milestones: .*below 1"),
        ({"warmup_epochs": -1.0}, "warmup_epochs: -1.0 is out of range"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LrSchedule(**keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "lion"}, "name: 'lion' is no optimizer, one of sgd, adam, adamw"),
        ({"name": "adam", "momentum": 0.9}, "momentum: not a key of adam, which has beta1, beta2, epsilon"),
        ({"name": "sgd", "beta1": 0.9}, "beta1: not a key of sgd"),
        ({"name": "adamw", "decoupled": True}, "decoupled: not a key of adamw"),
        ({"lr": 0.0}, "lr: 0.0 is out of range"),
        ({"lr": math.nan}, "lr: nan is out of range"),
        ({"momentum": 1.0}, "momentum: 1.0 is out of range"),
        ({"nesterov": True}, "nesterov: needs momentum above 0"),
        ({"name": "adamw", "beta2": -0.1}, "beta2: -0.1 is out of range"),
        ({"name": "adam", "epsilon": 0.0}, "epsilon: 0.0 is out of range"),
        ({"weight_decay": math.inf}, "weight_decay: inf is out of range"),
    ],
)
def test_an_optimizer_that_cannot_be_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerSettings(**keys)  # type: ignore[arg-type]


def wrapped() -> nn.Module:
    net = nn.Module()
    net.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    net.gate = nn.Parameter(torch.ones(4))
    return net


def test_kernels_and_biases_are_decayed_and_nothing_else() -> None:
    net = wrapped()
    assert list(decayed_parameters(net)) == ["model.0.weight", "model.0.bias", "model.3.weight", "model.3.bias"]
    groups = parameter_groups(net, 0.5, method_lr_scale=9.0)
    found = [(len(group["params"]), group["weight_decay"], group["lr_scale"]) for group in groups]
    assert found == [(4, 0.5, 1.0), (2, 0.0, 1.0), (1, 0.0, 9.0)]
    assert groups[2]["params"] == [net.gate]
    assert [group["lr_scale"] for group in parameter_groups(nn.ModuleDict({"model": nn.Linear(2, 2)}), 0.5)] == [1.0]


def test_the_optimizer_has_the_keys_that_were_written() -> None:
    vgg = OptimizerSettings(name="adam", lr=1e-4, beta1=0.85, beta2=0.997, epsilon=1e-6, weight_decay=5e-4)
    built = vgg.build(wrapped())
    assert type(built) is torch.optim.Adam
    defaults = built.defaults
    assert (defaults["lr"], defaults["betas"], defaults["eps"]) == (1e-4, (0.85, 0.997), 1e-6)
    assert [group["weight_decay"] for group in built.param_groups] == [5e-4, 0.0, 0.0]

    lenet = OptimizerSettings(name="sgd", lr=0.01, momentum=0.9, nesterov=True).build(wrapped())
    assert type(lenet) is torch.optim.SGD
    assert (lenet.defaults["momentum"], lenet.defaults["nesterov"]) == (0.9, True)
    assert type(OptimizerSettings(name="adamw").build(wrapped())) is torch.optim.AdamW


def test_decoupled_decay_shrinks_the_weights_and_leaves_momentum_alone() -> None:
    """SGDW against the formulas written out, with Nesterov's momentum."""
    net = nn.ModuleDict({"model": nn.Linear(2, 1, bias=False)})
    weight = next(net.parameters())
    settings = OptimizerSettings(name="sgd", lr=0.5, momentum=0.9, nesterov=True, weight_decay=0.1, decoupled=True)
    optimizer = settings.build(net)
    expected, moment = weight.detach().clone(), torch.zeros(1, 2)
    for gradient in (torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 0.25]])):
        weight.grad = gradient.clone()
        optimizer.step()
        moment = 0.9 * moment + gradient
        expected = expected * (1 - 0.5 * 0.1) - 0.5 * (gradient + 0.9 * moment)
        torch.testing.assert_close(weight.detach(), expected)
    before = weight.detach().clone()
    weight.grad = None
    optimizer.step()
    assert torch.equal(weight.detach(), before)  # without a gradient nothing moves


def test_norms_are_not_decayed_when_decay_is_decoupled() -> None:
    net = wrapped()
    optimizer = OptimizerSettings(name="sgd", lr=0.5, weight_decay=0.1, decoupled=True).build(net)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        factor = 0.95 if name in decayed_parameters(net) else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_inverse_square_root_is_the_papers_rate() -> None:
    schedule = LrSchedule(name="inverse_sqrt", warmup_epochs=2)  # of 100 steps: 200 steps of warm-up
    peak = (512 * 200) ** -0.5
    for step in (1, 50, 199, 200, 201, 800, 5000):  # counted from 1 in section 5.3
        rate = 512**-0.5 * min(step**-0.5, step * 200**-1.5)
        assert peak * schedule.factor(step - 1, 100, 100) == pytest.approx(rate, rel=1e-12)
    with pytest.raises(ValueError, match=r"^warmup_epochs: inverse_sqrt falls from the end of the warm-up"):
        LrSchedule(name="inverse_sqrt")
