"""Images a second of a training step, by method, path, precision and batch size, and the share of the device's peak.

    python benchmarks/train_throughput.py --device cuda --minutes 2 --json throughput.json
    python benchmarks/train_throughput.py --model cifar_resnet20 --batch 128 --precision float32

Random images on the device, augmented there as CIFAR-10's are. A cell is built, warmed up, and then timed between two
synchronisations for about a second. "compiled" and "graph" are the fast path as a graph with and without torch.compile (without
a graph on a CPU), "direct" is it operator by operator, "reference" is the step that every method has. Building (compiling,
capturing) is timed apart. The peak is a measured product of two square matrices. Cells come in the order of their weight, so that
a budget of minutes cuts off the least important; what was not run is said. Some rows train several networks at a time.
"""

import argparse
import dataclasses
import itertools
import json
import platform
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import torch

from tdcompress.data.augment import Augmentation
from tdcompress.data.preprocess import StandardizePerImage
from tdcompress.methods.base import MethodSettings
from tdcompress.methods.dropout import DropoutSettings
from tdcompress.methods.l0 import L0Settings
from tdcompress.methods.l1 import L1Settings
from tdcompress.methods.none import NoneSettings
from tdcompress.methods.random_prune import RandomPruneSettings
from tdcompress.methods.smallify import SmallifySettings
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.methods.variational import VariationalSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.models.registry import build_model
from tdcompress.shrinking.count import parameters_and_macs
from tdcompress.shrinking.groups import unit_groups
from tdcompress.sparsity.units import Targets, prunable_weights
from tdcompress.tasks.images import TrainData
from tdcompress.train.average import Averaging, RunningAverage
from tdcompress.train.distributed import World
from tdcompress.train.evaluate import Precision
from tdcompress.train.fast.path import FastPath, Mode
from tdcompress.train.fast.support import why_not
from tdcompress.train.optim import OptimizerSettings
from tdcompress.train.paths import ReferencePath, StepPath
from tdcompress.train.settings import TrainSettings
from tdcompress.train.step import Stepper
from tdcompress.train.update import Updater

