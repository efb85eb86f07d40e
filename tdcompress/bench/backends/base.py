"""What a backend is: something that opens a model file with its inputs bound, and runs it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from tdcompress.errors import UnsupportedError

Inputs = Mapping[str, NDArray[np.generic]]
"""The inputs of a call by name, (batch, ...) each."""

CPU_PROVIDER = "CPUExecutionProvider"


class TimedSession(Protocol):
    """An opened model."""

    provider: str
    """What really runs it."""
    pid: int | None
    """The process that holds it; None: this one."""
    options: Mapping[str, str]
    """Settings, and what the runtime says about itself."""
    notes: tuple[str, ...]
    """What a reader has to know about how it runs."""

    @property
    def network(self) -> Any:
        """What takes other inputs at each call, by onnxruntime's interface (`tdcompress.onnxfile.runtime.OpenedFile`).

        None where the backend does not vary them.
        """

    def run(self) -> object:
        """One inference of the bound inputs."""


class Backend(Protocol):
    """A runtime, checked to be there when it is constructed."""

    name: ClassVar[str]
    varies: ClassVar[bool]
    """Whether its sessions take other inputs, of other lengths, at each call."""

    def __init__(self, provider: str, threads: int) -> None:
        """Check that the runtime and the provider are installed.

        Raises:
            UnsupportedError: one of them is not.
        """

    def open(self, path: Path, inputs: Inputs) -> TimedSession:
        """Load a model; this is what `load_ns` measures.

        Raises:
            ModelError: the runtime refuses the file.
            UnsupportedError: the runtime would run it on something else than asked for.
        """


def require_cpu(backend: str, provider: str) -> None:
    """Refuse a provider in a backend that knows none.

    Raises:
        UnsupportedError: it is not the CPU's.
    """
    if provider != CPU_PROVIDER:
        raise UnsupportedError(f"backend {backend!r} runs on the CPU only; provider {provider!r} is onnxruntime's")
