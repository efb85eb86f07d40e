"""One file, run once a call."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tdcompress.bench.backends.base import Backend, Inputs, TimedSession
from tdcompress.bench.workloads.base import Array

if TYPE_CHECKING:
    from tdcompress.bench.modelfile import ModelFile


class SingleRun:
    """One inference of one file."""

    def beside(self, path: Path) -> tuple[()]:
        """None."""
        return ()

    def whole(self, first: "ModelFile", *, external_data: bool) -> "ModelFile":
        """That file alone."""
        return first

    def refuse(self, backend: type[Backend]) -> None:
        """Nothing: every backend can."""

    def sampled(self, samples: Mapping[str, Array], batch: int) -> dict[str, Array]:
        """The first samples, (batch, ...), repeated where there are fewer; ``samples`` are (N, ...) by name."""
        return {name: np.ascontiguousarray(each[np.arange(batch) % len(each)]) for name, each in samples.items()}

    def made_up(
        self, first: "ModelFile", batch: int, generator: np.random.Generator, shapes: Sequence[Sequence[int]]
    ) -> dict[str, Array]:
        """As `Workload.made_up`: random data."""
        from tdcompress.bench.inputs import random_inputs

        return random_inputs(first, batch, generator, shapes)

    def open(self, backend: Backend, path: Path, inputs: Inputs) -> TimedSession:
        """As `Workload.open`: the file with its inputs bound."""
        return backend.open(path, inputs)

    def tokens(self, inputs: Inputs) -> None:
        """None."""

    def described(self, inputs: Inputs) -> str:
        """Nothing."""
        return ""
