"""Sentences into another language: cross-entropy of each next piece, BLEU, an encoder, a decoder step and a vocabulary."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from tdcompress.data.parallel_text import ParallelText
from tdcompress.data.text_parts import TextPart
from tdcompress.errors import DataError, ModelError, UnsupportedError, UserError, VerificationError
from tdcompress.models.base import Translations
from tdcompress.models.torch_decoder import TorchDecoder
from tdcompress.models.transformer import Transformer
from tdcompress.models.translator_parts import DecoderStep, Encoder
from tdcompress.records.measures import BLEU, FileFigure, Measure
from tdcompress.seeds import derived_seed
from tdcompress.tasks.base import (
    CHECKED_SAMPLES,
    ExportPart,
    ExportSet,
    FileMeasure,
    Files,
    LearningTask,
    NetworkInputs,
    Said,
)
from tdcompress.tasks.pairs import PairSet, summed_loss
from tdcompress.text.bleu import Bleu, bleu, has_four_words
from tdcompress.text.names import ENCODER, STEP, TASK, VOCABULARY, VOCABULARY_SHA256
from tdcompress.text.recorded import recorded_pieces
from tdcompress.text.search import Decoder, Ints, beam_search, count_right, greedy
from tdcompress.text.translator import LONGER, OnnxDecoder, padded_sources
from tdcompress.text.vocabulary import BEGIN, Vocabulary

BEAM, ALPHA = 4, 0.6  # "Attention is all you need", section 6.1
BLEU_BEAM = Measure(name=f"BLEU, beam {BEAM}")
PER_TOKEN = Measure(name="per-token accuracy", unit="%")
TIE = 1e-4
"""Two best logits of torch that are nearer than this may change places under onnxruntime (design, rule 5)."""
ONE_FOR_ALL = 0.03
"""About the BLEU / 100 of one translation for all sentences: 2.87 is the most of six that were tried on Multi30k's test set."""
SEARCHED = 64  # sentences at once
SHIPPED = 4  # samples; those of each decoder layer's memory are long
Search = Callable[[Decoder[Any], Any, Ints], list[list[int]]]
SAID = 3  # pieces of the past in shipped samples of the decoder step


