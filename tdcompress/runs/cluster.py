"""A run on a Ray cluster: this process plans, locks and lays out; each stage is a Ray task on whichever node has room for it.

Artefacts, locks and checkpoints lie in a folder that all nodes share, so what is lost with a node is at most what one stage did
since its last checkpoint. Only JSON crosses; see `tdcompress.runs.calls`.
"""

import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray import exceptions as ray_errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tdcompress.artifacts import Artifact
from tdcompress.bench.host import Host
from tdcompress.codec import Json, decode, encode
from tdcompress.errors import InterruptedRun, TdcompressError, UnsupportedError, UserError, one_line
from tdcompress.pipeline import Progress, Runner, Task
from tdcompress.runs import remote
from tdcompress.runs.calls import Call, Reply, describe
from tdcompress.runs.schedule import Done, Failed, Lost, Outcome, make_all
from tdcompress.runs.shared import seen, token
from tdcompress.stages import bench, train

_MOMENT_SECONDS = 0.2
_LOST = (
    ray_errors.WorkerCrashedError,
    ray_errors.NodeDiedError,
    ray_errors.LocalRayletDiedError,
    ray_errors.OutOfMemoryError,
    ray_errors.ObjectLostError,
)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: that Ray gave it.
        host: its host name.
        address: its IP address.
        cpus: that Ray may use.
        gpus: that Ray may use.
    """

    id: str
    host: str
    address: str
    cpus: int
    gpus: int

    @property
    def name(self) -> str:
        """What people call it."""
        return remote.name_node(self.host, self.id)

    @property
    def only(self) -> NodeAffinitySchedulingStrategy:
        """Here and nowhere else."""
        return NodeAffinitySchedulingStrategy(self.id, soft=False)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a stage takes of a node while it is made.

    Attributes:
        cpus: threads that it computes with.
        gpus: 1 or 0.
        node: the only one that will do, or None.
    """

    cpus: int
    gpus: int = 0
    node: Node | None = None


@contextmanager
def connected(address: str, bench_node: str | None, say: Callable[[str], None]) -> Iterator["Cluster"]:
    """A cluster that runs, for as long as the block does.

    Args:
        address: "ray" = the one that this machine is a node of; "ray://host:port" = one that it is not a node of.
        bench_node: see ``Cluster``.
        say: told what people should read.

    Raises:
        UnsupportedError: there is none.
    """
    options: dict[str, Any] = {
        "address": "auto" if address == "ray" else address,
        "logging_level": logging.WARNING,
        "log_to_driver": False,
    }
    try:
        ray.init(**options)
    except (ConnectionError, ImportError, TimeoutError, RuntimeError) as error:
        advice = "start one with: ray start --head" if address == "ray" else "is its head running, and that port open?"
        raise UnsupportedError(f"--cluster {address}: no Ray cluster answers ({_line(error)}); {advice}") from None
    try:
        yield Cluster(bench_node, say)
    finally:
        ray.shutdown()


