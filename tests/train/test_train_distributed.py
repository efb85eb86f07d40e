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

from tdcompress.errors import InterruptedRun
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.units import Slot, Targets
from tdcompress.train.distributed import World, joined
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


def in_one_of_two(small, folder: Path) -> None:
    """What each process runs: stopped by a signal that only the second one gets, then again to the end."""
    with joined("cpu") as device:
        world = World.current()
        assert world.size == 2
        with pytest.raises(InterruptedRun) as stop:
            start(small, network(), folder, device, {4: 15} if world.rank == 1 else None)
        assert stop.value.exit_code == 143
        net = network()
        result = start(small, net, folder, device)
        assert result.resumed_from_step == 4
        facts = {"test_accuracy": result.test_accuracy, "weights": [p.tolist() for p in net.model.parameters()]}
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
    assert first == second  # the same bits in both
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
    assert world.agree(None, torch.device("cpu")) is None
    assert world.agree(15, torch.device("cpu")) == 15
