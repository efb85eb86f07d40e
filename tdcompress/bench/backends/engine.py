"""The project's own sparse engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tdcompress.bench.backends.base import Inputs, require_cpu
from tdcompress.errors import UnsupportedError


class EngineSession:
    """A `tdcompress.engine.Session` with its inputs.

    Args:
        session: the model, ready to run.
        inputs: of a call, by name.
        options: what a report says of it.
    """

    provider = "CPU"
    pid: int | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, session: Any, inputs: Inputs, options: Mapping[str, str]) -> None:
        self.network = session
        self._inputs = dict(inputs)
        self.options = options

    def run(self) -> object:
        """One call as a user makes it."""
        return self.network.run(None, self._inputs)


class EngineBackend:
    """The engine with a number of threads."""

    name: ClassVar[str] = "engine"
    varies: ClassVar[bool] = True

    def __init__(self, provider: str, threads: int) -> None:
        require_cpu(self.name, provider)
        try:
            from tdcompress.engine import Session, unavailable_reason
        except ImportError as error:
            raise UnsupportedError(f"backend 'engine' is not built here: {error}; use onnxruntime") from error
        if reason := unavailable_reason():
            raise UnsupportedError(f"backend 'engine' cannot run here: {reason}")
        self._session_type = Session
        self._threads = threads

    def open(self, path: Path, inputs: Inputs) -> EngineSession:
        """Load the model; the engine's own errors name the operator it lacks. The benchmark checked where its weights lie."""
        session = self._session_type(path, threads=self._threads, external_data=True)
        return EngineSession(session, inputs, {"threads": str(self._threads)})
