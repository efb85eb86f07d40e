"""The average of the weights over the last steps: what each step counts, zeros that stay, resume, and what is kept at the end."""

import dataclasses
import itertools
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tdcompress.errors import InterruptedRun
from tdcompress.tasks.images import accuracy
from tdcompress.train.average import Averaging, RunningAverage
from tdcompress.train.loop import TrainingProgress, TrainSettings


def average_of(values: list[float], averaging: Averaging) -> float:
    """The average of a number that takes these values after each step, by the weights alone."""
    average = -100.0  # what it was before must not matter
    for step, value in enumerate(values, start=1):
        average += averaging.weight(step, len(values)) * (value - average)
    return average


def test_the_last_part_of_the_steps_is_averaged() -> None:
    averaging = Averaging(kind="last", share=0.4)
    assert [averaging.weight(step, 10) for step in range(11)] == [0.0] * 7 + [1.0, 1 / 2, 1 / 3, 1 / 4]
    assert average_of([9, 9, 9, 9, 9, 9, 1, 2, 3, 6], averaging) == pytest.approx(3.0)
    assert {Averaging().weight(step, 10) for step in range(11)} == {0.0}
    assert Averaging(kind="ema", share=0.01).weight(10, 10) == 1.0  # at least the last step


@given(values=st.lists(st.floats(-10, 10), min_size=1, max_size=12), decay=st.sampled_from([0.1, 0.9, 0.999]))
def test_the_exponential_average_is_the_weighted_mean(values: list[float], decay: float) -> None:
    weights = [decay ** (len(values) - index) for index in range(1, len(values) + 1)]
    expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert average_of(values, Averaging(kind="ema", share=1.0, decay=decay)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"average": "mean"}, "average: 'mean' is no average, one of none, ema, last"),
        ({"average_share": 0.0}, "average_share: 0.0 is out of range"),
        ({"average_decay": 1.0}, "average_decay: 1.0 is out of range"),
    ],
)
def test_an_average_that_cannot_be_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings(**keys)  # type: ignore[arg-type]


def test_what_is_zero_at_the_end_is_zero_in_the_average_and_counts_are_the_last() -> None:
    net = nn.BatchNorm1d(3)
    average = RunningAverage(net, Averaging(kind="last", share=1.0), 2)
    for step, (weights, mean, count) in enumerate([([1.0, 2.0, 3.0], 4.0, 7), ([3.0, 0.0, -0.0], 0.0, 9)], start=1):
        with torch.no_grad():
            net.weight.copy_(torch.tensor(weights))
            assert net.running_mean is not None
            assert net.num_batches_tracked is not None
            net.running_mean.fill_(mean)
            net.num_batches_tracked.fill_(count)
        average.update(step)
    average.finish()
    assert torch.equal(net.weight.view(torch.int32), torch.tensor([2.0, 0.0, 0.0]).view(torch.int32))  # +0
    assert net.running_mean.tolist() == [2.0, 2.0, 2.0]
    assert int(net.num_batches_tracked) == 9


SETTINGS = {
    kind: TrainSettings(epochs=3, batch_size=16, average=kind, average_share=0.5, average_decay=0.8)  # type: ignore[arg-type]
    for kind in ("ema", "last")
}


def test_the_network_is_the_mean_of_the_last_steps_and_so_are_the_accuracies(small, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS["last"], optimizer=small.SGD)
    net = small.conv_net()
    seen: list[dict[str, torch.Tensor]] = []

    def look(progress: TrainingProgress) -> None:
        seen.append({name: value.clone() for name, value in net.state_dict().items()})

    result = small.run(tmp_path, net, settings, progress=look)
    for name, value in net.state_dict().items():
        steps = torch.stack([state[name].double() for state in seen[9:]])
        expected = steps.mean(0) if value.is_floating_point() else steps[-1]
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    assert result.test_accuracy == accuracy(net, small.images(40, seed=1), 40, small.CPU)

    plain = small.conv_net()
    small.run(tmp_path / "plain", plain, dataclasses.replace(settings, average="none"))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, seen[-1][name])  # the average does not touch the training


@pytest.mark.parametrize("kind", ["ema", "last"])
def test_stopped_anywhere_the_average_ends_with_the_same_bits(small, tmp_path: Path, kind: str) -> None:
    settings = dataclasses.replace(SETTINGS[kind], optimizer=small.SGD)
    whole = small.conv_net()
    small.run(tmp_path / "whole", whole, settings)
    folder, net, finished = tmp_path / "parts", small.conv_net(), False
    for start in itertools.count():
        net, answers = small.conv_net(seed=start), iter([None, None, None, signal.SIGTERM])
        try:
            small.run(folder, net, settings, should_stop=lambda answers=answers: next(answers))
            finished = True
        except InterruptedRun:
            continue
        break
    assert finished
    assert small.same_bits(whole, net)
    assert small.timeless(tmp_path / "whole") == small.timeless(folder)
    again = small.conv_net(seed=99)
    small.run(folder, again, settings)  # of a finished training the checkpoint still gives the average
    assert small.same_bits(whole, again)


def test_frozen_zeros_are_zero_in_the_average(small, tmp_path: Path) -> None:
    net = small.conv_net()
    keep = {"6.weight": torch.rand(2, 12, generator=torch.Generator().manual_seed(0)) < 0.5}
    settings = dataclasses.replace(SETTINGS["ema"], optimizer=small.SGD, average_share=1.0)
    small.run(tmp_path, net, settings, keep=keep)
    weight = net.model[6].weight.detach()  # type: ignore[operator]
    assert torch.equal(weight != 0, keep["6.weight"])
