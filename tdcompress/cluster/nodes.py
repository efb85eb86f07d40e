"""The machines of a cluster, and what a stage takes of one while it is made. Knows no Ray."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tdcompress.errors import UnsupportedError, UserError
from tdcompress.pipeline import Task
from tdcompress.stages import bench, train


@dataclass(frozen=True, kw_only=True)
class ClusterNode:
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
        return name_of(self.host, self.id)


@dataclass(frozen=True, kw_only=True)
class NodeNeeds:
    """What a stage takes of a node while it is made.

    Attributes:
        cpus: threads that it computes with.
        gpus: 1 or 0.
        node: the only one that will do, or None.
    """

    cpus: int
    gpus: int = 0
    node: ClusterNode | None = None


def name_of(host: str, node: str) -> str:
    """What people call a node: its host name, and the beginning of the id that Ray gave it."""
    return f"{host} ({node[:8]})"


def read_node(found: dict[str, Any]) -> ClusterNode:
    """A node as Ray lists it."""
    has = found["Resources"]
    return ClusterNode(
        id=found["NodeID"],
        host=found["NodeManagerHostname"],
        address=found["NodeManagerAddress"],
        cpus=int(has.get("CPU", 0)),
        gpus=int(has.get("GPU", 0)),
    )


def find_named(nodes: Sequence[ClusterNode], asked: str) -> ClusterNode:
    """The node of ``--bench-node``.

    Args:
        nodes: of the cluster.
        asked: host name, address, or the beginning of the id.

    Raises:
        UserError: none or several are named so.
    """
    found = [node for node in nodes if asked in (node.host, node.address) or node.id.startswith(asked)]
    if len(found) != 1:
        raise UserError(f"--bench-node {asked}: {len(found)} nodes are named so; there are {listed(nodes)}")
    return found[0]


def listed(nodes: Sequence[ClusterNode]) -> str:
    """Names of nodes, for messages."""
    return ", ".join(node.name for node in nodes)


def choose_device(nodes: Sequence[ClusterNode], asked: str) -> str:
    """What trainings run on: "auto" takes GPUs where any node has one.

    Raises:
        UnsupportedError: GPUs are asked for and no node has one.
    """
    some = any(node.gpus for node in nodes)
    if asked == "cuda" and not some:
        raise UnsupportedError("--device cuda: no node of the cluster has a GPU that Ray knows of; use --device cpu")
    return "cpu" if asked == "cpu" or not some else "cuda"


def needs_of(task: Task, device: str, nodes: Sequence[ClusterNode], bench_node: Callable[[], ClusterNode]) -> NodeNeeds:
    """What a task takes of a node.

    A stage that trains takes a CPU for each of its threads, and a GPU where there are some. A benchmark takes all CPUs of its
    node, so that it runs alone there.

    Args:
        task: a stage, its settings and inputs.
        device: "cpu" or "cuda".
        nodes: of the cluster.
        bench_node: the node that benchmarks run on; asked for these alone.

    Raises:
        UserError: more than any node has.
    """
    if task.stage is bench.STAGE:
        node = bench_node()
        return NodeNeeds(cpus=node.cpus, node=node)
    if not task.stage.joint:
        return NodeNeeds(cpus=1)
    threads = max(1, _training(task).train.threads)
    gpus = int(device == "cuda")
    if not any(node.cpus >= threads and node.gpus >= gpus for node in nodes):
        what = f"{threads} CPUs" + " and a GPU" * gpus
        raise UserError(f"{task.title}: no node of the cluster has {what} for it; lower train.threads")
    return NodeNeeds(cpus=threads, gpus=gpus)


def _training(task: Task) -> train.Settings:
    """What the training of a network depends on, however far back it is."""
    while not isinstance(task.settings, train.Settings):
        task = next(iter(task.inputs.values()))
    return task.settings
