"""One update by itself: what is frozen has no part in it, and what is not finite stops it."""

import pytest
import torch
from torch import nn

from tdcompress.errors import TrainingError
from tdcompress.train.optim import OptimizerSettings
from tdcompress.train.settings import TrainSettings
from tdcompress.train.update import FrozenZeros, Updater


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.w = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.model.v = nn.Parameter(torch.tensor([5.0]))


def updater(
    net: Two, *, keep: list[bool] | None = None, clip_norm: float | None = None, momentum: float = 0.0
) -> tuple[Updater, torch.optim.SGD]:
    optimizer = torch.optim.SGD([{"params": list(net.parameters()), "lr_scale": 1.0}], lr=1.0, momentum=momentum)
    frozen = None if keep is None else FrozenZeros({"w": net.model.w, "v": net.model.v}, {"w": torch.tensor(keep)})
    return Updater(net, optimizer, TrainSettings(clip_norm=clip_norm), frozen=frozen), optimizer


def set_gradients(net: Two, w: list[float], v: float) -> None:
    net.model.w.grad, net.model.v.grad = torch.tensor(w), torch.tensor([v])


def test_frozen_entries_become_zero_at_once() -> None:
    net = Two()
    updater(net, keep=[False, True])
    assert net.model.w.tolist() == [0.0, 2.0]


def test_frozen_gradients_do_not_count_in_the_norm() -> None:
    net = Two()
    update, _ = updater(net, keep=[False, True], clip_norm=5.0)
    set_gradients(net, [1000.0, 3.0], 4.0)  # the norm of what is trained is exactly 5: nothing is scaled
    update.apply(torch.tensor([0.5, 7.0]), 0.5, "step 1")
    assert net.model.w.tolist() == [0.0, 0.5]
    assert net.model.v.tolist() == [3.0]


def test_momentum_cannot_bring_frozen_entries_back() -> None:
    net = Two()
    update, optimizer = updater(net, keep=[False, True], momentum=0.5)
    optimizer.state[net.model.w]["momentum_buffer"] = torch.tensor([8.0, 8.0])
    set_gradients(net, [0.0, 0.0], 0.0)
    update.apply(torch.tensor([0.5]), 1.0, "step 1")
    assert net.model.w.tolist() == [0.0, -2.0]  # 2 - 0.5 * 8


def test_clipping_scales_the_whole_gradient() -> None:
    net = Two()
    update, _ = updater(net, clip_norm=1.0)
    set_gradients(net, [6.0, 0.0], 8.0)
    numbers = update.apply(torch.tensor([0.5, 7.0]), 1.0, "step 1")
    torch.testing.assert_close(net.model.w.detach(), torch.tensor([0.4, 2.0]))
    torch.testing.assert_close(net.model.v.detach(), torch.tensor([4.2]))
    assert numbers == [0.5, 7.0]
    assert net.model.w.grad is None


def test_the_rate_is_that_of_the_step() -> None:
    net = Two()
    update, _ = updater(net)
    for lr, expected in ((0.25, 4.75), (0.5, 4.25)):
        set_gradients(net, [0.0, 0.0], 1.0)
        update.apply(torch.tensor([0.5]), lr, "step 1")
        assert net.model.v.item() == expected


@pytest.mark.parametrize(
    ("loss", "w", "v", "message"),
    [
        (float("inf"), 1.0, 1.0, "step 4: the loss is inf; the update was not made"),
        (0.5, float("nan"), 1.0, r"step 4: the gradient of model\.w is not finite"),
        (0.5, float("nan"), float("inf"), r"step 4: the gradient of model\.w and 1 more is not finite"),
        (0.5, 3e38, 3e38, "step 4: the norm of the gradient is beyond float32"),
    ],
)
def test_what_is_not_finite_is_named_and_nothing_changes(loss: float, w: float, v: float, message: str) -> None:
    net = Two()
    update, _ = updater(net, clip_norm=1.0)
    set_gradients(net, [1.0, w], v)
    with pytest.raises(TrainingError, match=message):
        update.apply(torch.tensor([loss]), 1.0, "step 4")
    assert net.model.w.tolist() == [1.0, 2.0]
    assert net.model.v.tolist() == [5.0]


def test_a_methods_own_parameters_learn_at_their_own_rate() -> None:
    """Gradient 1 everywhere, rate 0.5, scale 8: the network moves by 0.5, the gate by 4; a schedule counts for both."""
    net = Two()
    net.gate = nn.Parameter(torch.tensor([10.0]))
    optimizer = OptimizerSettings(name="sgd", lr=0.5).build(net, method_lr_scale=8.0)
    update = Updater(net, optimizer, TrainSettings(), frozen=None)
    for lr, expected in ((0.5, ([0.5, 1.5], 6.0)), (0.05, ([0.45, 1.45], 5.6))):
        set_gradients(net, [1.0, 1.0], 1.0)
        net.gate.grad = torch.tensor([1.0])
        update.apply(torch.tensor([0.0]), lr, "a step")
        assert (net.model.w.tolist(), float(net.gate.detach())) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
