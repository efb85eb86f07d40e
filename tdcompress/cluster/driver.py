"""A run on a Ray cluster: this process plans, claims and lays out; each stage is a Ray task on whichever node has room for it.

Artefacts, claims and checkpoints lie in a store that all nodes see, so what is lost with a node is at most what one stage did
since its last checkpoint. Only JSON crosses; see `tdcompress.cluster.calls`.
"""

import itertools
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import ray
from ray import exceptions as ray_errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tdcompress.artifacts import Artifact
from tdcompress.bench.host import Host
from tdcompress.cluster import remote
from tdcompress.cluster.address import first_sentence, knock, refusal
from tdcompress.cluster.calls import Reply, StageCall, describe_task
from tdcompress.cluster.nodes import ClusterNode, NodeNeeds, choose_device, find_named, listed, needs_of, read_node
from tdcompress.cluster.schedule import Done, Ending, Failed, Lost, make_all
from tdcompress.cluster.sight import seen
from tdcompress.codec import Json, decode, decode_json, encode, parse_json
from tdcompress.errors import InterruptedRun, TdcompressError, UnsupportedError, UserError
from tdcompress.files import StrPath
from tdcompress.pipeline import Progress, Runner, Task
from tdcompress.stages import bench
from tdcompress.stores.place import is_url

_MOMENT_SECONDS = 0.2
_HEAD = {"node:__internal_head__": 0.001}  # without the head there is no cluster, so what runs there is not lost alone
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_LOST = (
    ray_errors.WorkerCrashedError,
    ray_errors.NodeDiedError,
    ray_errors.LocalRayletDiedError,
    ray_errors.OutOfMemoryError,
    ray_errors.ObjectLostError,
)


@contextmanager
def connected(address: str, place: StrPath, bench_node: str | None, say: Callable[[str], None]) -> Iterator["Cluster"]:
    """A cluster that runs, for as long as the block does.

    Args:
        address: "ray" = the one that this machine is a node of; "ray://host:port" = one that it is not a node of.
        place: see ``Cluster``.
        bench_node: see ``Cluster``.
        say: told what people should read.

    Raises:
        UnsupportedError: there is none, or it has other versions of Ray or Python, or it asks for a token.
    """
    # Ray prints what its nodes complain of, `log_to_driver` or not, unless this is off, as in its own debugger.
    ray._private.worker._worker_logs_enabled = False
    try:
        knock(address)
        with warnings.catch_warnings(action="ignore"):  # what Ray warns of before it raises
            ray.init("auto" if address == "ray" else address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ImportError, RuntimeError, ValueError, ray_errors.RayError) as error:
        raise UnsupportedError(f"--cluster {address}: {refusal(error, address)}") from None
    try:
        yield Cluster(place, bench_node, say)
    finally:
        ray.shutdown()


class Cluster:
    """The nodes of the cluster that this process is connected to, as `tdcompress.runs.workers.Workers`.

    Args:
        place: of the store, a folder or an URL.
        bench_node: host name, address or beginning of the id of the node that benchmarks run on; None = this machine.
        say: told what people should read.
    """

    def __init__(self, place: StrPath, bench_node: str | None, say: Callable[[str], None]) -> None:
        self._place = str(place) if is_url(place) else str(Path(place).resolve())
        self._asked, self._say = bench_node, say
        self.nodes = tuple(read_node(each) for each in ray.nodes() if each["Alive"])
        cpus, gpus = sum(node.cpus for node in self.nodes), sum(node.gpus for node in self.nodes)
        say(f"Ray cluster: {len(self.nodes)} nodes, {cpus} CPUs, {gpus} GPUs")

    def device(self, asked: str) -> str:
        """What trainings run on; see `choose_device`."""
        return choose_device(self.nodes, asked)

    @cached_property
    def bench_node(self) -> ClusterNode:
        """The node that benchmarks run on.

        Raises:
            UserError: none or several are named so; or none is named, and this machine is no node.
        """
        if self._asked is not None:
            return find_named(self.nodes, self._asked)
        if ray.util.client.ray.is_connected():
            raise UserError(
                f"--bench-node: name the node that measures latencies, as this machine is none; there are {listed(self.nodes)}"
            )
        here = ray.get_runtime_context().get_node_id()
        return next(node for node in self.nodes if node.id == here)

    def bench_host(self) -> Host:
        """See `Workers`: that machine as it sees itself."""
        return decode(Host, self._on_bench_node(remote.bench_host))

    def bench_problem(self, settings: bench.Settings) -> tuple[str, str] | None:
        """See `Workers`."""
        problem = self._on_bench_node(remote.bench_problem_here, json.dumps(encode(settings)))
        return None if problem is None else decode(tuple[str, str], problem)

    def make(self, run: str, tasks: Sequence[Task], runner: Runner) -> dict[str, Artifact]:
        """See `Workers`: made on all nodes, as `make_all` has it."""
        for task in tasks:
            if runner.find(task) is None:
                self.needs(task, runner.machine.device)  # refused now, not after hours
        stages = _Stages(partial(self._call, run, runner), partial(self.needs, device=runner.machine.device), runner)
        make_all(tasks, runner, stages, lambda task, why: self._say(f"lost  {task.title}: {why}; it goes on elsewhere"))
        return {task.key: seen(runner.store, task) for task in tasks}

    def needs(self, task: Task, device: str) -> NodeNeeds:
        """What a task takes of a node; see `needs_of`."""
        return needs_of(task, device, self.nodes, lambda: self.bench_node)

    def _call(self, run: str, runner: Runner, task: Task, needs: NodeNeeds) -> StageCall:
        return StageCall(
            place=self._place,
            run=run,
            tasks=describe_task(task),
            device="cuda" if needs.gpus else "cpu",
            places={content: str(place.resolve()) for content, place in runner.machine.places.items()},
            threads=max(1, needs.cpus),
        )

    def _on_bench_node(self, function: Callable[..., str], *arguments: str) -> Json:
        node = self.bench_node
        task = ray.remote(num_cpus=0, max_retries=0)(function).options(scheduling_strategy=_only(node))
        try:
            return parse_json(ray.get(task.remote(*arguments)))
        except ray_errors.RayError as error:
            unasked = TdcompressError(f"node {node.name}: cannot be asked about benchmarks: {first_sentence(error)}")
            raise _lacking(error) or unasked from error


