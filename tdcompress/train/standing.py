"""Where a training stands between two steps: its counters and metrics, and the checkpoints that hold all of it."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tdcompress.errors import ArtifactError
from tdcompress.files import write_text
from tdcompress.methods.wrapper import SparseNet
from tdcompress.train import checkpoint
from tdcompress.train.average import RunningAverage
from tdcompress.train.distill import Teacher
from tdcompress.train.distributed import World
from tdcompress.train.manner import Begun, Manner
from tdcompress.train.paths import PathName
from tdcompress.train.result import Counters
from tdcompress.train.saved import CHECKPOINTS
from tdcompress.train.settings import TrainSettings
from tdcompress.train.state import load_tensors, state_tensors

METRICS = "metrics.jsonl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a checkpoint of a training says besides its tensors.

    Attributes:
        identity: of the training (`identity_of`).
        processes: that shared it.
        path: by which its steps were made.
        manner: how it ran.
        counters: where it stood.
    """

    identity: str
    processes: int
    path: PathName
    manner: Begun
    counters: Counters


class Standing:
    """The state of a training in one process; the first process writes it.

    Args:
        net: the network and its method.
        optimizer: of its parameters.
        average: of its weights.
        folder: gets metrics and checkpoints.
        identity: of the training (`identity_of`).
        manner: how it runs.
        world: its processes.

    Attributes:
        counters: what changes from step to step beside tensors.
    """

    def __init__(
        self,
        net: SparseNet,
        optimizer: torch.optim.Optimizer,
        average: RunningAverage,
        *,
        folder: Path,
        identity: str,
        manner: Manner,
        world: World,
    ) -> None:
        self._net, self._optimizer, self._average = net, optimizer, average
        self._folder, self._identity, self._manner, self._world = folder, identity, manner, world
        self.counters = Counters()

    def take_up(self, found: checkpoint.Checkpoint[Header]) -> PathName:
        """Go on from a checkpoint; returns the path that it is of.

        Raises:
            ArtifactError: it is of another training, or of another number of processes.
        """
        place = self._folder / CHECKPOINTS
        if found.header.identity != self._identity:
            raise ArtifactError(f"{place} is of another training (settings, seed or data differ): remove it to train anew")
        if (processes := found.header.processes) != self._world.size:
            alike = f"go on with {processes} (torchrun --nproc-per-node)" if processes > 1 else "start it without torchrun"
            raise ArtifactError(
                f"{place} is of a training in {processes} process{'es' * (processes > 1)}, and here are "
                f"{self._world.size}: {alike}, or remove it to train anew"
            )
        load_tensors(found.tensors, self._net, self._optimizer)
        self.counters = found.header.counters
        self._average.load(found.tensors, found.step)
        self.write_metrics()
        return found.header.path

    def save(self, path: PathName) -> None:
        """Write a checkpoint of this moment, between two steps of that path."""
        if self._world.first:
            now = self.counters
            header = Header(
                identity=self._identity,
                processes=self._world.size,
                path=path,
                manner=self._manner.begun(),
                counters=now,
            )
            tensors = state_tensors(self._net, self._optimizer) | self._average.state(now.step)
            checkpoint.write(self._folder / CHECKPOINTS, checkpoint.Checkpoint(step=now.step, tensors=tensors, header=header))

    def write_metrics(self) -> None:
        """Publish metrics.jsonl as the history has it, so that it never holds a line of steps that were lost."""
        if self._world.first:
            lines = "".join(json.dumps(line, allow_nan=False) + "\n" for line in self.counters.history)
            write_text(self._folder / METRICS, lines)


def newest(folder: Path, world: World) -> checkpoint.Checkpoint[Header] | None:
    """The newest complete checkpoint, once what a killed process left half-written is removed."""
    with world.first_goes_first():
        if world.first:  # alone: a later sweep would take away what the first process is writing by then
            checkpoint.sweep(folder / CHECKPOINTS)
            for leftover in folder.glob(f".{METRICS}.*.tmp"):
                leftover.unlink()
        return checkpoint.read_newest(folder / CHECKPOINTS, Header)


def identity_of(
    settings: TrainSettings, seed: int, samples: int, keep: Mapping[str, Tensor] | None, teacher: Teacher | None
) -> str:
    """A hash of what must be the same for a checkpoint to go on.

    Args:
        settings: the recipe's [train].
        seed: of the training.
        samples: how many it trains on.
        keep: the masks of frozen zeros by parameter name, bool, of its shape; or None.
        teacher: what it also learns from, or None.
    """
    facts = [dataclasses.asdict(settings), seed, samples, sorted(keep or {})]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for _, mask in sorted((keep or {}).items()):
        digest.update(mask.cpu().contiguous().numpy().tobytes())
    if teacher is not None:
        digest.update(teacher.digest().encode())
    return digest.hexdigest()
