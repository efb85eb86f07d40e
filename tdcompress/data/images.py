"""Labelled images: uint8 in memory, a preprocessing module, and the keys that every data set of images has."""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from tdcompress.data.augment import Augmentation, Flip
from tdcompress.data.base import Dataset, DataSettings
from tdcompress.data.preprocess import Normalise, Preprocess, normalised
from tdcompress.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images with their classes, whole, in memory (on any device).

    Attributes:
        pixels: uint8, (N, H, W, C).
        labels: int64, (N,).

    Raises:
        DataError: another type or shape, or not as many labels as images.
    """

    pixels: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.dim() != 4:
            raise DataError(f"images are uint8 (N, H, W, C), not {self.pixels.dtype} {tuple(self.pixels.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            raise DataError(
                f"{len(self.pixels)} images need as many int64 labels, not {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device | str) -> "Images":
        """The same images on another device."""
        return Images(pixels=self.pixels.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """Labelled images as training, evaluation and export read them.

    Attributes:
        name: the name that a recipe gives it.
        train: what is trained on.
        test: what every accuracy is measured on.
        classes: the class names, by label.
        preprocess: uint8 (B, H, W, C) -> float32 (B, C, H, W); no state, every image by itself, exportable.
        augmentation: random changes of training batches, before ``preprocess``.

    Raises:
        DataError: an empty part, parts of different image shape, a label without a class, a single training image, or training
            images of a single class: there is nothing to tell apart.
    """

    name: str
    train: Images
    test: Images
    classes: tuple[str, ...]
    preprocess: Preprocess
    augmentation: Augmentation

    def __post_init__(self) -> None:
        for part, images in (("train", self.train), ("test", self.test)):
            if len(images) == 0:
                raise DataError(f"{self.name}: the {part} part holds no image")
            low, high = int(images.labels.min()), int(images.labels.max())
            if low < 0 or high >= len(self.classes):
                raise DataError(f"{self.name}: {part} labels span {low}..{high}, but there are {len(self.classes)} classes")
        if len(self.train) < 2:
            raise DataError(f"{self.name}: the train part holds a single image; nothing can be learnt from it")
        if len(self.classes) < 2 or int(self.train.labels.min()) == int(self.train.labels.max()):
            only = self.classes[int(self.train.labels[0])]
            raise DataError(f"{self.name}: all training images are of one class, {only!r}; a classifier needs at least two")
        if self.train.pixels.shape[1:] != self.test.pixels.shape[1:]:
            raise DataError(
                f"{self.name}: train images are {tuple(self.train.pixels.shape[1:])} (H, W, C), "
                f"test images {tuple(self.test.pixels.shape[1:])}"
            )

    @property
    def image(self) -> tuple[int, int, int]:
        """The shape that a network sees: (C, H, W)."""
        height, width, channels = self.train.pixels.shape[1:]
        return channels, height, width

    @property
    def preprocessing(self) -> Mapping[str, object]:
        """What a deployer has to do to uint8 pixels before the network, as JSON-able data for a file's metadata."""
        return self.preprocess.description()


@dataclass(frozen=True, kw_only=True)
class ImageSettings(DataSettings):
    """Keys of every data set of images.

    Attributes:
        normalise: what the network sees: "image", pixels less their image's mean, over its deviation; "set", less the mean of all
            training images and over their deviation, for each channel (imagefolder: ImageNet's); or "unit", pixels over their
            largest value, 0 to 1.
        crop_padding: training images are padded with this many zeros on each side and cropped back at random; 0 = not.
        flip: mirror each training image left to right with probability 1/2; or "alternating": even epochs mirror one half of the
            images and odd epochs the other half, so that two epochs show both sides of each.
        cutout: side, in pixels, of a square at a random place of each training image, painted with its mean colour; 0 = not.
    """

    task: ClassVar[str] = "classification"
    mean: ClassVar[tuple[float, ...]]  # of each channel over the training images, in stored pixel values
    deviation: ClassVar[tuple[float, ...]]
    largest: ClassVar[float] = 255.0  # that a pixel can have
    normalise: Normalise = "set"
    crop_padding: int = 0
    flip: Flip = False
    cutout: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.augmentation()
        side = self.side()
        for key, lost in (("crop_padding", "a crop may hold nothing"), ("cutout", "a square may paint all")):
            if (pixels := getattr(self, key)) and pixels >= side:
                raise ValueError(f"{key}: with {pixels} pixels {lost} of an image of {side}x{side}; give less than {side}")

    @abstractmethod
    def side(self) -> int:
        """Height and width of the images in pixels, known before they are loaded."""

    def augmentation(self) -> Augmentation:
        """The random changes of training batches that these keys ask for."""
        return Augmentation(crop_padding=self.crop_padding, flip=self.flip, cutout=self.cutout)

    def preprocess(self) -> Preprocess:
        """From stored pixels to what the network sees."""
        return normalised(self.normalise, self.mean, self.deviation, self.largest)

    @abstractmethod
    def load(self) -> ImageDataset:  # noqa: D102
        ...

    def stored(self) -> Self:
        """Images are the same whatever random changes they get."""
        changes = {field.name for field in fields(Augmentation)}
        usual: dict[str, Any] = {field.name: field.default for field in fields(self) if field.name in changes}
        return replace(self, **usual)

    def finished(self, loaded: Dataset) -> ImageDataset:  # noqa: D102
        assert isinstance(loaded, ImageDataset)
        return replace(loaded, augmentation=self.augmentation())


def sha256_of_images(*parts: Images) -> str:
    """One sha256 over shapes, pixels and labels, for data that comes in no file of its own."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(tuple(part.pixels.shape)).encode())
        digest.update(part.pixels.contiguous().numpy().tobytes())
        digest.update(part.labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()
