"""Two processes under torchrun train what one process trains, mask for mask."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tdcompress.errors import ArtifactError, InterruptedRun
from tdcompress.methods.base import TrainStep
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.methods.variational import VariationalSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.units import Slot, Targets
from tdcompress.train.batchnorm import synchronised
from tdcompress.train.distributed import World, elected, joined, vote
from tdcompress.train.loop import TrainResult, TrainSettings, train
from tdcompress.train.optim import OptimizerSettings

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import conftest, test_train_distributed
test_train_distributed.in_one_of_two(conftest, Path({folder!r}))
"""
SETTINGS = TrainSettings(
    epochs=3, batch_size=24, accumulate=2, optimizer=OptimizerSettings(lr=0.1, momentum=0.9), clip_norm=1.0, l2=1e-3
)


def network() -> SparseNet:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 2))
    for index, parameter in enumerate(model.parameters()):
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(index))
    targets = Targets(weights=(Slot(parameter="0.weight"), Slot(parameter="3.weight")))
    return SparseNet(model, TargetedSettings(gamma=0.5, alpha=0.5).build(targets, model))


def start(small, net: SparseNet, folder: Path, device: torch.device, stops: dict[int, int] | None = None) -> TrainResult:
    calls = iter(range(1000))
    data, test = small.images(100), small.images(31, seed=1)
    arguments = {"seed": 3, "device": device, "folder": folder}
    return train(net, data, test, SETTINGS, **arguments, should_stop=lambda: (stops or {}).get(next(calls)))


def normalised(world: World) -> dict[str, list]:
    """A network with BatchNorm on this process's part of 12 samples, forward and backward, in float64."""
    generator = torch.Generator().manual_seed(5)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(12, momentum=None))
    model = model.double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=0.5, generator=generator)
    x = world.part(torch.randn(12, 2, 3, 3, generator=generator, dtype=torch.float64) + 3)
    towards = world.part(torch.randn(12, 12, generator=generator, dtype=torch.float64))
    with synchronised(model, world):
        wrapped = world.wrap(model)
        for _ in range(2):
            loss = (wrapped(x) - towards).square().mean()
            loss.backward()
    assert "forward" not in vars(model[1])
    total = world.total(loss.detach() / world.size)
    return {
        "loss": [total.item()],
        "gradients": torch.cat([p.grad.flatten() for p in model.parameters()]).tolist(),
        "running": torch.cat([b.flatten().double() for b in model.buffers()]).tolist(),
    }


def noise(rank: int) -> list[float]:
    """What variational dropout adds to a layer's outputs in one step of a process."""
    model = nn.Sequential(nn.Linear(3, 2, bias=False))
    nn.init.constant_(model[0].weight, 1.0)
    net = SparseNet(model, VariationalSettings().build(Targets(weights=(Slot(parameter="0.weight"),)), model))
    net.begin_step(TrainStep(process=rank), torch.Generator().manual_seed(1))
    return (net(torch.ones(1, 3)) - 3).flatten().tolist()


def in_one_of_two(small, folder: Path) -> None:
    """What each process runs: stopped by a signal that only the second one gets, then again to the end."""
    with joined("cpu") as device:
        world = World.current()
        assert world.size == 2
        with pytest.raises(InterruptedRun) as stop:
            start(small, network(), folder, device, {3: 15} if world.rank == 1 else None)
        assert stop.value.exit_code == 143
        net = network()
        result = start(small, net, folder, device)
        assert result.resumed_from_step == 4
        facts = {
            "test_accuracy": result.test_accuracy,
            "weights": [p.tolist() for p in net.model.parameters()],
            "normalised": normalised(world),
            "noise": noise(world.rank),
        }
        (folder / f"rank{world.rank}.json").write_text(json.dumps(facts))


def test_two_processes_train_what_one_trains(small, tmp_path: Path) -> None:
    alone = network()
    result = start(small, alone, tmp_path / "one", torch.device("cpu"))
    folder = tmp_path / "two"
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(tests=str(Path(__file__).parent), folder=str(folder)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr

    first, second = (json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1))
    here = noise(0)
    assert first.pop("noise") == here
    assert all(abs(a - b) > 1e-6 for a, b in zip(here, second.pop("noise"), strict=True))
    assert first == second  # the same bits in both
    for kind, expected in normalised(World()).items():
        torch.testing.assert_close(
            torch.tensor(first["normalised"][kind], dtype=torch.float64), torch.tensor(expected, dtype=torch.float64),
            rtol=1e-12, atol=1e-12,
        )  # fmt: skip
    with pytest.raises(ArtifactError, match="in 2 processes, and here are 1"):
        start(small, network(), folder, torch.device("cpu"))
    for parameter, values in zip(alone.model.parameters(), first["weights"], strict=True):
        torch.testing.assert_close(parameter.detach(), torch.tensor(values), rtol=1e-3, atol=1e-5)
    assert first["test_accuracy"] == result.test_accuracy
    accuracies = [
        [json.loads(line)["train_accuracy"] for line in (f / "metrics.jsonl").read_text().splitlines()]
        for f in (tmp_path / "one", folder)
    ]
    assert accuracies[0] == accuracies[1]
    saved = load_file(next((folder / "checkpoints").glob("*.safetensors")))
    assert "net/model.0.weight" in saved


def test_a_process_alone_is_the_whole_world() -> None:
    world = World.current()
    assert (world.rank, world.size, world.first) == (0, 1, True)
    batch = torch.arange(6)
    assert torch.equal(world.part(batch), batch)
    assert [World(rank=rank, size=3).part(batch).tolist() for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(("given", "agreed"), [((None, None), None), ((None, 15), 15), ((2, 15), 15), ((2, 2), 2)])
def test_processes_stop_by_any_ones_signal(given, agreed) -> None:
    votes = sum(vote(number, torch.device("cpu")) for number in given)
    assert elected(votes.tolist()) == agreed
