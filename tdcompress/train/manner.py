"""How a training runs on the machine at hand, settled once when it starts: precision and threads. It says how and not what."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tdcompress.processor import read_processor
from tdcompress.train.data import TrainSet
from tdcompress.train.distributed import World
from tdcompress.train.evaluate import Precision
from tdcompress.train.precision import PRECISIONS, settle_precision, step_seconds
from tdcompress.train.settings import TrainSettings
from tdcompress.train.threads import computing_with, settle_threads

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Manner:
    """What a training keeps until its end, also on another machine.

    Attributes:
        precision: what the network computes in.
        threads: of a training on a CPU.
        notes: for people: why, and what is another than it was at the start.
    """

    precision: Precision
    threads: int
    notes: tuple[str, ...]

    def header(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        return {"precision": self.precision, "threads": self.threads, "torch": torch.__version__}


def settle(
    settings: TrainSettings,
    begun: Mapping[str, Any] | None,
    model: nn.Module,
    data: TrainSet,
    *,
    device: torch.device,
    world: World,
) -> Manner:
    """Settle it for a training that starts, or take what it began with; the first process decides for all.

    Args:
        settings: the recipe's [train].
        begun: `Manner.header` of the checkpoint that is taken up; None at the start.
        model: the network, on ``device``; used where the precision has to be tried.
        data: training samples, there too.
        device: where to train.
        world: the processes of this training.
    """
    threads = settle_threads(settings.threads, begun["threads"] if begun else None)
    index, notes = 0, tuple[str, ...]()
    if world.first:
        index, notes = _settled(settings, begun, model, data, threads, device, world)
    index, threads = world.first_says((index, threads), device)
    return Manner(precision=PRECISIONS[index], threads=threads, notes=notes)


def _settled(
    settings: TrainSettings,
    begun: Mapping[str, Any] | None,
    model: nn.Module,
    data: TrainSet,
    threads: int,
    device: torch.device,
    world: World,
) -> tuple[int, tuple[str, ...]]:
    """The place of the precision in `PRECISIONS`, and notes."""

    def seconds(precision: Precision) -> float:
        with computing_with(threads, device):
            return step_seconds(model, data.first(settings, world), device=device, precision=precision)

    found = settle_precision(
        settings.precision, begun["precision"] if begun else None, device=device, processor=read_processor(), seconds=seconds
    )
    notes = [found.reason]
    if found.warning:
        _log.warning("train.precision: %s", found.reason)
    if begun is not None and begun["torch"] != torch.__version__:
        notes.append(f"begun under torch {begun['torch']}, goes on under {torch.__version__}: its bits may differ")
        _log.warning("this training was %s", notes[-1])
    return PRECISIONS.index(found.precision), tuple(notes)
