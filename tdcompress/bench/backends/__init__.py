"""Runtimes that can be timed, one file each."""

from collections.abc import Mapping

from tdcompress.bench.backends.base import Backend
from tdcompress.bench.backends.deepsparse import DeepSparseBackend
from tdcompress.bench.backends.engine import EngineBackend
from tdcompress.bench.backends.null import NullBackend
from tdcompress.bench.backends.onnxruntime import OnnxRuntimeBackend
from tdcompress.bench.backends.openvino import OpenVinoBackend
from tdcompress.errors import UnsupportedError

BACKENDS: Mapping[str, type[Backend]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "engine": EngineBackend,
    "openvino": OpenVinoBackend,
    "deepsparse": DeepSparseBackend,
    "null": NullBackend,
}


def check_backend(name: str) -> None:
    """Refuse a name that is none of a backend's; whether it is installed, the process that runs it finds out.

    Raises:
        UnsupportedError: the name is unknown.
    """
    if name not in BACKENDS:
        raise UnsupportedError(f"backend {name!r} is unknown; choose one of {', '.join(BACKENDS)}")


def create_backend(name: str, provider: str, threads: int) -> Backend:
    """The backend of that name, checked to be installed.

    Args:
        name: a key of ``BACKENDS``.
        provider: execution provider of the runtime, as it calls it.
        threads: of one call.

    Raises:
        UnsupportedError: the name is unknown, or the runtime or provider is not installed.
    """
    check_backend(name)
    return BACKENDS[name](provider, threads)
