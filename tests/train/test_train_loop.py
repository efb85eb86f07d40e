"""The loop as a whole: what a training tells and leaves behind, and that a seed decides all of it."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tdcompress.errors import UserError
from tdcompress.train.loop import Progress, TrainSettings


def test_it_learns_and_tells_every_epoch(small, tmp_path: Path) -> None:
    seen: list[Progress] = []
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