class Cluster:
    """Makes the stages of a run on the nodes of the cluster that this process is connected to.

    Args:
        bench_node: host name, address or beginning of the id of the node that benchmarks run on; None = this machine.
        say: told what people should read.
    """

    def __init__(self, bench_node: str | None, say: Callable[[str], None]) -> None:
        self._asked, self._say = bench_node, say
        self.nodes = tuple(_node(each) for each in ray.nodes() if each["Alive"])  # type: ignore[no-untyped-call]
        cpus, gpus = sum(node.cpus for node in self.nodes), sum(node.gpus for node in self.nodes)
        say(f"Ray cluster: {len(self.nodes)} nodes, {cpus} CPUs, {gpus} GPUs")

    def device(self, asked: str) -> str:
        """What trainings run on: "auto" takes GPUs where any node has one.

        Raises:
            UnsupportedError: GPUs are asked for and no node has one.
        """
        some = any(node.gpus for node in self.nodes)
        if asked == "cuda" and not some:
            raise UnsupportedError("--device cuda: no node of the cluster has a GPU that Ray knows of; use --device cpu")
        return "cpu" if asked == "cpu" or not some else "cuda"

    @cached_property
    def bench_node(self) -> Node:
        """The node that benchmarks run on.

        Raises:
            UserError: none or several are named so; or none is named, and this machine is no node.
        """
        names = ", ".join(node.name for node in self.nodes)
        if self._asked is None:
            if _visiting():
                raise UserError(
                    f"--bench-node: name the node that measures latencies, as this machine is none; there are {names}"
                )
            here = ray.get_runtime_context().get_node_id()
            return next(node for node in self.nodes if node.id == here)
        found = [node for node in self.nodes if self._asked in (node.host, node.address) or node.id.startswith(self._asked)]
        if len(found) != 1:
            raise UserError(f"--bench-node {self._asked}: {len(found)} nodes are named so; there are {names}")
        return found[0]

    def bench_host(self) -> Host:
        """The machine that benchmarks run on, as it sees itself."""
        return decode(Host, self._on_bench_node(remote.bench_host))

    def bench_problem(self, settings: bench.Settings) -> tuple[str, str] | None:
        """See `tdcompress.runs.checks.bench_problem`, on that machine."""
        problem = self._on_bench_node(remote.bench_problem, json.dumps(encode(settings)))
        return None if problem is None else (problem[0], problem[1])

    def make(self, tasks: Sequence[Task], runner: Runner) -> None:
        """Make tasks, and what they need, on all nodes; see `tdcompress.runs.schedule.make_all`."""
        for task in tasks:
            if runner.find(task) is None:
                self.needs(task, runner.machine.device)  # refused now, not after hours
        with token(runner.store.root.resolve()) as held:
            stages = _Stages(self, runner, held)
            make_all(tasks, runner, stages, lambda task, why: self._say(f"lost  {task.title}: {why}; it goes on elsewhere"))
            for task in stages.made:
                seen(runner.store, task, os.uname().nodename)

    def needs(self, task: Task, device: str) -> Needs:
        """What a task takes of a node.

        A training takes a CPU for each of its threads, and a GPU where there are some. A benchmark takes all CPUs of its node, so
        that it runs alone there.

        Raises:
            UserError: more than any node has.
        """
        if task.stage is bench.STAGE:
            return Needs(cpus=self.bench_node.cpus, node=self.bench_node)
        if not task.stage.joint:
            return Needs(cpus=1)
        threads = max(1, _training(task).train.threads)
        gpus = int(device == "cuda")
        if not any(node.cpus >= threads and node.gpus >= gpus for node in self.nodes):
            what = f"{threads} CPUs" + " and a GPU" * gpus
            raise UserError(f"{task.title}: no node of the cluster has {what} for it; lower train.threads")
        return Needs(cpus=threads, gpus=gpus)

    def _on_bench_node(self, function: Callable[..., str], *arguments: str) -> Json:
        node = self.bench_node
        task = ray.remote(num_cpus=0, max_retries=0)(function).options(scheduling_strategy=node.only)
        try:
            return json.loads(ray.get(task.remote(*arguments)))
        except ray_errors.RayError as error:
            raise TdcompressError(f"node {node.name}: cannot be asked about benchmarks: {_line(error)}") from error


