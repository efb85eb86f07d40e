"""A run in several processes, as torchrun starts them: the first leads, the others follow.

The first plans, locks, writes and makes most stages. Where a stage trains, it calls the others, and all make it on the same
folder. Between calls they wait, however long an export or a benchmark takes. Calls are JSON; a follower reads what a stage is
made from by its artefacts' manifests, as any stage does.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tdcompress.artifacts import Artifact, read_artifact
from tdcompress.codec import Json, decode, encode, parse_json
from tdcompress.errors import ArtifactError, InterruptedRun, TrainingError
from tdcompress.pipeline import Machine, Stage, Task, Workspace, named_failures
from tdcompress.stages import STAGES
from tdcompress.train.distributed import World, joined, started_by_torchrun

_PATIENCE = timedelta(days=1000)  # a follower waits for as long as the leader lives


@dataclass(frozen=True, kw_only=True)
class Call:
    """A stage that all processes are to make.

    Attributes:
        stage: its name.
        name: of the task.
        version: its version, as the first process has it.
        settings: as JSON.
        folder: its unfinished folder.
        inputs: folders of the artefacts that it is made from, by role.
        places: see ``Machine``.
    """

    stage: str
    name: str
    version: int
    settings: Json
    folder: str
    inputs: dict[str, str]
    places: dict[str, str]


class Channel:
    """What the first process says to all others, in order."""

    def __init__(self) -> None:
        # a group of its own: it waits for days, where the training's must not
        group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        if not isinstance(group, dist.ProcessGroup):
            raise TrainingError("this process is not one of those that torchrun started")
        self._group = group

    def say(self, call: Call | None) -> None:
        """Tell the others what to make next; None = nothing more."""
        text = torch.tensor(list(json.dumps(encode(call)).encode()), dtype=torch.uint8)
        dist.broadcast(torch.tensor([len(text)]), 0, group=self._group)
        dist.broadcast(text, 0, group=self._group)

    def heard(self) -> Call | None:
        """Wait for what the first process says next."""
        length = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(length, 0, group=self._group)
        text = torch.zeros(int(length), dtype=torch.uint8)
        dist.broadcast(text, 0, group=self._group)
        said = parse_json(bytes(text.tolist()))
        return None if said is None else decode(Call, said)


@dataclass(frozen=True, kw_only=True)
class Leader:
    """The first process's side, as `tdcompress.pipeline.Crew`.

    Attributes:
        channel: to the other processes.
    """

    channel: Channel

    def call(self, task: Task, folder: Path, inputs: Mapping[str, Artifact], places: Mapping[str, Path]) -> None:
        """See `Crew.call`."""
        self.channel.say(
            Call(
                stage=task.stage.name,
                name=task.name,
                version=task.stage.version,
                settings=encode(task.settings),
                folder=str(folder.resolve()),
                inputs={role: str(artifact.folder.resolve()) for role, artifact in inputs.items()},
                places={content: str(place.resolve()) for content, place in places.items()},
            )
        )


def in_crew(kind: str, lead: Callable[[Leader | None, str], None], should_stop: Callable[[], int | None]) -> None:
    """Do a run's work in the first process, with the help of the others; without torchrun simply do it.

    Args:
        kind: "cpu" or "cuda".
        lead: the work; gets the first process's side, or None where this process is alone, and the device.
        should_stop: the number of a signal that asks this process to end, or None.

    Raises:
        OtherProcessError: another process failed.
        TrainingError: another process is gone without a word.
    """
    if not started_by_torchrun():
        lead(None, kind)
        return
    with joined(kind) as device:
        channel = Channel()
        if not World.current().first:
            _follow(channel, device, should_stop)
            return
        try:
            lead(Leader(channel=channel), str(device))
        except InterruptedRun:
            channel.say(None)  # all of them stopped, and what was done is saved
            raise
        channel.say(None)


def _follow(channel: Channel, device: torch.device, should_stop: Callable[[], int | None]) -> None:
    """Make the stages that the first process calls for, until nothing more is to do."""
    while (call := channel.heard()) is not None:
        stage = _called_for(call)
        work = Workspace(
            folder=Path(call.folder),
            inputs={role: read_artifact(Path(folder)) for role, folder in call.inputs.items()},
            machine=Machine(device=str(device), places={content: Path(place) for content, place in call.places.items()}),
            progress=_Silent(),
            should_stop=should_stop,
        )
        if not work.folder.is_dir():
            raise ArtifactError(f"{work.folder}: not seen by process {World.current().rank}; all need the same artifacts folder")
        with suppress(InterruptedRun), named_failures(call.name):  # the first process says what comes next
            stage.run(decode(stage.settings, call.settings), work)


def _called_for(call: Call) -> Stage[Any]:
    """The stage that is called for.

    Raises:
        TrainingError: this process has another version of it.
    """
    stage = STAGES[call.stage]
    if stage.version != call.version:
        raise TrainingError(
            f"process {World.current().rank} has version {stage.version} of the stage {stage.name}, "
            f"the first one {call.version}; install the same tdcompress on all machines"
        )
    return stage


class _Silent:
    """The progress of a follower: the first process shows it."""

    def update(self, done: float, total: float, text: str) -> None:
        """As `tdcompress.pipeline.Progress`."""
