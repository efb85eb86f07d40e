"""Start a fresh process for a job and get its answer. JSON over pipes, no pickle; the parent sleeps meanwhile."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import tdcompress
from tdcompress import errors
from tdcompress.bench.job import JOBS, PairsJob, ProbeJob
from tdcompress.codec import decode, encode, parse_json
from tdcompress.errors import InterruptedRun, TdcompressError

Answer = TypeVar("Answer")

COMMAND = (sys.executable, "-P", "-m", "tdcompress.bench.worker")
STOPPED_BY = (signal.SIGINT, signal.SIGTERM)


def run_job(job: ProbeJob | PairsJob, result: type[Answer]) -> Answer:
    """Run a job in a fresh process.

    Args:
        job: what to do.
        result: the record that it answers with.

    Raises:
        TdcompressError: the worker's own typed error; or it died, with the last line that it printed.
        InterruptedRun: the worker was stopped by SIGINT or SIGTERM.
        KeyboardInterrupt: this process was; the worker is gone when it leaves here.
    """
    kind = next(name for name, job_type in JOBS.items() if isinstance(job, job_type))
    worker = subprocess.Popen(
        [*COMMAND, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=_environment(),
    )
    try:
        answer, complaints = worker.communicate(json.dumps(encode(job)))
    except BaseException:
        worker.kill()
        worker.wait()
        raise
    if worker.returncode != 0:
        raise _death(worker.returncode, complaints, kind)
    try:
        message = parse_json(answer)
        if "error" in message:
            raise _typed_error(message["error"]["type"], message["error"]["message"])
        return decode(result, message["result"], kind)
    except (ValueError, KeyError) as error:
        raise TdcompressError(f"the benchmark's {kind} process answered with something else than a result: {error}") from error


def _environment() -> dict[str, str]:
    """This environment, with this very package first in the path whatever the current folder is."""
    package_root = str(Path(tdcompress.__file__).parents[1])
    path = os.pathsep.join(part for part in (package_root, os.environ.get("PYTHONPATH", "")) if part)
    # numpy takes no part in what is timed; its own threads would.
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}


def _death(status: int, complaints: str, kind: str) -> TdcompressError:
    lines = complaints.strip().splitlines()
    last = lines[-1].strip() if lines else "it printed nothing"
    if -status in STOPPED_BY:
        return InterruptedRun("the benchmark was interrupted and kept nothing; start it again", -status)
    name = signal.Signals(-status).name if status < 0 else ""
    how = f"was killed by {name}" if name else f"ended with status {status}"
    if name == "SIGKILL":
        how += " (out of memory?)"
    return TdcompressError(f"the benchmark's {kind} process {how}: {last}")


def _typed_error(name: str, message: str) -> TdcompressError:
    kind = getattr(errors, name, TdcompressError)
    error: TdcompressError = kind(message)
    return error