class _Stages:
    """The stages of one run that are out on the nodes; a `tdcompress.runs.schedule.Executor`.

    Attributes:
        made: what came back.
    """

    def __init__(self, cluster: Cluster, runner: Runner, held: Path) -> None:
        self.made: list[Task] = []
        self._cluster, self._runner, self._held = cluster, runner, held
        self._board = _near(ray.remote(num_cpus=0)(remote.Board)).remote()
        self._make = ray.remote(max_retries=0)(remote.make_stage)
        self._make_on_gpu = ray.remote(max_retries=0, max_calls=1)(remote.make_stage)  # what a process took there goes with it
        self._numbers = map(str, itertools.count())
        self._out: dict[Any, tuple[str, Task]] = {}  # by what Ray gives for a task that is out
        self._bars: dict[str, Progress] = {}  # by the number of a call that has begun
        self._stopped_by: int | None = None

    def submit(self, task: Task) -> None:
        """See `Executor`."""
        machine = self._runner.machine
        needs = self._cluster.needs(task, machine.device)
        call = Call(
            root=str(self._runner.store.root.resolve()),
            token=str(self._held),
            tasks=describe(task),
            device="cuda" if needs.gpus else "cpu",
            places={content: str(place.resolve()) for content, place in machine.places.items()},
            threads=max(1, needs.cpus),
        )
        number = next(self._numbers)
        function = (self._make_on_gpu if needs.gpus else self._make).options(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            scheduling_strategy="DEFAULT" if needs.node is None else needs.node.only,
            name=f"{task.stage.name} {task.key}",
        )
        self._out[function.remote(json.dumps(encode(call)), number, self._board)] = number, task

    def ended(self) -> list[tuple[Task, Outcome]]:
        """See `Executor`; shows what else is new."""
        ended, rest = ray.wait(list(self._out), num_returns=1, timeout=_MOMENT_SECONDS)
        if ended and rest:
            ended += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        self._show(self._ask(self._board.news))  # after that: what a call said before it ended
        found = []
        for ref in ended:
            number, task = self._out.pop(ref)
            outcome = self._outcome(ref, task)
            bar = self._bars.pop(number, None)
            if isinstance(outcome, Done):
                self.made.append(task)
            if bar is not None and not (isinstance(outcome, Done) and outcome.seconds is not None):
                self._runner.watcher.left(task)
            found.append((task, outcome))
        return found

    def stop(self, signal_number: int) -> None:
        """See `Executor`."""
        self._stopped_by = signal_number
        began = self._ask(self._board.stop, signal_number)
        for ref, (number, _) in self._out.items():
            if number not in began:
                ray.cancel(ref)

    def _outcome(self, ref: Any, task: Task) -> Outcome:
        try:
            reply = decode(Reply, json.loads(ray.get(ref)))
        except ray_errors.TaskCancelledError:
            return Failed(error=InterruptedRun("stopped before it began", self._stopped_by or 0))
        except _LOST as error:
            return Lost(why=_line(error))
        except ray_errors.RayTaskError as error:
            return Failed(error=error)  # a fault of ours: it shows where
        except ray_errors.RayError as error:
            return Failed(error=TdcompressError(f"{task.title}: {_line(error)}"))
        if reply.problem is not None:
            return Failed(error=reply.problem.error())
        artifact = Artifact(
            stage=task.stage.name,
            key=task.key,
            folder=self._runner.store.folder(task.stage.name, task.key),
            settings=encode(task.settings),
            inputs={role: needed.key for role, needed in task.inputs.items()},
            record=reply.record,
            files=reply.files or {},
        )
        return Done(artifact=artifact, seconds=reply.seconds)

    def _show(self, news: Sequence[tuple[str, str, tuple[Any, ...]]]) -> None:
        tasks = dict(self._out.values())
        for number, node, said in news:
            if number not in tasks:
                continue  # of a worker that is lost
            match said:
                case ("started",):
                    self._bars[number] = self._runner.watcher.started(tasks[number])
                case ("progress", done, total, text):
                    self._bars[number].update(done, total, f"{text}  {node}")
                case ("waiting", what, seconds) if self._runner.waiting is not None:
                    self._runner.waiting(what, seconds)

    def _ask(self, method: Any, *arguments: Any) -> Any:
        try:
            return ray.get(method.remote(*arguments))
        except ray_errors.RayActorError as error:
            raise TdcompressError(f"the cluster lost what the run's driver and workers talk by: {_line(error)}") from None


def _near(actor: Any) -> Any:
    """An actor that lives and dies with the machine of this process, where that is a node."""
    if _visiting():
        return actor
    return actor.options(scheduling_strategy=NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False))


def _node(found: dict[str, Any]) -> Node:
    has = found["Resources"]
    return Node(
        id=found["NodeID"],
        host=found["NodeManagerHostname"],
        address=found["NodeManagerAddress"],
        cpus=int(has.get("CPU", 0)),
        gpus=int(has.get("GPU", 0)),
    )


def _training(task: Task) -> train.Settings:
    """What the training of a network depends on, however far back it is."""
    while not isinstance(task.settings, train.Settings):
        task = next(iter(task.inputs.values()))
    return task.settings


def _visiting() -> bool:
    """Whether this process talks to a cluster through ``ray://``, as a machine does that is no node of it."""
    return bool(ray.util.client.ray.is_connected())  # type: ignore[no-untyped-call]


def _line(error: BaseException) -> str:
    """The first sentence of what Ray says: it says a lot."""
    return one_line(error).partition(". ")[0].rstrip(".")