class MachineTranslation(LearningTask):
    """Parallel text and what is learnt from it.

    Args:
        data: the corpus.
        vocabulary: sentencepiece's model, of both languages; None = it is not made yet.
    """

    name: ClassVar[str] = TASK
    measure: ClassVar[Measure] = BLEU
    prepares: ClassVar[tuple[str, ...]] = ("vocabulary",)
    refused: ClassVar[Mapping[tuple[str, object], str]] = {
        ("export.values", "int8"): 'a translator has no "int8" files; take "int8-kept", "codebook16" or "float16"',
        ("export.input", "uint8"): '"uint8" is of images; sentences have no pixels',
        ("prune.recalibrate_on", "augmented"): 'sentences are not augmented; take "plain"',
    }

    def __init__(self, data: ParallelText, vocabulary: bytes | None = None) -> None:
        self.data = data
        self._vocabulary = vocabulary

    @property
    def interface(self) -> Translations:  # noqa: D102
        return Translations(vocabulary=self.data.settings.vocabulary.size)

    @property
    def test_samples(self) -> int:  # noqa: D102
        return len(self.test)

    @property
    def guessing(self) -> float:
        """`ONE_FOR_ALL`."""
        return ONE_FOR_ALL

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Of both languages.

        Raises:
            DataError: damaged bytes, or other than the settings say.
        """
        if self._vocabulary is None:
            raise DataError(
                f"{self.data.name}: its vocabulary is not made yet, and only a network's interface is known without it"
            )
        vocabulary = Vocabulary(self._vocabulary)
        if len(vocabulary) != self.data.settings.vocabulary.size:
            wanted = self.data.settings.vocabulary.size
            raise DataError(f"{self.data.name}: a vocabulary of {len(vocabulary)} pieces, and data.vocabulary.size is {wanted}")
        return vocabulary

    @property
    def train(self) -> TextPart:
        """What is trained on."""
        return self.data.part(self.data.settings.train, self.vocabulary)

    @property
    def val(self) -> TextPart:
        """What a training is watched by."""
        return self.data.part(self.data.settings.val, self.vocabulary)

    @property
    def test(self) -> TextPart:
        """What the measure is taken on."""
        return self.data.part(self.data.settings.test, self.vocabulary)

    @property
    def references(self) -> tuple[str, ...]:
        """The test part's translations as plain text."""
        return self.data.references(self.vocabulary)

    @property
    def remarks(self) -> tuple[str, ...]:
        """How many lines of each part were left out, and whether the references look tokenised."""
        parts = {part.files: part for part in (self.train, self.val, self.test)}
        remarks = [f"{source} and {target}: {part.left_out}" for (source, target), part in parts.items() if part.skipped]
        dots = sum(reference.endswith(" .") for reference in self.references)
        if 2 * dots > len(self.references):
            remarks.append(
                f'{self.test.files[1]}: {dots} of {len(self.references)} sentences end in " .", as tokenised text does; '
                "BLEU is meant for text as people write it"
            )
        return tuple(remarks)

    def train_set(self, seed: int) -> PairSet:
        """Training pairs. All parts are read for them: what is wrong with a line is told before a training, not after it.

        Raises:
            DataError: what a part refuses; or a test part whose BLEU is 0 whatever is said.
        """
        for name in (self.data.settings.val, self.data.settings.test):
            self.data.part(name, self.vocabulary)
        if not has_four_words(self.references):
            raise DataError(
                f"{self.test.files[1]}: BLEU counts runs of four words, parted by spaces, and no sentence has four: the right "
                "translations themselves would have 0; add longer sentences, or spaces between words"
            )
        return PairSet.of(self.train)

    def test_set(self) -> PairSet:
        """Validation pairs: a training is watched by the share of their target pieces that are said rightly."""
        return PairSet.of(self.val)

    def examples(self, count: int = 2) -> NetworkInputs:
        """Some test pairs: int64 source (B, S) and what the decoder is given (B, T)."""
        batch = self.test.pairs.batch(np.arange(min(count, len(self.test))))
        return batch.source, batch.target_in

    def training_batches(self, seed: int, count: int, device: torch.device, *, augmented: bool) -> Iterator[NetworkInputs]:
        """As `LearningTask.training_batches`: pairs in batches of like length; ``refused`` sees to it that none is augmented."""
        drawn = np.random.default_rng(derived_seed(seed, "recalibrate")).permutation(len(self.train))[:count]
        pairs = PairSet(part=self.train, chosen=drawn, device=device)
        for places in pairs.batches():
            batch = pairs.batch(places)
            yield batch.source, batch.target_in

    def measured(self, network: nn.Module, device: torch.device) -> float:
        """BLEU / 100 of greedy search, detokenised and case-sensitive."""
        decoder = TorchDecoder(_transformer(network).to(device).eval())
        return self._score(self._search(decoder, greedy, _unsaid)).score / 100

    def loss_batches(self, size: int, device: torch.device) -> list[tuple[NetworkInputs, Tensor]]:
        """Pairs as (source, target so far) and the target, padded with ``IGNORED``."""
        pairs = PairSet.of(self.test).to(device)
        starts = range(0, len(pairs), size)
        batches = [pairs.batch(np.arange(start, min(start + size, len(pairs)))) for start in starts]
        return [((batch.source, batch.target_in), batch.target_out) for batch in batches]

    def summed_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits (B, T, vocabulary), summed over the target pieces, int64 (B, T)."""
        return summed_loss(outputs, targets)

    def exports(self, network: nn.Module, *, pixels: bool) -> ExportSet:
        """Encoder and decoder step, with the vocabulary beside them.

        Raises:
            UserError: ``pixels``: sentences have none.
        """
        if pixels:
            raise UserError(f"export.input: {self.refused['export.input', 'uint8']}")
        whole = _transformer(network)
        parts = self._encoder(whole), self._step(whole)

        def measured(files: Files, expected: float | None, said: Said) -> FileMeasure:
            found = self._search(_decoder(files), greedy, said)
            unlike = None if expected is None else self._count_unlike(whole, found)
            score = self._score(found)
            return FileMeasure(accuracy=score.score / 100, how=score.signature, unlike_torch=unlike)

        def figures(files: Files, said: Said) -> tuple[FileFigure, ...]:
            decoder, samples = _decoder(files), self.test_samples
            search = partial(beam_search, size=BEAM, alpha=ALPHA)
            beam = self._score(self._search(decoder, search, lambda done, of: said(done, of + samples)))
            right = self._share_right(decoder, lambda done, of: said(samples + done, of + samples))
            return (
                FileFigure(measure=BLEU_BEAM, value=beam.score / 100, how=f"{beam.signature}, alpha {ALPHA}"),
                FileFigure(measure=PER_TOKEN, value=right, how="of the references' pieces and ends, each after the right ones"),
            )

        return ExportSet(
            parts=parts,
            facts={
                "task": self.name,
                "longest": self.data.settings.longest,
                VOCABULARY_SHA256: hashlib.sha256(self.vocabulary.model).hexdigest(),
            },
            measured=measured,
            figures=figures,
            extras={VOCABULARY: self.vocabulary.model},
            recorded={VOCABULARY: recorded_pieces(self.vocabulary, self.vocabulary.decode(self._checked()[0]))},
        )

    def _sources(self, places: Sequence[int]) -> list[list[int]]:
        return [self.test.pairs.source[place].tolist() for place in places]

    def _checked(self) -> tuple[list[list[int]], Tensor]:
        """Sources that files are compared on, and as they are given to an encoder."""
        sources = self._sources(range(min(CHECKED_SAMPLES, len(self.test))))
        return sources, torch.from_numpy(padded_sources(sources))

    def _encoder(self, network: Transformer) -> ExportPart:
        sources, samples = self._checked()
        shortest = sorted(sources, key=len)[:7]
        return ExportPart(
            file=ENCODER,
            module=Encoder(network).eval(),
            samples=(samples,),
            names=("source",),
            axes=({0: "batch", 1: "length"},),
            others=((torch.from_numpy(padded_sources(shortest)),), (torch.from_numpy(padded_sources(sources[:1])),)),
            shipped=SHIPPED,
            calibration=_no_int8,
        )

    @torch.inference_mode()
    def _step(self, network: Transformer) -> ExportPart:
        _, source = self._checked()
        encoder, step = Encoder(network).eval(), DecoderStep(network).eval()
        memory = encoder(source)
        token, past = torch.full((len(source),), BEGIN), step.empty_past(next(iter(memory.values())))
        first = (token, source, *memory.values(), *past)
        for _ in range(SAID):
            logits_BV, *past = step(token, source, *memory.values(), *past).values()
            token = logits_BV.argmax(1)
        names = ("token", "source", *memory, *(name.replace("source", "past") for name in memory))
        on_source, on_past = {0: "batch", 2: "length"}, {0: "batch", 2: "past"}
        return ExportPart(
            file=STEP,
            module=step,
            samples=_plain((token, source, *memory.values(), *past)),
            names=names,
            axes=({0: "batch"}, {0: "batch", 1: "length"}, *[on_source] * len(memory), *[on_past] * len(memory)),
            others=(_plain(first),),
            shipped=SHIPPED,
            calibration=_no_int8,
        )

    def _search(self, decoder: Decoder[Any], search: Search, said: Said) -> list[list[int]]:
        """Translations of the test set, in its order."""
        found: list[list[int]] = [[] for _ in range(self.test_samples)]
        for places in self._by_length(said):
            sources = self._sources(places)
            limits = np.array([len(source) + LONGER for source in sources], np.int64)
            for place, pieces in zip(places, search(decoder, decoder.start(padded_sources(sources)), limits), strict=True):
                found[place] = pieces
        return found

    def _share_right(self, decoder: Decoder[Any], said: Said) -> float:
        """Share (0..1) of the references' pieces and ends that are said rightly."""
        test, right = PairSet.of(self.test), 0
        for places in self._by_length(said):
            references = [self.test.pairs.target[place].tolist() for place in places]
            right += count_right(decoder, decoder.start(padded_sources(self._sources(places))), references)
        return right / test.units

    def _by_length(self, said: Said) -> Iterator[list[int]]:
        order = np.argsort(self.test.pairs.source.lengths, kind="stable").tolist()
        for first in range(0, len(order), SEARCHED):
            said(first, len(order))
            yield order[first : first + SEARCHED]

    def _score(self, translations: Sequence[Sequence[int]]) -> Bleu:
        """BLEU, whose signature says too what was left out: of other sentences it is another number."""
        score = bleu(self.vocabulary.decode(translations), self.references)
        return replace(score, signature=f"{score.signature}, {self.test.left_out}") if self.test.skipped else score

    def _count_unlike(self, network: Transformer, found: Sequence[Sequence[int]]) -> int:
        """How many translations differ from torch's: from a position on where its two best logits are within ``TIE``.

        Raises:
            VerificationError: another translation than torch's, without such a tie.
        """
        expected, unlike = self._search(TorchDecoder(network), greedy, _unsaid), 0
        for place, (given, wanted) in enumerate(zip(found, expected, strict=True)):
            if list(given) == wanted:
                continue
            same = next((i for i, (one, other) in enumerate(zip(given, wanted, strict=False)) if one != other), None)
            same = min(len(given), len(wanted)) if same is None else same
            source = torch.from_numpy(padded_sources(self._sources([place])))
            with torch.inference_mode():
                logits_V = network(source, torch.tensor([[BEGIN, *wanted[:same]]]))[0, -1]
            best, second = logits_V.topk(2).values.tolist()
            if best - second > TIE:
                raise VerificationError(
                    f"{ENCODER}, {STEP}: test sentence {place + 1} is translated differently under onnxruntime from piece "
                    f"{same + 1} on, where torch's best logit leads by {best - second:.2g}"
                )
            unlike += 1
        return unlike


def _transformer(network: nn.Module) -> Transformer:
    if not isinstance(network, Transformer):
        raise ModelError(f'{type(network).__name__} cannot translate: only a transformer can, [model] name = "transformer"')
    return network


def _decoder(files: Files) -> OnnxDecoder:
    return OnnxDecoder(files[ENCODER].session, files[STEP].session)


def _unsaid(done: int, of: int) -> None:
    """Nobody is told."""


def _no_int8() -> NoReturn:
    raise UnsupportedError(f"export.values: {MachineTranslation.refused['export.values', 'int8']}")


def _plain(inputs: Sequence[Tensor]) -> NetworkInputs:
    """Tensors that torch can trace, out of inference mode."""
    with torch.inference_mode(False):
        return tuple(item.clone() for item in inputs)
