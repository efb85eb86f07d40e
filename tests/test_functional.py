"""Networks that hold one module, or one parameter, under several names."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tdcompress as tdc
from tdcompress.functional import functional_call
from tdcompress.models.base import require_logits


def shared() -> nn.Sequential:
    """A layer and its normalisation twice, and a third layer that shares the weight alone."""
    layer, norm, tied, head = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2)
    tied.weight = layer.weight
    for index, parameter in enumerate((*layer.parameters(), *head.parameters(), tied.bias)):
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(index))
    return nn.Sequential(layer, norm, nn.ReLU(), layer, norm, tied, head).double()


class Spelled(nn.Module):
    """The same network, each module of it under one name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, _, _, _, self.tied, self.head = shared()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.layer(torch.relu(self.norm(self.layer(x)))))
        return self.head(self.tied(x))


def images(seed: int) -> Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_each_place_runs_with_what_is_given_and_has_its_own_again() -> None:
    model = shared()
    own = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    given = {"0.weight": torch.zeros(4, 4), "0.bias": torch.ones(4), "5.bias": torch.arange(4.0), "unknown": torch.zeros(1)}
    given = {name: tensor.double() for name, tensor in given.items()} | {"1.running_mean": torch.zeros(4).double()}
    seen: list[Tensor] = []
    model[5].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    functional_call(model, given, (images(0),))
    assert seen[0].tolist() == [[0.0, 1.0, 2.0, 3.0]] * 8  # zeros as its weight too
    assert {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()} == own
    assert given["1.running_mean"].tolist() != [0.0] * 4
    assert model[1].running_mean.tolist() == [0.0] * 4


def test_a_network_with_a_layer_under_two_names_trains_as_one_without() -> None:
    trained = []
    for model in (shared(), Spelled()):
        net = tdc.TargetedDropout(model, gamma=0.75, alpha=0.5)
        before = list(net.parameters())
        optimizer = torch.optim.SGD(before, lr=0.1, momentum=0.9)
        for step in range(3):
            optimizer.zero_grad()
            net(images(step)).square().sum().backward()
            optimizer.step()
            net.step()
        assert [id(parameter) for parameter in net.parameters()] == [id(parameter) for parameter in before]
        trained.append(before)
    for one, other in zip(*trained, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_network_that_is_tried_keeps_its_parameters(device: str) -> None:
    layer = nn.Linear(12, 12)
    model = nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer, nn.Linear(12, 2))
    require_logits("shared", model, 2, (3, 2, 2), device)
    assert all(isinstance(parameter, nn.Parameter) and parameter.device.type == "cpu" for parameter in model.parameters())


def test_a_network_that_is_tried_or_exported_keeps_the_mode_of_each_module(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    model[2].eval()
    require_logits("frozen statistics", model, 2, (3, 2, 2), "cpu")
    tdc.export_onnx(model, torch.ones(2, 3, 2, 2), tmp_path / "model.onnx")
    assert [module.training for module in model] == [True, True, False, True]
