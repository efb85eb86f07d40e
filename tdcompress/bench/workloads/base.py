"""What a workload is: what one timed call does with the files of a deployed network, and on what inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tdcompress.bench.backends.base import Backend, Inputs, TimedSession

if TYPE_CHECKING:
    from tdcompress.bench.modelfile import ModelFile

Array = NDArray[Any]


class Workload(Protocol):
    """One kind of deployed network, as it is used."""

    def beside(self, path: Path) -> tuple[Path, ...]:
        """The files that belong to a first one, whether they are there or not."""

    def whole(self, first: "ModelFile", *, external_data: bool) -> "ModelFile":
        """The facts of all files together.

        Args:
            first: the file that was named.
            external_data: accept weights in files beside ONNX files.

        Raises:
            ModelError: a file is missing, or is not what it should be.
        """

    def refuse(self, backend: type[Backend]) -> None:
        """Refuse a backend that cannot run it.

        Raises:
            UnsupportedError: says why.
        """

    def sampled(self, samples: Mapping[str, Array], batch: int) -> dict[str, Array]:
        """Real inputs of one call.

        Args:
            samples: of each input of the first file, by name, (N, ...).
            batch: examples of a call; they are repeated where there are fewer.
        """

    def made_up(
        self, first: "ModelFile", batch: int, generator: np.random.Generator, shapes: Sequence[Sequence[int]]
    ) -> dict[str, Array] | None:
        """Inputs of one call without real ones; None where real ones are needed, since nothing says how long they are.

        Args:
            first: of the baseline.
            batch: examples of a call.
            generator: draws them.
            shapes: of the inputs in turn, where the file leaves more open than the batch.

        Raises:
            UserError, ModelError, UnsupportedError: as `tdcompress.bench.inputs.random_inputs`.
        """

    def open(self, backend: Backend, path: Path, inputs: Inputs) -> TimedSession:
        """Load the files; ``run`` of what comes back is one call.

        Args:
            backend: what runs them.
            path: the first file.
            inputs: of every call.

        Raises:
            ModelError: the runtime refuses a file.
            UnsupportedError: the runtime would run it on something else than asked for.
        """

    def tokens(self, inputs: Inputs) -> int | None:
        """Tokens that one call says; None where it says none."""

    def described(self, inputs: Inputs) -> str:
        """What one call does, in words; "" where it is one run of one file."""
