"""DeepSparse, the sparse CPU runtime that readers compare with (its development has ended), in a process of its own.

Its last release needs an onnx that is older than ours, so the two cannot be installed side by side: a child with another
interpreter loads the model and waits for calls.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tdcompress.bench.backends import deepsparse_child
from tdcompress.bench.backends.base import Inputs, require_cpu
from tdcompress.bench.host import DEEPSPARSE_PYTHON as PYTHON
from tdcompress.codec import parse_json
from tdcompress.errors import ModelError, TdcompressError, UnsupportedError, one_line
from tdcompress.npz import write_npz

ADVICE = f"python3.11 -m venv ds && ds/bin/pip install deepsparse==1.8.0 && export {PYTHON}=$PWD/ds/bin/python"
_PINGS = 200


class Child:
    """A process that has DeepSparse imported; it ends when this object does.

    Raises:
        UnsupportedError: no interpreter is named, it does not start, or it has no DeepSparse.
    """

    def __init__(self) -> None:
        interpreter = os.environ.get(PYTHON)
        if not interpreter:
            raise UnsupportedError(
                f"backend 'deepsparse' runs under an interpreter of its own, and {PYTHON} names none: {ADVICE}"
            )
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        try:
            self._process = subprocess.Popen(
                [interpreter, str(deepsparse_child.__file__)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env=environment,
            )
        except OSError as error:
            raise UnsupportedError(
                f"backend 'deepsparse': {PYTHON}={interpreter} does not start ({error.strerror}): {ADVICE}"
            ) from error
        self._end = weakref.finalize(self, _end, self._process)
        answer = self._answer()
        if "error" in answer:
            raise UnsupportedError(
                f"backend 'deepsparse': {PYTHON}={interpreter} has no deepsparse ({answer['error']}): {ADVICE}"
            )
        self.version = str(answer["version"])

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def load(self, path: Path, inputs: Inputs, threads: int) -> float:
        """Compile a model for its inputs.

        Args:
            path: an ONNX file.
            inputs: name -> array (B, ...); the first one says B, the batch that it is compiled for.
            threads: cores that the engine may use, 1 or more.

        Returns:
            The share, 0..1, of the model's operators that DeepSparse runs itself.

        Raises:
            ModelError: DeepSparse cannot compile it.
            TdcompressError: its process is gone.
        """
        with tempfile.TemporaryDirectory(prefix="tdcompress-") as folder:
            stored = Path(folder) / "inputs.npz"
            write_npz(stored, {str(place): array for place, array in enumerate(inputs.values())})
            batch = next(iter(inputs.values())).shape[0]
            job = {"model": str(path.resolve()), "inputs": str(stored), "batch": batch, "threads": threads}
            self._send(json.dumps(job).encode() + b"\n")
            answer = self._answer()
        if "error" in answer:
            raise ModelError(f"{path}: deepsparse cannot load it: {one_line(answer['error'])}")
        return float(answer["fraction"])

    def ask(self, what: bytes) -> None:
        """One call: b"r" runs the model, b"p" only comes back.

        Raises:
            TdcompressError: the model fails, or the process is gone.
        """
        self._send(what)
        assert self._process.stdout is not None
        answer = self._process.stdout.read(1)
        if answer != b".":
            raise TdcompressError(f"deepsparse: {one_line(self._answer()['error'])}")

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except OSError as error:
            raise TdcompressError(f"deepsparse's process ended with status {self._process.wait()}") from error

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            answer: dict[str, Any] = parse_json(line)
        except ValueError:
            return (
                {"error": f"its process ended with status {self._process.wait()}"}
                if not line
                else {"error": line.decode(errors="replace")}
            )
        return answer


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes, which ends a child that waits; one that computes is killed."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class DeepSparseSession:
    """A model that a child holds, with its inputs.

    Args:
        child: it holds the model.
        threads: cores that it uses.
        batch: images of a call.
    """

    provider = "CPU"
    network = None

    def __init__(self, child: Child, threads: int, batch: int) -> None:
        self._child = child
        self.pid: int | None = child.pid
        trips = []
        for _ in range(_PINGS):
            start = time.perf_counter_ns()
            child.ask(b"p")
            trips.append(time.perf_counter_ns() - start)
        trip = f"{statistics.median(trips) / 1000:.0f}"
        self.options: Mapping[str, str] = {
            "num_cores": str(threads),
            "batch_size": str(batch),
            "version": child.version,
            "round_trip_us": trip,
        }
        self.notes: tuple[str, ...] = (f"runs in a process of its own: {trip} us of each call are the way there and back",)

    def run(self) -> object:
        """One synchronous call; the outputs stay in the child."""
        self._child.ask(b"r")
        return None


class DeepSparseBackend:
    """DeepSparse compiled for the inputs' batch size, with `threads` cores."""

    name: ClassVar[str] = "deepsparse"
    varies: ClassVar[bool] = False

    def __init__(self, provider: str, threads: int) -> None:
        require_cpu(self.name, provider)
        self._waiting = [Child()]  # so that loading a model is not charged with importing DeepSparse
        self._threads = threads

    def open(self, path: Path, inputs: Inputs) -> DeepSparseSession:
        """Compile for the batch size of the inputs.

        Raises:
            UnsupportedError: deepsparse hands operators to onnxruntime.
        """
        child = self._waiting.pop() if self._waiting else Child()
        fraction = child.load(path, inputs, self._threads)
        if fraction < 1:
            raise UnsupportedError(
                f"{path}: deepsparse runs only {fraction:.0%} of the operators itself and hands the rest to onnxruntime"
            )
        return DeepSparseSession(child, self._threads, next(iter(inputs.values())).shape[0])