class _Stages:
    """The stages of one run that are out on the nodes; a `tdcompress.cluster.schedule.Executor`.

    Args:
        call: what a worker is told of a task.
        needs: what a task takes of a node.
        runner: told what becomes of each.
    """

    def __init__(self, call: Callable[[Task, NodeNeeds], StageCall], needs: Callable[[Task], NodeNeeds], runner: Runner) -> None:
        self._call, self._needs, self._runner = call, needs, runner
        self._board = ray.remote(num_cpus=0, resources=_HEAD)(remote.Board).remote()
        self._make = ray.remote(max_retries=0)(remote.make_stage)
        self._make_on_gpu = ray.remote(max_retries=0, max_calls=1)(remote.make_stage)  # what a process took there goes with it
        self._numbers = map(str, itertools.count())
        self._out: dict[Any, tuple[str, Task]] = {}  # by what Ray gives for a task that is out
        self._bars: dict[str, Progress] = {}  # by the number of a call that has begun
        self._stopped_by = 0

    def submit(self, task: Task) -> None:
        """See `Executor`."""
        needs, number = self._needs(task), next(self._numbers)
        function = (self._make_on_gpu if needs.gpus else self._make).options(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            scheduling_strategy="DEFAULT" if needs.node is None else _only(needs.node),
            name=f"{task.stage.name} {task.key}",
        )
        self._out[function.remote(json.dumps(encode(self._call(task, needs))), number, self._board)] = number, task

    def ended(self) -> list[tuple[Task, Ending]]:
        """See `Executor`; shows what else is new."""
        ended, rest = ray.wait(list(self._out), num_returns=1, timeout=_MOMENT_SECONDS)
        if ended and rest:
            ended += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        self._show(self._ask(self._board.news))  # after that: what a call said before it ended
        return [self._taken_in(ref) for ref in ended]

    def stop(self, signal_number: int) -> None:
        """See `Executor`."""
        self._stopped_by = signal_number
        began = self._ask(self._board.stop, signal_number)
        for ref, (number, _) in self._out.items():
            if number not in began:
                ray.cancel(ref)

    def _taken_in(self, ref: Any) -> tuple[Task, Ending]:
        """What became of a task that is out no more; it has a bar still if it was made here and now, and else none."""
        number, task = self._out.pop(ref)
        ending = self._ending_of(ref, task)
        shown = self._bars.pop(number, None) is not None
        made = isinstance(ending, Done) and ending.seconds is not None
        if made and not shown:
            self._runner.watcher.started(task)
        if shown and not made:
            self._runner.watcher.left(task)
        return task, ending

    def _ending_of(self, ref: Any, task: Task) -> Ending:
        try:
            reply = decode_json(Reply, ray.get(ref))
        except ray_errors.TaskCancelledError:
            return Failed(error=InterruptedRun("stopped before it began", self._stopped_by))
        except _LOST as error:
            return Lost(why=first_sentence(error))
        except ray_errors.RayTaskError as error:
            lacking = _lacking(error)
            return Failed(error=error if lacking is None else lacking)  # a fault of ours shows where
        except ray_errors.RayError as error:
            return Failed(error=TdcompressError(f"{task.title}: {first_sentence(error)}"))
        if reply.problem is not None:
            return Failed(error=reply.problem.error())
        artifact = Artifact(
            stage=task.stage.name,
            version=task.stage.version,
            key=task.key,
            folder=self._runner.store.root / "stages" / task.stage.name / task.key,
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
                case ("progress", done, total, text) if number in self._bars:
                    self._bars[number].update(done, total, f"{text}  {node}")
                case ("waiting", what, seconds) if self._runner.waiting is not None:
                    self._runner.waiting(what, seconds)

    def _ask(self, method: Any, *arguments: Any) -> Any:
        try:
            return ray.get(method.remote(*arguments))
        except ray_errors.RayActorError as error:
            lost = TdcompressError(f"the cluster lost what the run's driver and workers talk by: {first_sentence(error)}")
            raise _lacking(error) or lost from None


def _only(node: ClusterNode) -> NodeAffinitySchedulingStrategy:
    """There and nowhere else."""
    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def _lacking(error: Exception) -> UserError | None:
    """What to say where a node has not installed what is needed; None where that is not what Ray says."""
    found = _NO_MODULE.search(str(error))
    if found is None:
        return None
    return UserError(f"a node of the cluster has no {found[1]}: pip install '.[train,cluster]' of the same checkout on all nodes")
