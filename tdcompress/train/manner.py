"""How a training runs on the machine at hand, settled once when it starts: precision and threads. It says how and not what."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from tdcompress.processor import Processor
from tdcompress.train.data import TrainSet
from tdcompress.train.distributed import World
from tdcompress.train.evaluate import Precision
from tdcompress.train.precision import PRECISIONS, settle_precision, step_seconds
from tdcompress.train.settings import TrainSettings
from tdcompress.train.threads import computing_with, settle_threads

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What a checkpoint says of how its training began; those of older versions say less.

    Attributes:
        precision: what the network computes in.
        threads: of a training on a CPU.
        device: its kind, "cpu" or "cuda".
        torch: its version.
    """

    precision: Precision
    threads: int
    device: str | None = None
    torch: str | None = None


@dataclass(frozen=True, kw_only=True)
class Manner:
    """What a training keeps until its end, also on another machine.

    Attributes:
        precision: what the network computes in.
        threads: of a training on a CPU.
        device: its kind, "cpu" or "cuda".
        notes: for people: why, and what is another than it was at the start.
    """

    precision: Precision
    threads: int
    device: str
    notes: tuple[str, ...]

    def begun(self) -> Begun:
        """What a checkpoint says of it."""
        return Begun(precision=self.precision, threads=self.threads, device=self.device, torch=str(torch.__version__))


def settle(
    settings: TrainSettings,
    begun: Begun | None,
    model: nn.Module,
    data: TrainSet,
    *,
    device: torch.device,
    processor: Processor,
    cores: int,
    world: World,
) -> Manner:
    """Settle it for a training that starts, or take what it began with; the first process decides for all.

    Args:
        settings: the recipe's [train].
        begun: of the checkpoint that is taken up; None at the start.
        model: the network, on ``device``; used where the precision has to be tried.
        data: training samples, there too.
        device: where to train.
        processor: of this machine.
        cores: of this process and its container.
        world: the processes of this training.
    """
    on_cpu = begun is not None and begun.device in ("cpu", None)  # a GPU's training computed nothing with its threads
    threads = settle_threads(settings.threads, begun.threads if begun and on_cpu else None, cores)
    index, notes = 0, tuple[str, ...]()
    if world.first:
        index, notes = _settled(settings, begun, model, data, threads, device, processor, world)
    index, threads = world.first_says((index, threads), device)
    return Manner(precision=PRECISIONS[index], threads=threads, device=device.type, notes=notes)


def _settled(
    settings: TrainSettings,
    begun: Begun | None,
    model: nn.Module,
    data: TrainSet,
    threads: int,
    device: torch.device,
    processor: Processor,
    world: World,
) -> tuple[int, tuple[str, ...]]:
    """The place of the precision in `PRECISIONS`, and notes."""

    def seconds(precision: Precision) -> float:
        with computing_with(threads, device):
            return step_seconds(model, data.first(settings, world), device=device, precision=precision)

    found = settle_precision(
        settings.precision, begun.precision if begun else None, device=device, processor=processor, seconds=seconds
    )
    notes = [found.reason]
    if found.warning:
        _log.warning("train.precision: %s", found.reason)
    for moved in _moved(begun, device) if begun else ():
        notes.append(moved)
        _log.warning("this training was %s", moved)
    return PRECISIONS.index(found.precision), tuple(notes)


def _moved(begun: Begun, device: torch.device) -> Iterator[str]:
    """What is another than the checkpoint says."""
    if begun.torch not in (torch.__version__, None):
        yield f"begun under torch {begun.torch}, goes on under {torch.__version__}: its bits may differ"
    if begun.device not in (device.type, None):
        yield f"begun on {begun.device}, goes on on {device.type}: its bits differ from those of a training that stayed"
