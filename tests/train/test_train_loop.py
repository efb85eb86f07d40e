"""The loop as a whole: what a training tells and leaves behind, and that a seed decides all of it."""

import dataclasses
import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from tdcompress.errors import UserError
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.tasks.images import first_sides
from tdcompress.train.loop import TrainingProgress, TrainSettings, train
from tdcompress.train.optim import LrSchedule


def test_it_learns_and_tells_every_epoch(small, tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    result = small.run(tmp_path, settings=TrainSettings(epochs=8, batch_size=16, optimizer=small.SGD), progress=seen.append)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert [line["step"] for line in lines] == [6 * epoch for epoch in range(1, 9)]  # floor(100 / 16) steps each
    assert list(lines[0]) == [
        *("epoch", "step", "loss", "train_accuracy", "test_accuracy", "lr", "precision", "gamma", "alpha"),
        *("images_per_second", "seconds"),
    ]
    assert lines[0]["gamma"] == 0.5
    assert lines[-1]["test_accuracy"] == result.test_accuracy == 1.0
    assert (result.epochs, result.steps, result.resumed_from_step) == (8, 48, 0)
    assert [p.step for p in seen] == list(range(1, 49))
    assert (seen[6].epoch, seen[6].epochs, seen[6].steps) == (2, 8, 48)


def test_same_seed_same_bits_and_the_callers_randomness_is_untouched(small, tmp_path: Path) -> None:
    nets = [small.conv_net(), small.conv_net()]
    states = []
    for index, net in enumerate(nets):
        torch.manual_seed(index)
        before = torch.get_rng_state()
        small.run(tmp_path / str(index), net)
        states.append(torch.equal(before, torch.get_rng_state()))
    assert states == [True, True]
    assert small.same_bits(*nets)
    assert small.timeless(tmp_path / "0") == small.timeless(tmp_path / "1")


def test_the_networks_own_dropout_differs_from_step_to_step(small, tmp_path: Path) -> None:
    masks: list[tuple[bool, ...]] = []

    class Recorded(nn.Dropout):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            dropped = super().forward(torch.ones_like(x)) == 0
            if self.training:
                masks.append(tuple(dropped.flatten().tolist()))
            return x.masked_fill(dropped, 0.0)

    net = small.conv_net()
    net.model[5] = Recorded(0.25)  # type: ignore[operator]
    small.run(tmp_path, net)
    assert len(masks) == len(set(masks)) == 18


def test_evaluate_every_skips_all_but_the_last(small, tmp_path: Path) -> None:
    small.run(tmp_path, settings=TrainSettings(epochs=5, batch_size=16, optimizer=small.SGD, evaluate_every=2))
    measured = [line["epoch"] for line in small.timeless(tmp_path) if "test_accuracy" in line]
    assert measured == [2, 4, 5]


def test_no_epochs_only_measures(small, tmp_path: Path) -> None:
    net = small.conv_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result = small.run(tmp_path, net, TrainSettings(epochs=0, batch_size=16))
    assert (result.steps, result.loss) == (0, None)
    assert 0.0 <= result.test_accuracy <= 1.0
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_fewer_samples_than_a_batch_is_an_error(small, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.batch_size: 128, but there are only 100"):
        small.run(tmp_path, settings=TrainSettings(batch_size=128))


def test_a_gamma_that_cannot_be_reached_is_warned_of_by_its_key(small, tmp_path: Path, caplog) -> None:
    net = small.conv_net()
    targeted = TargetedSettings(gamma=0.95, shares="global").build(net.method.targets, net.model)
    with caplog.at_level(logging.WARNING):
        small.run(tmp_path, SparseNet(net.model, targeted), TrainSettings(epochs=0, batch_size=16))
    (said,) = (record.message for record in caplog.records)
    counts = "51 of 54 weights were to be candidates, and 48 are (88.89%): one weight of each filter stays"
    assert said == f'sparsity.gamma = 0.95, shares = "global": {counts}'


def test_masks_that_are_never_frozen_are_warned_of_by_their_key(small, tmp_path: Path, caplog) -> None:
    net = small.conv_net()
    settings = TargetedSettings(gamma=0.5, alpha=1.0, schedule="cubic", freeze_share=0.1).for_training(1)
    with caplog.at_level(logging.WARNING):
        small.run(
            tmp_path, SparseNet(net.model, settings.build(net.method.targets, net.model)), TrainSettings(epochs=1, batch_size=16)
        )
    (said,) = (record.message for record in caplog.records)
    assert said.startswith("sparsity.freeze_share: 0.1 is less than one step of this training, which has 6 steps: ")
    assert not bool((net.model[0].weight == 0).any())


def test_a_first_milestone_beyond_the_end_is_warned_of_by_its_key(small, tmp_path: Path, caplog) -> None:
    late = LrSchedule(name="piecewise", unit="steps", milestones=(40_000,), factors=(0.1,))
    with caplog.at_level(logging.WARNING):
        small.run(tmp_path, settings=TrainSettings(batch_size=16, lr_schedule=late))
    (said,) = (record.message for record in caplog.records)
    assert said.startswith("train.lr_schedule.milestones: the first one, 40000 steps, comes after the last step of this training")


def test_alternating_flips_show_both_sides_of_every_image_in_two_epochs(small) -> None:
    sides = first_sides(100, seed=3)
    assert torch.equal(sides, first_sides(100, seed=3))
    assert 30 < int(sides.sum()) < 70
    data = dataclasses.replace(small.images(100), sides=sides)
    batch = torch.tensor([5, 0, 99])
    even, odd = data.mirrored(batch, False), data.mirrored(batch, True)
    assert even is not None
    assert odd is not None
    assert torch.equal(even, sides[batch])
    assert torch.equal(even, ~odd)
    assert torch.equal(odd, data.mirrored(batch, torch.tensor(True)))
    assert small.images(10).mirrored(batch, False) is None


def test_a_training_mirrors_each_image_in_every_second_epoch(small, tmp_path: Path) -> None:
    seen: dict[bytes, list[bool]] = {}

    def look(pixels: torch.Tensor, generator: torch.Generator, mirrored: torch.Tensor | None = None) -> torch.Tensor:
        assert mirrored is not None
        for image, side in zip(pixels, mirrored.tolist(), strict=True):
            seen.setdefault(image.numpy().tobytes(), []).append(side)
        return pixels

    data = dataclasses.replace(small.images(96), augment=look, sides=first_sides(96, 0))
    settings = TrainSettings(epochs=4, batch_size=16)
    train(small.conv_net(), data, small.images(40, seed=1), settings, seed=0, device=small.CPU, folder=tmp_path)
    assert len(seen) == 96
    assert all(sides in ([True, False] * 2, [False, True] * 2) for sides in seen.values())
