"""Who makes the stages of a run: this process, one after the other, or others such as `tdcompress.cluster.driver`."""

from collections.abc import Sequence
from typing import Protocol

from tdcompress.artifacts import Artifact
from tdcompress.bench.backends import create_backend
from tdcompress.bench.host import Host, read_host
from tdcompress.bench.ready import check_threads
from tdcompress.bench.report import BASELINE_BACKEND
from tdcompress.errors import UserError
from tdcompress.pipeline import Runner, Task
from tdcompress.stages import bench


class Workers(Protocol):
    """Who makes the stages of a run, and the machine that its benchmarks run on."""

    def bench_host(self) -> Host:
        """The machine that benchmarks run on."""

    def bench_problem(self, settings: bench.Settings) -> tuple[str, str] | None:
        """See `bench_problem`, on that machine."""

    def make(self, run: str, tasks: Sequence[Task], runner: Runner) -> dict[str, Artifact]:
        """Make tasks and what they need.

        Args:
            run: the run's name, which this process has claimed.
            tasks: whose results the run needs.
            runner: finds what is there, is told what is made, and says when to stop.

        Returns:
            The artefact of each task, by key.
        """


class Here:
    """This process makes them, one after the other."""

    def bench_host(self) -> Host:
        """See `Workers`."""
        return read_host()

    def bench_problem(self, settings: bench.Settings) -> tuple[str, str] | None:
        """See `Workers`."""
        return bench_problem(settings)

    def make(self, run: str, tasks: Sequence[Task], runner: Runner) -> dict[str, Artifact]:
        """See `Workers`."""
        return {task.key: runner.ensure(task) for task in tasks}


HERE = Here()


def bench_problem(settings: bench.Settings) -> tuple[str, str] | None:
    """Load every runtime once, as the benchmark will; the engine compiles its kernels here if it has to.

    Returns:
        The recipe's key that this machine cannot do, and why; or None.
    """
    for threads in settings.threads:
        try:
            check_threads(threads)
        except UserError as error:
            return "bench.threads", str(error)
    for backend in dict.fromkeys((BASELINE_BACKEND, *settings.backend)):
        try:
            create_backend(backend, settings.provider, threads=1)
        except UserError as error:
            return ("bench.provider" if "provider" in str(error) else "bench.backend"), str(error)
    return None