SAMPLES = 10_240
IMAGE = (3, 32, 32)
MODES: tuple[Mode, ...] = ("compiled", "graph", "direct")
SETTINGS: dict[str, MethodSettings] = {
    "none": NoneSettings(),
    "weight": TargetedSettings(gamma=0.9, alpha=0.9),
    "unit": TargetedSettings(granularity="unit", gamma=0.5, alpha=0.75),
    "dropout": DropoutSettings(),
    "l1": L1Settings(l1=0.1),
    "l0": L0Settings(),
    "variational": VariationalSettings(),
    "smallify": SmallifySettings(),
    "random_prune": RandomPruneSettings(fraction=0.9),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """What one row measures.

    Attributes:
        method: a key of ``SETTINGS``.
        path: "reference", or a mode of the fast path.
        precision: of the forward pass.
        batch: images of a step.
        together: trainings at a time, a stream each.
    """

    method: str
    path: Literal["reference", "compiled", "graph", "direct"]
    precision: Precision
    batch: int
    together: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What a cell came to; the rate is of all trainings together."""

    cell: Cell
    images_per_second: float
    step_ms: float
    peak_share: float
    building_seconds: float


def cells(batches: list[int], precisions: list[Precision]) -> Iterator[Cell]:
    """The most important first."""
    half, small = precisions[0], batches[0]
    for method in ("none", "weight", "unit"):
        yield Cell(method=method, path="graph", precision=half, batch=small)
    yield Cell(method="weight", path="graph", precision=half, batch=small, together=4)
    for method in ("weight", "none", "unit"):
        yield Cell(method=method, path="compiled", precision=half, batch=small)
    for together in (2, 4, 8):
        yield Cell(method="weight", path="compiled", precision=half, batch=small, together=together)
    for batch, method in itertools.product(batches[1:], ("none", "weight", "unit")):
        yield Cell(method=method, path="graph", precision=half, batch=batch)
    for batch, method in itertools.product(batches[1:], ("weight", "none")):
        yield Cell(method=method, path="compiled", precision=half, batch=batch)
    for method in SETTINGS:
        yield Cell(method=method, path="reference", precision=half, batch=small)
    yield Cell(method="weight", path="direct", precision=half, batch=small)
    for precision, method in itertools.product(precisions[1:], ("none", "weight")):
        yield Cell(method=method, path="graph", precision=precision, batch=small)
        yield Cell(method=method, path="reference", precision=precision, batch=small)


def build(cell: Cell, model: str, data: TrainData, device: torch.device) -> StepPath | None:
    """A training that is ready to make steps; None where the fast path cannot."""
    network = build_model(model, classes=10)
    method = SETTINGS[cell.method]
    weights = prunable_weights(network)
    groups = unit_groups(network, torch.zeros(2, *IMAGE), weights) if method.granularity == "unit" else ()
    targets = Targets(weights=weights, groups=groups)
    network.to(device)
    net = SparseNet(network, method.build(targets, network), l1=method.l1)
    settings = TrainSettings(
        epochs=1_000_000,
        batch_size=cell.batch,
        optimizer=OptimizerSettings(lr=1e-3, momentum=0.9, nesterov=True),
        l2=5e-4,
    )
    optimizer = settings.optimizer.build(net)
    average = RunningAverage(net, Averaging(), 1)
    loader = data.loader(settings, seed=0, world=World())
    if cell.path == "reference":
        updater = Updater(net, optimizer, settings, frozen=None)
        stepper = Stepper(
            net,
            loader,
            len(data),
            settings,
            updater,
            precision=cell.precision,
            seed=0,
            device=device,
            world=World(),
            asked=lambda: None,
        )
        path: StepPath = ReferencePath(stepper, loader.steps_per_epoch, lr=lambda step: 1e-3, average=average)
    elif why_not(net, settings):
        return None
    else:
        path = FastPath(
            net,
            loader,
            settings,
            optimizer,
            average,
            precision=cell.precision,
            seed=0,
            device=device,
            lr=lambda step: 1e-3,
            mode=cell.path,
        )
    path.begin_epoch(0, 0)
    for _ in range(3):
        path.advance(1)
    synchronise(device)
    return path


def measure(cell: Cell, model: str, data: TrainData, device: torch.device, macs: int, peak: float) -> Row | None:
    """Build and time a cell."""
    began = time.perf_counter()
    streams = [torch.cuda.Stream(device) if device.type == "cuda" else None for _ in range(cell.together)]
    paths: list[StepPath] = []
    for stream in streams:
        with torch.cuda.stream(stream) if stream is not None else nullcontext():
            path = build(cell, model, data, device)
        if path is None:
            return None
        paths.append(path)
    building = time.perf_counter() - began
    per_epoch = SAMPLES // cell.batch

    def train(path: StepPath, stream: torch.cuda.Stream | None) -> int:
        """Steps made in about a second."""
        with torch.cuda.stream(stream) if stream is not None else nullcontext():
            epoch, done, made = 0, per_epoch, 0
            while time.perf_counter() < start + 1.0:
                if done >= per_epoch:
                    epoch, done = epoch + 1, 0
                    path.begin_epoch(epoch, 0)
                steps = path.advance(16)
                done, made = done + steps, made + steps
            return made

    with ThreadPoolExecutor(cell.together) as threads:  # an error in one of them ends the benchmark
        start = time.perf_counter()
        made = sum(threads.map(train, paths, streams))
    synchronise(device)
    seconds = time.perf_counter() - start
    for path in paths:
        path.collect("benchmark")
    rate = made * cell.batch / seconds
    return Row(
        cell=cell,
        images_per_second=rate,
        step_ms=1000 * cell.batch / rate,
        peak_share=rate * macs * 6 / peak,  # forward and two products of the backward pass, 2 operations each
        building_seconds=building,
    )


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured_peak(device: torch.device) -> float:
    """Operations a second of a large matrix product in the fast type."""
    side, kind = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    left = torch.randn(side, side, device=device).to(kind)
    right = torch.randn(side, side, device=device).to(kind)
    for _ in range(3):
        left @ right
    synchronise(device)
    start = time.perf_counter()
    for _ in range(5):
        left @ right
    synchronise(device)
    return 5 * 2 * side**3 / (time.perf_counter() - start)


def main() -> None:
    """Measure, print a table, and write JSON."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    parser.add_argument("--minutes", type=float, default=10.0, help="no cell begins later than this after the start")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.backends.cudnn.benchmark = True
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    peak = measured_peak(device)
    parameters, macs = parameters_and_macs(build_model(arguments.model, classes=10), torch.zeros(1, *IMAGE))
    print(f"{arguments.model}: {parameters:,} parameters, {macs / 1e6:.1f} M multiply-accumulates an image")
    print(f"{name}, torch {torch.__version__}, peak {peak / 1e12:.1f} TFLOP/s", flush=True)
    generator = torch.Generator().manual_seed(0)
    data = TrainData(
        pixels=torch.randint(0, 256, (SAMPLES, 32, 32, 3), dtype=torch.uint8, generator=generator),
        labels=torch.randint(0, 10, (SAMPLES,), generator=generator),
        preprocess=StandardizePerImage(),
        augment=Augmentation(crop_padding=4, flip=True),
    ).to(device)
    print(f"{'method':16}{'path':11}{'type':10} batch at once   images/s  ms/step  of peak built in s")
    rows: list[Row] = []
    skipped: list[Cell] = []
    for cell in cells(arguments.batch, arguments.precision):
        if time.monotonic() - began > 60 * arguments.minutes:
            skipped.append(cell)
            continue
        row = measure(cell, arguments.model, data, device, macs, peak)
        if row is None:
            continue
        rows.append(row)
        print(
            f"{cell.method:16}{cell.path:11}{cell.precision:10}{cell.batch:6}{cell.together:8}{row.images_per_second:11,.0f}"
            f"{row.step_ms:9.3f}{row.peak_share:9.1%}{row.building_seconds:11.1f}",
            flush=True,
        )
        if arguments.json:
            facts = {"device": name, "torch": torch.__version__, "model": arguments.model, "macs": macs, "peak": peak}
            arguments.json.write_text(json.dumps(facts | {"rows": [dataclasses.asdict(row) for row in rows]}, indent=1))
    for cell in skipped:
        print(f"not run: {cell}")


if __name__ == "__main__":
    main()
