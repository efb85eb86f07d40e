"""What a benchmark is asked for, checked and read before its processes start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdcompress.arguments import require_range
from tdcompress.bench.backends import check_backend
from tdcompress.bench.backends.base import CPU_PROVIDER
from tdcompress.bench.budget import Budget, find_budget
from tdcompress.bench.deployed import check_can_time, read_deployed, sampled_inputs
from tdcompress.bench.inputs import check_given_inputs, check_same_inputs
from tdcompress.bench.modelfile import ModelFile
from tdcompress.bench.report import BASELINE_BACKEND
from tdcompress.bench.summary import Subject
from tdcompress.bench.workloads import workload_of
from tdcompress.bench.workloads.base import Workload
from tdcompress.errors import UserError
from tdcompress.files import StrPath
from tdcompress.limits import usable_cores
from tdcompress.onnxfile.names import SAMPLES

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A benchmark that nothing is wrong with, as far as can be told before the processes start.

    Attributes:
        plan: its budget.
        dense: the baseline.
        asked: the files, in the given order.
        workload: what a call is.
        data: inputs of a call, by name, (batch, ...) each.
        random: whether they are made up.
    """

    plan: Budget
    dense: Subject
    asked: tuple[Subject, ...]
    workload: Workload
    data: Arrays
    random: bool


def get_ready(
    files: Sequence[StrPath],
    *,
    baseline: StrPath,
    threads: int,
    batch: int,
    backend: str,
    provider: str,
    budget: str,
    seed: int,
    inputs: Arrays | None,
    shapes: Sequence[Sequence[int]],
    baseline_backend: str,
    external_data: bool,
) -> Ready:
    """As `benchmark` until its processes start, of the same arguments (inputs are (batch, ...) each); raises the same."""
    plan = find_budget(budget)
    _check_counts(files, threads, batch)
    require_range("benchmark: seed", seed, 0, 2**63 - 1)
    for name in (backend, baseline_backend):
        check_backend(name)
    dense_file, *asked_files = (read_deployed(Path(path), external_data=external_data) for path in (baseline, *files))
    for name, file in ((baseline_backend, dense_file), *((backend, file) for file in asked_files)):
        check_can_time(name, file.task)
    check_same_inputs(dense_file, asked_files)
    workload = workload_of(dense_file.task)
    made_up = None if inputs is not None else workload.made_up(dense_file, batch, np.random.default_rng(seed), shapes)
    if made_up is None:
        data = check_given_inputs(dense_file, _beside(dense_file, batch) if inputs is None else inputs, batch)
    else:
        data = made_up
    return Ready(
        plan=plan,
        dense=Subject(file=dense_file, backend=baseline_backend, provider=provider),
        asked=tuple(Subject(file=file, backend=backend, provider=provider) for file in asked_files),
        workload=workload,
        data=data,
        random=made_up is not None,
    )


def check_without_baseline(
    files: Sequence[StrPath],
    *,
    threads: int,
    batch: int,
    backend: str,
    budget: str,
    shapes: Sequence[Sequence[int]],
    external_data: bool,
) -> None:
    """As `benchmark` refuses these arguments, whatever the baseline is, which is not asked for.

    Raises:
        UserError, ModelError, UnsupportedError: as `benchmark`.
    """
    get_ready(
        files,
        baseline=files[0],
        threads=threads,
        batch=batch,
        backend=backend,
        provider=CPU_PROVIDER,
        budget=budget,
        seed=0,
        inputs=None,
        shapes=shapes,
        baseline_backend=BASELINE_BACKEND,
        external_data=external_data,
    )


def _check_counts(files: Sequence[StrPath], threads: int, batch: int) -> None:
    if not files:
        raise UserError("no file to benchmark; name at least one ONNX file")
    check_threads(threads)
    if batch < 1:
        raise UserError(f"batch is {batch}; give a positive number")


def check_threads(threads: int) -> None:
    """Refuse more threads than there are cores for.

    Raises:
        UserError: below 0, or above the cores of this process.
    """
    if not 0 <= threads <= usable_cores():
        raise UserError(f"threads is {threads}; give 1 to {usable_cores()} (the cores of this process), or 0 for all of them")


def _beside(file: ModelFile, batch: int) -> Arrays:
    """Real inputs from the samples that lie beside a file whose inputs cannot be made up."""
    samples = file.path.with_name(SAMPLES)
    if not samples.is_file():
        lengths = f"say how long its inputs are (--shape {batch}x20), or give them (`inputs=` in Python)"
        raise UserError(f"{file.path}: no {SAMPLES} lies beside it; {lengths}")
    return sampled_inputs(file, samples, batch)
