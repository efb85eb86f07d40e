"""Sentence pairs as the loop takes them: in batches of like length, or of so many pairs; and which target pieces are right."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tdcompress.data.sentences import IGNORED, PairBatch
from tdcompress.data.text_parts import TextPart
from tdcompress.data.token_batches import SentenceLengths, token_batches
from tdcompress.errors import DataError, UserError, VerificationError
from tdcompress.functional import evaluating
from tdcompress.train.data import Forward
from tdcompress.train.distill import Lesson
from tdcompress.train.distributed import World
from tdcompress.train.evaluate import full_float32
from tdcompress.train.samples import epoch_order
from tdcompress.train.settings import TrainSettings

CPU = torch.device("cpu")
EVALUATION_TOKENS = 8192
Chosen = NDArray[np.int64]
"""Numbers of pairs, (N,)."""


@dataclass(frozen=True, kw_only=True)
class TranslationBatch:
    """Pairs of one forward and backward pass.

    Attributes:
        pairs: on the training's device.
        parts: as of the step (`tdcompress.train.data.TrainBatch`).
        label_smoothing: share of the target spread over all pieces.
    """

    pairs: PairBatch
    parts: float
    label_smoothing: float

    def loss(self, network: Forward, lesson: Lesson | None) -> tuple[Tensor, Tensor]:
        """Cross-entropy with smoothed labels, the mean over target pieces and ends; 0 where there are none."""
        pairs = self.pairs
        logits_BTV = network(pairs.source, pairs.target_in)
        loss = summed_loss(logits_BTV, pairs.target_out, self.label_smoothing)
        there = pairs.target_out != IGNORED
        loss = loss / there.sum().clamp(min=1)
        if lesson is not None and self.parts < float("inf"):
            loss = lesson.mixed(loss, logits_BTV[there], lesson.outputs(pairs.source, pairs.target_in)[there])
        return loss, count_equal(logits_BTV, pairs.target_out)


def summed_loss(logits_BTV: Tensor, target_BT: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, summed over the target pieces that are there.

    Args:
        logits_BTV: of each next piece, float (B, T, vocabulary).
        target_BT: int64 (B, T), the piece that follows; ``IGNORED`` where there is none.
        label_smoothing: share of the target spread over all pieces.
    """
    flat = logits_BTV.flatten(0, 1), target_BT.flatten()
    return F.cross_entropy(*flat, ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="sum")


