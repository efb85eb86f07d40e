"""What a Ray cluster adds to each stage: a sweep of 200 stages that only sleep, on 1, 2 and 4 workers of this machine.

Everything but the stages' work is real: planning order, Ray, locks, publishing, progress. The stages sleep, so more workers than
cores are no problem. The overhead of a stage is the time that workers spent on neither: (wall time x workers - sleep) / stages.
For comparison the same sweep without sleep in one process, which is what keys, locks and publishing cost alone.

    python benchmarks/cluster_overhead.py
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from counts import at_least

from tdcompress.cluster import remote
from tdcompress.cluster.driver import Cluster
from tdcompress.cluster.nodes import NodeNeeds
from tdcompress.files import write_text
from tdcompress.pipeline import Runner, Stage, Task, Workspace
from tdcompress.processor import read_processor
from tdcompress.runs.unfinished import claim_run
from tdcompress.runs.workers import HERE, Workers
from tdcompress.stores.folder import FolderStore

CHAIN = ("train", "prune", "shrink", "export", "check")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What stands for a stage's work: ``number`` tells stages apart."""

    number: int
    seconds: float


def run(settings: Settings, work: Workspace) -> dict[str, Any]:
    """Sleep as long as the work would take."""
    write_text(work.folder / "out", str(settings.number))
    work.progress.update(0, 1, "asleep")
    time.sleep(settings.seconds)
    return {"number": settings.number}


STAGE = Stage(name="simulated", version=1, settings=Settings, run=run)
make_stage = remote.make_stage


def make_simulated(call: str, number: str, board: Any) -> str:
    """As `remote.make_stage`, in a worker that knows the simulated stage."""
    from tdcompress.stages import STAGES  # here: what a script imports at its top reaches the worker as a copy

    STAGES[STAGE.name] = STAGE
    return make_stage(call, number, board)


class Silent:
    """A watcher that nobody listens to."""

    def started(self, task: Task) -> "Silent":
        """A stage begins."""
        return self

    def update(self, done: float, total: float, text: str) -> None:
        """How far it is."""

    def finished(self, task: Task, artifact: Any, seconds: float) -> None:
        """It was made."""

    def reused(self, task: Task, artifact: Any) -> None:
        """It was there."""

    def left(self, task: Task) -> None:
        """It ended without a result."""


class Limited(Cluster):
    """A cluster of this machine alone that makes ``count`` stages at a time: each takes its share of all CPUs."""

    def __init__(self, place: Path, cpus: int, count: int) -> None:
        super().__init__(place, None, lambda line: None)
        self._share = cpus // count

    def needs(self, task: Task, device: str) -> NodeNeeds:
        """What a stage takes."""
        return NodeNeeds(cpus=self._share)


def sweep(rows: int, seconds: float) -> list[Task]:
    """Rows of a sweep: a chain of stages each, the first three times as long as the others."""
    tasks: list[Task] = []
    share = seconds * len(CHAIN) / (len(CHAIN) + 2)
    for row in range(rows):
        before: dict[str, Task] = {}
        for place, name in enumerate(CHAIN):
            settings = Settings(number=row * len(CHAIN) + place, seconds=share * (3 if place == 0 else 1))
            task = Task(stage=STAGE, settings=settings, inputs=before, title=f"{name} {row}")
            tasks.append(task)
            before = {"network": task}
    return tasks


def timed(workers: Callable[[Path], Workers], tasks: Sequence[Task]) -> float:
    """Seconds that it takes to make tasks in an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        runner = Runner(store=store, watcher=Silent(), facts={})
        with claim_run(store, "sweep"):
            start = time.perf_counter()
            workers(store.root).make("sweep", tasks, runner)
            return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=at_least(1), default=40, help=f"of {len(CHAIN)} stages")
    parser.add_argument("--seconds", type=float, default=0.1, help="that a stage sleeps, on average")
    parser.add_argument("--workers", type=at_least(1), nargs="+", default=[1, 2, 4])
    args = parser.parse_args()
    remote.make_stage = make_simulated
    tasks = sweep(args.rows, args.seconds)
    asleep = sum(task.settings.seconds for task in tasks)
    print(f"{read_processor().name}; {len(tasks)} stages that sleep {asleep:.1f} s in all")
    alone = timed(lambda place: HERE, sweep(args.rows, 0.0))
    print(f"one process, no sleep: {1000 * alone / len(tasks):.1f} ms a stage")
    most = max(args.workers)
    ray.init("local", num_cpus=most, include_dashboard=False, object_store_memory=100 * 2**20, logging_level=logging.WARNING)
    timed(partial(Limited, cpus=most, count=most), sweep(4 * most, 0.1))  # workers start, and import torch
    for count in args.workers:
        wall = timed(partial(Limited, cpus=most, count=count), tasks)
        added = 1000 * (wall * count - asleep) / len(tasks)
        print(
            f"{count} workers: {wall:.1f} s of at least {asleep / count:.1f} s; {added:.0f} ms of a worker added to each stage, "
            f"{1000 * wall / len(tasks):.0f} ms from one stage to the next",
            flush=True,
        )
    empty = ray.remote(max_retries=0)(remote.node_name)
    ray.get(empty.remote())
    start = time.perf_counter()
    for _ in tasks:
        ray.get(empty.remote())
    print(f"an empty Ray task, one after the other: {1000 * (time.perf_counter() - start) / len(tasks):.1f} ms")
    ray.shutdown()


if __name__ == "__main__":
    main()
