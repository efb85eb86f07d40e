"""A backend that does nothing: what is measured is the harness itself."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from tdcompress.bench.backends.base import Inputs, require_cpu


class NullSession:
    """Runs nothing."""

    provider = "none"
    network = None
    pid: int | None = None
    options: Mapping[str, str] = MappingProxyType({})
    notes: tuple[str, ...] = ("runs nothing: its time is that of the harness",)

    def run(self) -> object:
        """Return at once."""
        return None


class NullBackend:
    """Opens any file without reading it."""

    name: ClassVar[str] = "null"
    varies: ClassVar[bool] = False

    def __init__(self, provider: str, threads: int) -> None:
        require_cpu(self.name, provider)

    def open(self, path: Path, inputs: Inputs) -> NullSession:
        """A session that does nothing."""
        return NullSession()
