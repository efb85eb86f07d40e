"""Finetuning: weights that were pruned stay exactly zero."""

from pathlib import Path

import pytest
import torch

from tdcompress.train.loop import TrainingProgress, TrainSettings
from tdcompress.train.optim import OptimizerSettings


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_frozen_zeros_are_exactly_zero_after_every_step(small, tmp_path: Path, name: str) -> None:
    net = small.conv_net()
    model = net.model
    dead = torch.tensor([True, False, False, True, False, False])
    keep = {
        "0.weight": ~dead[:, None, None, None],  # broadcasts
        "1.weight": ~dead,
        "1.bias": ~dead,
        "6.weight": torch.rand(2, 12, generator=torch.Generator().manual_seed(0)) < 0.5,
    }
    optimizer = OptimizerSettings(name=name, lr=0.05, weight_decay=0.01, momentum=0.9 if name == "sgd" else None)  # type: ignore[arg-type]
    settings = TrainSettings(epochs=2, batch_size=16, optimizer=optimizer, l2=0.01)
    params = dict(model.named_parameters())
    steps = 0

    def check(progress: TrainingProgress) -> None:
        nonlocal steps
        steps += 1
        for key, mask in keep.items():
            frozen = params[key][~mask.expand_as(params[key])]
            assert torch.equal(frozen.view(torch.int32), torch.zeros_like(frozen).view(torch.int32))  # +0, not -0

    small.run(tmp_path, net, settings, progress=check, keep=keep)
    assert steps == 12
    alive = {key: params[key][mask.expand_as(params[key])] for key, mask in keep.items()}
    assert all(bool((value != 0).all()) for value in alive.values())


def test_frozen_masks_must_fit(small, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"keep: no parameter is called 7\.weight"):
        small.run(tmp_path, keep={"7.weight": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"keep: the mask of 6\.bias is torch\.float32"):
        small.run(tmp_path, keep={"6.bias": torch.ones(2)})
