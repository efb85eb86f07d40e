"""Accuracy and logits, and the order that an epoch takes the samples in."""

import pytest
import torch
from torch import nn

from tdcompress.errors import VerificationError
from tdcompress.seeds import derived_seed
from tdcompress.tasks.images import TrainData, accuracy
from tdcompress.train.samples import epoch_order

CPU = torch.device("cpu")


class Floats(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.permute(0, 3, 1, 2).float()


def numbered(labels: list[int]) -> TrainData:
    """Image i is one pixel of two channels: (i, 3)."""
    pixels = torch.tensor([[i, 3] for i in range(len(labels))], dtype=torch.uint8).view(-1, 1, 1, 2)
    return TrainData(pixels=pixels, labels=torch.tensor(labels), preprocess=Floats())


def flat(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_accuracy_counts_every_sample_once(batch_size: int) -> None:
    # class 0 wins from image 3 on (a tie at 3 goes to the first), so images 0 1 2 are class 1
    data = numbered([1, 1, 1, 0, 0, 1, 1, 0])
    assert accuracy(flat, data, batch_size, CPU) == 6 / 8


def test_modes_are_given_back_and_nothing_is_recorded() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.BatchNorm1d(2))
    model[2].eval()
    before = model[2].running_mean.clone()
    seen: list[torch.Tensor] = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(output))
    accuracy(model, numbered([0] * 5), 2, CPU)
    assert [module.training for module in model] == [True, True, False]
    assert torch.equal(model[2].running_mean, before)
    assert [scores.shape for scores in seen] == [(2, 2), (2, 2), (1, 2)]
    assert not any(scores.requires_grad for scores in seen)


def test_leaving_early_gives_the_mode_back() -> None:
    model = nn.Sequential(nn.Flatten())
    calls = iter([None, KeyError("enough")])

    def between() -> None:
        problem = next(calls)
        if problem is not None:
            raise problem

    with pytest.raises(KeyError, match="enough"):
        accuracy(model, numbered([0] * 5), 2, CPU, between=between)
    assert model.training


def test_logits_that_are_not_finite_are_a_failure() -> None:
    with pytest.raises(VerificationError, match=r"logits of samples 2\.\.3 are not finite"):
        accuracy(lambda x: flat(x) / (flat(x)[:, :1] != 2), numbered([0] * 5), 2, CPU)


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        accuracy(flat, TrainData(pixels=torch.empty(0, 1, 1, 2), labels=torch.empty(0), preprocess=Floats()), 2, CPU)


def test_an_epochs_order_is_a_permutation_that_seed_and_epoch_fix() -> None:
    orders = {(seed, epoch): epoch_order(50, seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    for order in orders.values():
        assert torch.equal(order.sort().values, torch.arange(50))
    assert len({tuple(order.tolist()) for order in orders.values()}) == 4
    assert torch.equal(epoch_order(50, 1, 1), orders[1, 1])


def test_streams_have_seeds_of_their_own() -> None:
    seeds = {derived_seed(s, name) & 0xFFFFFFFF for s in range(50) for name in ("augment", "method", "network")}
    assert len(seeds) == 150
    assert derived_seed(0, "order", 0) == 30903837681249226  # golden: a changed stream changes every result
