"""Translating: the encoder once a call, the decoder step once a token, with a past that grows, by greedy search.

Each sentence gets as many tokens as its source has pieces, the end counted: of every file the same. A network that ends its
sentences sooner would otherwise look faster. What the tokens are does not matter to the time; how many they are does.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tdcompress.bench.backends.base import Backend, Inputs, TimedSession
from tdcompress.bench.workloads.base import Array
from tdcompress.errors import ModelError, UnsupportedError
from tdcompress.text.names import beside_encoder
from tdcompress.text.search import greedy
from tdcompress.text.vocabulary import END, PAD, UNKNOWN

if TYPE_CHECKING:
    from tdcompress.bench.modelfile import ModelFile

SOURCE = "source"


class TranslationSession:
    """An encoder and a decoder step with the sentences that they translate.

    Args:
        encoder: its session.
        step: the decoder step's session.
        source_NS: pieces of the sentences, (sentences, pieces of the longest).
    """

    pid: int | None = None
    network = None

    def __init__(self, encoder: TimedSession, step: TimedSession, source_NS: NDArray[np.int64]) -> None:
        from tdcompress.text.translator import OnnxDecoder

        self._decoder = OnnxDecoder(encoder.network, step.network)
        self._source, self._limits = source_NS, lengths(source_NS)
        self.provider = step.provider
        self.options: Mapping[str, str] = {
            key: value if encoder.options.get(key) == value else f"encoder: {encoder.options.get(key)}; decoder step: {value}"
            for key, value in step.options.items()
        }
        self.notes: tuple[str, ...] = tuple(dict.fromkeys((*encoder.notes, *step.notes)))

    def run(self) -> list[list[int]]:
        """Translate the sentences, by the search that translates for users."""
        return greedy(self._decoder, self._decoder.start(self._source), self._limits, ends=False)


class Translating:
    """A translator's encoder, with the decoder step and the vocabulary that lie beside it."""

    def beside(self, path: Path) -> tuple[Path, Path]:
        """Decoder step and vocabulary."""
        return beside_encoder(path)

    def whole(self, first: "ModelFile", *, external_data: bool) -> "ModelFile":
        """As `Workload.whole`: the bytes of all three, the weights of two."""
        from tdcompress.bench.modelfile import read_model_file, together

        if [spec.name for spec in first.inputs] != [SOURCE]:
            raise ModelError(f"{first.path}: says that it translates, but does not take {SOURCE!r} alone; export it again")
        step, vocabulary = self.beside(first.path)
        for path in (step, vocabulary):
            if not path.is_file():
                raise ModelError(f"{path}: no such file; the translator {first.path} is not whole without it")
        return together(first, read_model_file(step, external_data=external_data), beside=vocabulary)

    def refuse(self, backend: type[Backend]) -> None:
        """As `Workload.refuse`: a backend whose sessions keep to the inputs they were opened with."""
        if not backend.varies:
            said = f"backend {backend.name!r} cannot time translations, whose inputs grow with each token"
            raise UnsupportedError(f"{said}; use onnxruntime or engine")

    def sampled(self, samples: Mapping[str, Array], batch: int) -> dict[str, Array]:
        """The sentences of the middle length, (batch, S), with no more padding than they need."""
        source_NS = samples[SOURCE]
        order = np.argsort(lengths(source_NS), kind="stable")
        first = (len(order) - min(batch, len(order))) // 2
        chosen = source_NS[order[first : first + batch][np.arange(batch) % min(batch, len(order))]]
        return {SOURCE: np.ascontiguousarray(chosen[:, : lengths(chosen).max()])}

    def made_up(
        self, first: "ModelFile", batch: int, generator: np.random.Generator, shapes: Sequence[Sequence[int]]
    ) -> dict[str, Array] | None:
        """As `Workload.made_up`: unknown pieces to an end, where their number is asked for."""
        from tdcompress.bench.inputs import random_inputs

        if not shapes:
            return None
        source_NS = np.full_like(random_inputs(first, batch, generator, shapes)[SOURCE], UNKNOWN)
        source_NS[:, -1:] = END
        return {SOURCE: source_NS}

    def open(self, backend: Backend, path: Path, inputs: Inputs) -> TranslationSession:
        """As `Workload.open`: both files, one after the other."""
        step, _ = self.beside(path)
        source_NS = np.asarray(inputs[SOURCE], np.int64)
        return TranslationSession(backend.open(path, inputs), backend.open(step, {}), source_NS)

    def tokens(self, inputs: Inputs) -> int:
        """As many as the sources have pieces."""
        return int(lengths(inputs[SOURCE]).sum())

    def described(self, inputs: Inputs) -> str:
        """How many sentences and tokens."""
        pieces = lengths(inputs[SOURCE]).tolist()
        each = f"{min(pieces)}" if min(pieces) == max(pieces) else f"{min(pieces)} to {max(pieces)}"
        sentences = "sentence" if len(pieces) == 1 else "sentences"
        return f"a call translates {len(pieces)} {sentences} of {each} pieces into as many tokens, by greedy search"


def lengths(source_NS: Array) -> NDArray[np.int64]:
    """Pieces of each sentence, its end counted, its padding not: (N,)."""
    found: NDArray[np.int64] = (source_NS != PAD).sum(axis=1)
    return found
