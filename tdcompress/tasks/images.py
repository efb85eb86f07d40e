"""Labelled images as the loop takes them: on the device, augmented there, a whole batch at a time; and their accuracy."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdcompress.errors import UserError, VerificationError
from tdcompress.functional import evaluating
from tdcompress.seeds import derived_seed
from tdcompress.train.data import Forward
from tdcompress.train.distill import Lesson
from tdcompress.train.distributed import World
from tdcompress.train.evaluate import Precision, autocast, full_float32
from tdcompress.train.samples import epoch_order
from tdcompress.train.settings import TrainSettings

EVALUATION_BATCH = 500
NO_TOKENS = "images have no tokens; give train.batch_size instead"


class Augment(Protocol):
    """A random change of a uint8 (B, H, W, C) batch; ``mirrored_B`` names the images to mirror where flips alternate."""

    def __call__(self, pixels_BHWC: Tensor, generator: torch.Generator, mirrored_B: Tensor | None = None, /) -> Tensor:
        """A changed copy of the batch."""


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """Labelled images on the device that trains or evaluates.

    Attributes:
        pixels: uint8 (N, H, W, C).
        labels: int64 (N,).
        preprocess: uint8 (B, H, W, C) -> float32 (B, C, H, W): standardisation; deterministic.
        augment: a random change of a batch, drawn from the generator; training only.
        sides: bool (N,), the images that even epochs mirror and odd ones do not, where flips alternate.
    """

    unit: ClassVar[str] = "images"
    pixels: Tensor
    labels: Tensor
    preprocess: nn.Module
    augment: Augment | None = None
    sides: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "TrainData":
        """The same samples on ``device``."""
        moved = copy.deepcopy(self.preprocess).to(device)  # a module moves in place, under those that share it
        sides = None if self.sides is None else self.sides.to(device)
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device), preprocess=moved, sides=sides)

    def mirrored(self, batch: Tensor, odd: bool | Tensor) -> Tensor | None:
        """Which samples of a batch are mirrored, bool (B,); None where flips do not alternate.

        Each sample's first side is drawn, and every epoch shows the other one (Jordan, 2024, arXiv 2404.00498, section 3.6).

        Args:
            batch: int64 (B,), the samples.
            odd: whether the epoch's number, from 0, is odd; as a tensor (), bool.
        """
        return None if self.sides is None else self.sides.index_select(0, batch) ^ odd

    def every(self, stride: int, first: int) -> "TrainData":
        """Each ``stride``-th sample from ``first`` on, without copying."""
        sides = None if self.sides is None else self.sides[first::stride]
        return replace(self, pixels=self.pixels[first::stride], labels=self.labels[first::stride], sides=sides)

    @property
    def units(self) -> int:
        """Number of images."""
        return len(self)

    def loader(self, settings: TrainSettings, *, seed: int, world: World) -> "ImageLoader":  # noqa: D102
        return ImageLoader(self, settings, seed=seed, world=world)

    def first(self, settings: TrainSettings, world: World) -> "ImageBatch":  # noqa: D102
        count = batch_size(settings) // (settings.accumulate * world.size)
        return ImageBatch(pixels=self.pixels[:count], labels=self.labels[:count], preprocess=self.preprocess, settings=settings)

    def count_right(  # noqa: D102
        self, network: Forward, device: torch.device, *, between: Callable[[], None] | None = None
    ) -> int:
        return _count_right(network, self, EVALUATION_BATCH, device, "float32", between)


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """Images of one forward and backward pass.

    Attributes:
        pixels: uint8 (B, H, W, C), augmented.
        labels: int64 (B,).
        preprocess: as of the data.
        settings: the recipe's [train].
    """

    pixels: Tensor
    labels: Tensor
    preprocess: nn.Module
    settings: TrainSettings

    @property
    def parts(self) -> float:
        """Micro-batches of a process are equally large."""
        return self.settings.accumulate

    def loss(self, network: Forward, lesson: Lesson | None) -> tuple[Tensor, Tensor]:
        """Cross-entropy with smoothed labels."""
        images = self.preprocess(self.pixels)
        # The images' order decides every layer's. Weights keep theirs, so that checkpoints and selection see plain memory.
        order = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        logits = network(images.contiguous(memory_format=order))
        loss = F.cross_entropy(logits, self.labels, label_smoothing=self.settings.label_smoothing)
        if lesson is not None:
            loss = lesson.mixed(loss, logits, lesson.outputs(images))
        return loss, (logits.detach().argmax(1) == self.labels).sum()


class ImageLoader:
    """Full batches of a new permutation in each epoch; what remains is left out of it. A loader and its table in one.

    Args:
        data: on the training's device.
        settings: the recipe's [train].
        seed: of the order.
        world: the processes of the training.

    Raises:
        UserError: fewer images than one batch, or a batch that micro-batches and processes do not divide.
    """

    def __init__(self, data: TrainData, settings: TrainSettings, *, seed: int, world: World) -> None:
        size = batch_size(settings)
        if len(data) < size:
            raise UserError(
                f"train.batch_size: {size}, but there are only {len(data)} training samples; set it to {len(data)} or less"
            )
        if size % (settings.accumulate * world.size):
            raise UserError(
                f"train.batch_size: {settings.accumulate} micro-batches in each of {world.size} processes do not divide {size}"
            )
        self._data, self._settings, self._seed, self._world = data, settings, seed, world
        self._size = size
        self.steps_per_epoch = len(data) // size
        self._here: tuple[int, Tensor] | None = None

    @property
    def table(self) -> "ImageLoader":  # noqa: D102
        return self

    def units(self, epoch: int, first: int, last: int) -> int:  # noqa: D102
        return (last - first) * self._size

    def order(self, epoch: int) -> Tensor:  # noqa: D102
        size = self._size
        whole = epoch_order(len(self._data), self._seed, epoch)
        return whole[: self.steps_per_epoch * size].view(self.steps_per_epoch, size)

    def batch(self, chosen_B: Tensor, epoch: int | Tensor, generator: torch.Generator) -> ImageBatch:  # noqa: D102
        data = self._data
        pixels, labels = data.pixels.index_select(0, chosen_B), data.labels.index_select(0, chosen_B)
        if data.augment is not None:
            pixels = data.augment(pixels, generator, data.mirrored(chosen_B, epoch % 2 == 1))
        return ImageBatch(pixels=pixels, labels=labels, preprocess=data.preprocess, settings=self._settings)

    def step(self, epoch: int, index: int, generator: torch.Generator) -> list[ImageBatch]:  # noqa: D102
        if self._here is None or self._here[0] != epoch:
            self._here = epoch, self.order(epoch).to(self._data.pixels.device)
        # the whole batch in every process, so that each sample is changed as one process alone would
        whole = self.batch(self._here[1][index], epoch, generator)
        count = self._settings.accumulate
        parts = zip(self._world.part(whole.pixels).chunk(count), self._world.part(whole.labels).chunk(count), strict=True)
        return [replace(whole, pixels=pixels, labels=labels) for pixels, labels in parts]


def batch_size(settings: TrainSettings) -> int:
    """Images of a step.

    Raises:
        UserError: a budget of tokens, which images do not have.
    """
    if settings.batch_size is None:
        raise UserError(f"train.batch_tokens: {NO_TOKENS}")
    return settings.batch_size


def accuracy(
    model: Forward,
    data: TrainData,
    batch_size: int,
    device: torch.device,
    precision: Precision = "float32",
    between: Callable[[], None] | None = None,
) -> float:
    """Share of samples, 0..1, whose largest logit is their label's.

    Args:
        model: (B, C, H, W) float32 -> (B, classes). A module is put in eval mode meanwhile.
        data: the samples; their ``augment`` is not used.
        batch_size: samples at a time; it changes speed and memory only.
        device: where the model runs.
        precision: float32, or bfloat16 autocast.
        between: called before each batch; may raise to leave early.

    Raises:
        VerificationError: a logit that is not finite, seen at the end.
    """
    return _count_right(model, data, batch_size, device, precision, between) / len(data)


def _count_right(
    model: Forward,
    data: TrainData,
    batch_size: int,
    device: torch.device,
    precision: Precision,
    between: Callable[[], None] | None,
) -> int:
    correct = torch.zeros((), dtype=torch.int64, device=device)  # read once, so that a GPU does not wait after every batch
    for start, scores in _batches(model, data, batch_size, device, precision, between):
        labels = data.labels[start : start + batch_size].to(device)
        correct += (scores.argmax(1) == labels).sum()
    return int(correct)


def _batches(
    model: Forward,
    data: TrainData,
    batch_size: int,
    device: torch.device,
    precision: Precision,
    between: Callable[[], None] | None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first sample, float32 logits) of each batch in order."""
    if not len(data):
        raise ValueError("data: no samples to evaluate")
    preprocess = copy.deepcopy(data.preprocess).to(device)
    finite: list[Tensor] = []
    for start in range(0, len(data), batch_size):
        if between is not None:
            between()
        # The mode and the inference context are set batch by batch: a generator must not hold them while it is paused.
        with evaluating(model), torch.inference_mode(), full_float32(device), autocast(device, precision):
            scores = model(preprocess(data.pixels[start : start + batch_size].to(device))).float()
            finite.append(scores.isfinite().all())
        yield start, scores
    for batch, good in enumerate(torch.stack(finite).tolist()):
        if not good:
            first = batch * batch_size
            raise VerificationError(f"logits of samples {first}..{min(first + batch_size, len(data)) - 1} are not finite")


def first_sides(size: int, seed: int) -> Tensor:
    """Which of ``size`` samples alternating flips mirror in the first epoch: half of them at random, bool on the CPU."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "sides"))
    return torch.rand(size, generator=generator) < 0.5
