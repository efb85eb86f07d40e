"""A deployed network before it is timed: the facts of all its files, real inputs, and who can run it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tdcompress.bench.backends import BACKENDS, check_backend
from tdcompress.bench.modelfile import ModelFile, read_model_file, task_of
from tdcompress.bench.workloads import workload_of
from tdcompress.npz import npz_names, read_npz
from tdcompress.onnxfile.load import load_model
from tdcompress.onnxfile.verify import MAX_SAMPLES_BYTES

FIRST_INPUT = "input"
"""How samples of a run name the only input of its files, whatever the files call it."""


def first_files(files: Sequence[Path], *, external_data: bool = False) -> list[Path]:
    """Those of some ONNX files that do not belong to another one.

    Args:
        files: in one folder.
        external_data: accept weights in files beside ONNX files.

    Raises:
        ModelError, UnsupportedError: a file cannot be loaded.
    """
    tasks = {file: task_of(load_model(file, external_data=external_data), file) for file in files}
    owned = {beside for file, task in tasks.items() for beside in workload_of(task).beside(file)}
    return [file for file in files if file not in owned]


def read_deployed(path: Path, *, external_data: bool = False) -> ModelFile:
    """Read the facts of a file, with all that belongs to it.

    Args:
        path: the file.
        external_data: accept weights in files beside ONNX files.

    Raises:
        ModelError, UnsupportedError: as `read_model_file`; or a file that belongs to it is missing.
    """
    first = read_model_file(path, external_data=external_data)
    return workload_of(first.task).whole(first, external_data=external_data)


def sampled_inputs(file: ModelFile, samples: Path, batch: int) -> dict[str, NDArray[Any]]:
    """Real inputs of one call.

    Args:
        file: what is fed.
        samples: the .npz file of an export or of a run.
        batch: examples of a call.

    Raises:
        ModelError: no such file, or one without samples of this network.
    """
    stored = npz_names(samples, "file of samples")
    keys = {}
    for name in (spec.name for spec in file.inputs):
        known = (key for key in (name, f"{file.path.name}/{name}", FIRST_INPUT) if key in stored)
        keys[name] = next(known, name)
    arrays = read_npz(samples, "file of samples", at_most=MAX_SAMPLES_BYTES, names=list(keys.values()))
    return workload_of(file.task).sampled({name: arrays[key] for name, key in keys.items()}, batch)


def check_can_time(backend: str, task: str | None) -> None:
    """Refuse a backend that is unknown, or that cannot run networks of a task.

    Raises:
        UnsupportedError: says which.
    """
    check_backend(backend)
    workload_of(task).refuse(BACKENDS[backend])
