"""OpenVINO, when installed. Its default precision is the machine's, not the file's, so it is read back and reported."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tdcompress.bench.backends.base import Inputs, require_cpu
from tdcompress.errors import ModelError, UnsupportedError, one_line


class OpenVinoSession:
    """A compiled model's inference request with its inputs.

    Args:
        request: of the compiled model.
        inputs: of a call, by name.
        options: what a report says of it.
    """

    provider = "CPU"
    network = None
    pid: int | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, request: Any, inputs: Inputs, options: Mapping[str, str]) -> None:
        self._request = request
        self._inputs = dict(inputs)
        self.options = options

    def run(self) -> object:
        """One synchronous call."""
        return self._request.infer(self._inputs)


class OpenVinoBackend:
    """OpenVINO's CPU plugin tuned for latency: one stream, `threads` threads, its default precision."""

    name: ClassVar[str] = "openvino"
    varies: ClassVar[bool] = False

    def __init__(self, provider: str, threads: int) -> None:
        require_cpu(self.name, provider)
        try:
            import openvino
        except ImportError as error:
            raise UnsupportedError(f"backend 'openvino' cannot be imported ({error}); pip install openvino") from error
        self._core = openvino.Core()
        self._threads = threads

    def open(self, path: Path, inputs: Inputs) -> OpenVinoSession:
        """Read, compile, and ask the compiled model what precision it computes in.

        Raises:
            ModelError: openvino cannot load the file.
        """
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(self._threads),
        }
        try:
            model = self._core.read_model(str(path))
            compiled = self._core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"{path}: openvino cannot load it: {one_line(error)}") from error
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return OpenVinoSession(compiled.create_infer_request(), inputs, {**settings, "precision": precision})
