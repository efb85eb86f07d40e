"""How runs are executed: what people choose beside a recipe, and what a process tells and is told meanwhile."""

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tdcompress.errors import UserError
from tdcompress.files import StrPath
from tdcompress.pipeline import Crew, Machine, Runner, Waiting, Watcher
from tdcompress.runs.rows import versions
from tdcompress.runs.workers import HERE, Workers
from tdcompress.stores.place import open_store
from tdcompress.stores.store import Store


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a run or a campaign is executed. No key hashes any of it.

    Attributes:
        root: the artifacts folder, or "s3://bucket/prefix": then a folder of this machine is its cache.
        device: where to train; see ``runs.run.find_device``.
        watcher: told about each stage, from several threads if several make stages.
        should_stop: the number of a signal that asks the process to end, or None.
        workers: make the stages of a run.
        crew: other processes that help to train; see ``runs.crew``. None = this one is alone.
        waiting: told while another process has a run, or makes a stage of it; None = that is an error.
        command: what starts the same again, for ``tdcompress status``.
    """

    root: StrPath
    device: str
    watcher: Watcher
    should_stop: Callable[[], int | None] = lambda: None
    workers: Workers = HERE
    crew: Crew | None = None
    waiting: Waiting | None = None
    command: str = "run its recipe again"

    def open_store(self) -> Store:
        """The store at ``root``.

        Raises:
            UserError: torchrun started several processes, and none leads: each would make the whole run.
        """
        if self.crew is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                "started as several processes (torchrun), each of which would make the whole run: "
                "start torchrun -m tdcompress run, or call this in one process"
            )
        return open_store(self.root)

    def runner(self, store: Store, places: Mapping[str, Path]) -> Runner:
        """What makes tasks this way.

        Args:
            store: as ``open_store`` gives it.
            places: see ``pipeline.Machine``.
        """
        return Runner(
            store=store,
            watcher=self.watcher,
            facts=_facts(),
            machine=Machine(device=self.device, places=places),
            should_stop=self.should_stop,
            crew=self.crew,
            waiting=self.waiting,
        )


@cache
def _facts() -> Mapping[str, Any]:
    """Versions and host, for manifests; read once, as what is installed takes 30 ms to look up and workers make many stages."""
    return {"versions": versions(), "host": {"system": platform.platform(), "machine": platform.machine()}}
