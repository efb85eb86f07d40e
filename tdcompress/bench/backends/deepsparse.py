"""DeepSparse, when installed: the sparse CPU runtime that readers compare with (its development has ended)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tdcompress.bench.backends.base import Inputs, require_cpu
from tdcompress.errors import ModelError, UnsupportedError


class DeepSparseSession:
    """A DeepSparse engine with its inputs, which it takes as a list."""

    provider = "CPU"
    notes: tuple[str, ...] = ()

    def __init__(self, engine: Any, inputs: Inputs, options: Mapping[str, str]) -> None:
        self._engine = engine
        self._inputs = list(inputs.values())
        self.options = options

    def run(self) -> object:
        """One synchronous call."""
        return self._engine.run(self._inputs)


class DeepSparseBackend:
    """DeepSparse compiled for the inputs' batch size, with `threads` cores."""

    name: ClassVar[str] = "deepsparse"

    def __init__(self, provider: str, threads: int) -> None:
        require_cpu(self.name, provider)
        try:
            import deepsparse
        except ImportError as error:
            raise UnsupportedError(
                f"backend 'deepsparse' cannot be imported ({error}); pip install deepsparse==1.8.0 'onnx<1.18' (Python 3.11)"
            ) from error
        self._engine_type = deepsparse.Engine
        self._threads = threads

    def open(self, path: Path, inputs: Inputs) -> DeepSparseSession:
        """Compile for the batch size of the inputs."""
        batch = next(iter(inputs.values())).shape[0]
        try:
            engine = self._engine_type(model=str(path), batch_size=batch, num_cores=self._threads)
        except Exception as error:  # DeepSparse's loader raises whatever its C++ side threw
            raise ModelError(f"{path}: deepsparse cannot load it: {' '.join(str(error).split())}") from error
        if engine.fraction_of_supported_ops < 1:
            raise UnsupportedError(
                f"{path}: deepsparse runs only {engine.fraction_of_supported_ops:.0%} of the operators itself and "
                "hands the rest to onnxruntime"
            )
        return DeepSparseSession(engine, inputs, {"num_cores": str(self._threads), "batch_size": str(batch)})
