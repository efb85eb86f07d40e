"""What Ray runs on the nodes of a cluster: tasks, and the board on which workers and driver leave word. Strings are JSON.

A worker imports this file first, and nothing of torch with it: how OpenMP's threads wait has to be said before that, as
`tdcompress.cli` does.
"""

import json
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from tdcompress.codec import decode_json, encode

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
_ANSWER_SECONDS = 30.0


class Board:
    """Where workers say what is new, and where the driver says when to stop; one actor for a run."""

    def __init__(self) -> None:
        self._news: list[tuple[str, str, tuple[Any, ...]]] = []
        self._began: set[str] = set()
        self._stop: int | None = None

    def say(self, call: str, node: str, news: Sequence[tuple[Any, ...]]) -> int | None:
        """Leave news of a call.

        Args:
            call: its number.
            node: where it is made.
            news: see `tdcompress.cluster.worker.News`.

        Returns:
            The number of the signal by which the driver asks to stop, or None.
        """
        self._began.add(call)
        self._news += [(call, node, each) for each in news]
        return self._stop

    def news(self) -> list[tuple[str, str, tuple[Any, ...]]]:
        """(call, node, news) since the last time."""
        news, self._news = self._news, []
        return news

    def stop(self, signal_number: int) -> set[str]:
        """Ask all calls to stop.

        Returns:
            The calls that have begun; others hear it before they begin.
        """
        self._stop = signal_number
        return self._began


def make_stage(call: str, number: str, board: Any) -> str:
    """Make a stage; see `tdcompress.cluster.worker.make`.

    Args:
        call: a `tdcompress.cluster.calls.StageCall`.
        number: of the call.
        board: the handle of the `Board`.

    Returns:
        A `tdcompress.cluster.calls.Reply`.
    """
    from tdcompress.cluster.calls import StageCall
    from tdcompress.cluster.worker import make

    node = node_name()

    def told(news: Sequence[tuple[Any, ...]]) -> int | None:
        try:
            stop: int | None = ray.get(board.say.remote(number, node, list(news)), timeout=_ANSWER_SECONDS)
        except GetTimeoutError:
            return None  # a driver that is busy; it may say so with the next beat
        except RayError:
            return signal.SIGTERM  # it is gone
        return stop

    # On its main thread a task that waits for Ray gives its CPUs away: the next task would start beside this one.
    with ThreadPoolExecutor(max_workers=1) as aside:
        return json.dumps(encode(make(decode_json(StageCall, call), node, lambda news: aside.submit(told, news).result())))


def bench_host() -> str:
    """This machine, as a `tdcompress.bench.host.Host`."""
    from tdcompress.bench.host import read_host

    return json.dumps(encode(read_host()))


def bench_problem_here(settings: str) -> str:
    """See `tdcompress.runs.workers.bench_problem`."""
    from tdcompress.runs import workers
    from tdcompress.stages import bench

    return json.dumps(workers.bench_problem(decode_json(bench.Settings, settings)))


def node_name() -> str:
    """What people call this machine."""
    from tdcompress.cluster.nodes import name_of

    return name_of(os.uname().nodename, ray.get_runtime_context().get_node_id())
