"""Images into classes: cross-entropy, the accuracy in per cent, one ONNX file that gives logits."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdcompress.data.images import ImageDataset
from tdcompress.errors import VerificationError
from tdcompress.export.check import OnnxNetwork
from tdcompress.export.to_onnx import FromPixels
from tdcompress.models.base import ImageClasses
from tdcompress.records.measures import ACCURACY, Measure
from tdcompress.seeds import derived_seed
from tdcompress.tasks.base import (
    ANY,
    CALIBRATION_SAMPLES,
    CHECKED_SAMPLES,
    ExportPart,
    ExportSet,
    FileMeasure,
    Files,
    LearningTask,
    NetworkInputs,
    Said,
)
from tdcompress.tasks.images import EVALUATION_BATCH, NO_TOKENS, TrainData, accuracy, first_sides

MOST_APART = 2
"""Test samples by which two measurements of one network may differ (design, rule 5)."""


class Classification(LearningTask):
    """Labelled images and what is learnt from them.

    Args:
        data: the data set.
    """

    name: ClassVar[str] = "classification"
    measure: ClassVar[Measure] = ACCURACY
    refused: ClassVar[Mapping[tuple[str, object], str]] = {
        ("train.batch_tokens", ANY): NO_TOKENS,
    }

    def __init__(self, data: ImageDataset) -> None:
        self.data = data

    @property
    def interface(self) -> ImageClasses:  # noqa: D102
        return ImageClasses(classes=len(self.data.classes), image=self.data.image)

    @property
    def test_samples(self) -> int:  # noqa: D102
        return len(self.data.test)

    @property
    def guessing(self) -> float:
        """The largest class's share of the test images."""
        return float(self.data.test.labels.bincount().max()) / len(self.data.test)

    @property
    def classes(self) -> tuple[str, ...]:  # noqa: D102
        return self.data.classes

    def train_set(self, seed: int) -> TrainData:
        """Training images with their augmentation; the seed says which side comes first where flips alternate."""
        data = self.data
        return TrainData(
            pixels=data.train.pixels,
            labels=data.train.labels,
            preprocess=data.preprocess,
            augment=data.augmentation,
            sides=first_sides(len(data.train), seed) if data.augmentation.flip == "alternating" else None,
        )

    def test_set(self) -> TrainData:
        """Test images: what every accuracy is measured on."""
        return TrainData(pixels=self.data.test.pixels, labels=self.data.test.labels, preprocess=self.data.preprocess)

    def examples(self, count: int = 2) -> NetworkInputs:
        """Some preprocessed test images, float32 (B, C, H, W) on the CPU."""
        with torch.inference_mode():
            images: Tensor = self.data.preprocess(self.data.test.pixels[:count])
        return (images.clone().contiguous(),)

    def training_batches(self, seed: int, count: int, device: torch.device, *, augmented: bool) -> Iterator[NetworkInputs]:
        """As `LearningTask.training_batches`: preprocessed images, float32 (B, C, H, W); flips that alternate as at first."""
        samples = self.train_set(seed)
        generator = torch.Generator().manual_seed(derived_seed(seed, "recalibrate"))
        chosen = torch.randperm(len(samples), generator=generator)[:count]
        preprocess = copy.deepcopy(samples.preprocess).to(device)
        for part in torch.split(chosen, EVALUATION_BATCH):
            pixels = samples.pixels[part]
            if augmented and samples.augment is not None:
                pixels = samples.augment(pixels, generator, samples.mirrored(part, odd=False))
            with torch.no_grad():
                images: Tensor = preprocess(pixels.to(device))
            yield (images,)

    def measured(self, network: nn.Module, device: torch.device) -> float:
        """Share of test images whose largest logit is their label's."""
        return accuracy(network.to(device), self.test_set().to(device), EVALUATION_BATCH, device)

    def loss_batches(self, size: int, device: torch.device) -> list[tuple[NetworkInputs, Tensor]]:
        """Images float64 (B, C, H, W) and labels int64 (B,)."""
        samples = self.test_set().to(device)
        with torch.no_grad():
            return [
                ((samples.preprocess(samples.pixels[start : start + size]).double(),), samples.labels[start : start + size])
                for start in range(0, len(samples), size)
            ]

    def summed_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits (B, classes) and labels, int64 (B,)."""
        return F.cross_entropy(outputs, targets, reduction="sum")

    def exports(self, network: nn.Module, *, pixels: bool) -> ExportSet:
        """One file: float32 images (B, C, H, W), or with ``pixels`` uint8 images (B, H, W, C) -> logits (B, classes)."""
        data = self.data
        preprocess = data.preprocess.cpu()

        def prepare(stored: Tensor) -> Tensor:
            if pixels:
                return stored
            with torch.inference_mode():
                ready: Tensor = preprocess(stored)
            return ready.clone().contiguous()

        part = ExportPart(
            file="model.onnx",
            module=FromPixels(preprocess, network).eval() if pixels else network,
            samples=(prepare(data.test.pixels[:CHECKED_SAMPLES]),),
            calibration=lambda: (prepare(data.train.pixels[:CALIBRATION_SAMPLES]),),
        )
        facts = {"classes": data.classes, "preprocessing": data.preprocessing, "preprocessing_inside": pixels}

        def measured(files: Files, expected: float | None, said: Said) -> FileMeasure:
            right = self._count_right(files[part.file], prepare, said)
            if expected is not None:
                check_accuracy(right, expected, len(data.test), part.file)
            return FileMeasure(accuracy=right / len(data.test))

        return ExportSet(parts=(part,), facts=facts, measured=measured)

    def _count_right(self, network: OnnxNetwork, prepare: Callable[[Tensor], Tensor], said: Said) -> int:
        """How many test samples a file classifies rightly."""
        test, right = self.data.test, 0
        for start in range(0, len(test), EVALUATION_BATCH):
            said(start, len(test))
            part = slice(start, start + EVALUATION_BATCH)
            logits = network(prepare(test.pixels[part]))
            right += int((logits.argmax(1) == test.labels[part].numpy()).sum())
        return right


def check_accuracy(onnx_right: int, torch_accuracy: float, samples: int, file: str) -> None:
    """Accuracies of one network agree when at most two test samples differ (design, rule 5).

    Args:
        onnx_right: samples that the file classifies rightly.
        torch_accuracy: 0..1, of the artefact that was exported, measured by the stage that made it.
        samples: size of the test set.
        file: for the message.

    Raises:
        VerificationError: they differ by more.
    """
    torch_right = round(torch_accuracy * samples)
    if abs(onnx_right - torch_right) > MOST_APART:
        raise VerificationError(f"{file}: {onnx_right} test samples right under onnxruntime, {torch_right} in torch")