def count_equal(logits_BTV: Tensor, target_BT: Tensor) -> Tensor:
    """How many target pieces have the largest logit; where there is none to say, none is."""
    return (logits_BTV.detach().argmax(2) == target_BT).sum()


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Training or test pairs. The text stays in memory, and batches go to the device.

    Attributes:
        part: of the corpus.
        chosen: int64 (N,), those pairs of it that are meant.
        device: where batches lie.
    """

    unit: ClassVar[str] = "tokens"
    part: TextPart
    chosen: Chosen
    device: torch.device = CPU

    @staticmethod
    def of(part: TextPart) -> "PairSet":
        """All pairs of a part."""
        return PairSet(part=part, chosen=np.arange(len(part)))

    def __len__(self) -> int:
        return len(self.chosen)

    def to(self, device: torch.device) -> "PairSet":  # noqa: D102
        return replace(self, device=device)

    def every(self, stride: int, first: int) -> "PairSet":  # noqa: D102
        return replace(self, chosen=self.chosen[first::stride])

    @property
    def lengths(self) -> tuple[SentenceLengths, SentenceLengths]:
        """Tokens of each source and target, with the end."""
        pairs = self.part.pairs
        return pairs.source.lengths[self.chosen] + 1, pairs.target.lengths[self.chosen] + 1

    @property
    def units(self) -> int:
        """Target pieces and ends."""
        return int(self.lengths[1].sum())

    def batch(self, places: Chosen) -> PairBatch:
        """Pairs by their places (B,) among the chosen, on the device."""
        made = self.part.pairs.batch(self.chosen[places])
        return PairBatch(
            source=made.source.to(self.device),
            target_in=made.target_in.to(self.device),
            target_out=made.target_out.to(self.device),
        )

    def batches(self) -> list[Chosen]:
        """All pairs once, in batches of like length for evaluation."""
        source, target = self.lengths
        budget = max(EVALUATION_TOKENS, *source.tolist(), *target.tolist())
        return token_batches(source, target, budget, seed=0, epoch=0)

    def loader(self, settings: TrainSettings, *, seed: int, world: World) -> "PairLoader":  # noqa: D102
        return PairLoader(self, settings, seed=seed, world=world)

    def first(self, settings: TrainSettings, world: World) -> TranslationBatch:  # noqa: D102
        return self.loader(settings, seed=0, world=world).step(0, 0, torch.Generator())[0]

    def count_right(  # noqa: D102
        self, network: Forward, device: torch.device, *, between: Callable[[], None] | None = None
    ) -> int:
        here, right = self.to(device), 0
        for places in here.batches():
            if between is not None:
                between()
            pairs = here.batch(places)
            with evaluating(network), torch.inference_mode(), full_float32(device):
                logits_BTV = network(pairs.source, pairs.target_in).float()
                if not bool(logits_BTV.isfinite().all()):
                    raise VerificationError("logits of test sentences are not finite")
                right += int(count_equal(logits_BTV, pairs.target_out))
        return right


class PairLoader:
    """The steps of a training: of ``train.batch_tokens`` tokens at most, or of ``train.batch_size`` pairs in any order.

    Args:
        data: the pairs.
        settings: the recipe's [train].
        seed: of the order.
        world: the processes of the training; each takes its part of the pairs of a step.

    Raises:
        UserError: fewer pairs than one batch.
        DataError: a pair that is longer than the budget.
    """

    table = None

    def __init__(self, data: PairSet, settings: TrainSettings, *, seed: int, world: World) -> None:
        if settings.batch_size is not None and len(data) < settings.batch_size:
            raise UserError(
                f"train.batch_size: {settings.batch_size}, but there are only {len(data)} training samples; "
                f"set it to {len(data)} or less"
            )
        self._data, self._settings, self._seed, self._world = data, settings, seed, world
        self._lengths = data.lengths
        self._refuse_longer(settings.batch_tokens)
        self._here: tuple[int, list[Chosen]] = 0, self._made(0)
        self.steps_per_epoch = len(self._here[1])

    def _refuse_longer(self, budget: int | None) -> None:
        """A step has room for any pair; what is told is the longest, so that what it asks for is enough for all."""
        tokens = np.maximum(*self._lengths)
        if budget is not None and tokens.max(initial=0) > budget:
            longest = int(tokens.argmax())
            raise DataError(
                f"{self._data.part.place(int(self._data.chosen[longest]))}: {tokens[longest]} tokens, more than "
                f"train.batch_tokens = {budget}; raise it to at least {tokens[longest]}"
            )

    def _made(self, epoch: int) -> list[Chosen]:
        size, budget = self._settings.batch_size, self._settings.batch_tokens
        if budget is not None:
            return token_batches(*self._lengths, budget, self._seed, epoch)
        assert size is not None
        order = epoch_order(len(self._data), self._seed, epoch).numpy()
        return [order[first : first + size] for first in range(0, len(order) - size + 1, size)]

    def _steps(self, epoch: int) -> list[Chosen]:
        if self._here[0] != epoch:
            self._here = epoch, self._made(epoch)
        return self._here[1]

    def units(self, epoch: int, first: int, last: int) -> int:  # noqa: D102
        return sum(int(self._lengths[1][places].sum()) for places in self._steps(epoch)[first:last])

    def step(self, epoch: int, index: int, generator: torch.Generator) -> list[TranslationBatch]:  # noqa: D102
        places = self._steps(epoch)[index]
        tokens = int(self._lengths[1][places].sum())
        own = places[self._world.rank :: self._world.size]
        if not len(own):  # fewer pairs than processes: this one computes, so that all exchange gradients, and adds nothing
            return [self._batch(places[:1], 0, tokens)]
        micro = np.array_split(own, min(self._settings.accumulate, len(own)))
        return [self._batch(part, int(self._lengths[1][part].sum()), tokens) for part in micro]

    def _batch(self, places: Chosen, said: int, tokens: int) -> TranslationBatch:
        pairs = self._data.batch(places)
        if not said:
            pairs = replace(pairs, target_out=torch.full_like(pairs.target_out, IGNORED))
        parts = tokens / (said * self._world.size) if said else float("inf")
        return TranslationBatch(pairs=pairs, parts=parts, label_smoothing=self._settings.label_smoothing)
