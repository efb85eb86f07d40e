"""A folder of images, one sub-folder a class: ``root/train/<class>/*`` and ``root/val/<class>/*`` (or ``test``).

Images are decoded, resized and cropped once, and held as uint8; training cuts random parts out of what is held.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image as PillowImage
from PIL import ImageOps

from tdcompress.data.augment import Augmentation, Flip
from tdcompress.data.base import FileDataSettings
from tdcompress.data.images import ImageDataset, Images, ImageSettings
from tdcompress.errors import DataError, one_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
GIB = 1 << 30
MAX_PIXELS = 1 << 26
WIDE_MODES = ("I", "F")  # of Pillow: grey pixels of 16 or 32 bits, "I;16" among them
BOMBS = (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning)


@dataclass(frozen=True, kw_only=True)
class ImageFolderSettings(FileDataSettings, ImageSettings):
    """``name = "imagefolder"``: ``root`` is the folder that holds train/ and val/ (or test/). There is nothing to download.

    Attributes:
        image_size: height and width that every image gets.
        resize: the shorter side before the centre is cut out; None = image_size * 256 / 224, as is usual for ImageNet.
        crop_scale: in training, the least and greatest share of the area that is cut out and enlarged again;
            [1, 1] = not.
        memory_limit_gib: how much memory all images may take as uint8.
    """

    name: ClassVar[str] = "imagefolder"
    # of ImageNet's training images: what torchvision's weights were trained with
    mean: ClassVar[tuple[float, ...]] = (0.485 * 255, 0.456 * 255, 0.406 * 255)
    deviation: ClassVar[tuple[float, ...]] = (0.229 * 255, 0.224 * 255, 0.225 * 255)
    flip: Flip = True
    image_size: int = 224
    resize: int | None = None
    crop_scale: tuple[float, float] = (0.25, 1.0)
    memory_limit_gib: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.download:
            raise ValueError("download: a folder of images is your own, there is nowhere to fetch it from; leave it false")
        if not 1 <= self.image_size <= 4096:
            raise ValueError(f"image_size: pixels, 1..4096, not {self.image_size}")
        if self.resize is not None and not self.image_size <= self.resize <= 8192:
            raise ValueError(f"resize: pixels of the shorter side, image_size ({self.image_size})..8192, not {self.resize}")
        if self.memory_limit_gib <= 0:
            raise ValueError(f"memory_limit_gib: above 0, not {self.memory_limit_gib}")

    def side(self) -> int:  # noqa: D102
        return self.image_size

    def augmentation(self) -> Augmentation:  # noqa: D102
        return replace(super().augmentation(), crop_scale=self.crop_scale)

    def fetched_files(self) -> list[Path]:  # noqa: D102
        return [path for part in self._parts() for members in part.values() for path in members]

    def load(self) -> ImageDataset:  # noqa: D102
        train, test = self._parts()
        if list(train) != list(test):
            odd = sorted(set(train) ^ set(test))
            raise DataError(f"{self.root}: the class {odd[0]!r} is not both in train/ and in the test part")
        size = 3 * self.image_size**2 * len(self.fetched_files())
        if size > self.memory_limit_gib * GIB:
            raise DataError(
                f"{self.root}: {len(self.fetched_files())} images of {self.image_size}x{self.image_size} take "
                f"{size / GIB:.1f} GiB; lower data.image_size or raise data.memory_limit_gib ({self.memory_limit_gib})"
            )
        return ImageDataset(
            name=self.name,
            train=self._read(train),
            test=self._read(test),
            classes=tuple(train),
            preprocess=self.preprocess(),
            augmentation=self.augmentation(),
        )

    def _parts(self) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
        root = self.root_folder()
        test = next((root / name for name in ("val", "test") if (root / name).is_dir()), root / "val")
        return _classes(root / "train"), _classes(test)

    def _read(self, part: dict[str, list[Path]]) -> Images:
        paths = [path for members in part.values() for path in members]
        labels = [label for label, members in enumerate(part.values()) for _ in members]
        pixels_NHWC = np.empty((len(paths), self.image_size, self.image_size, 3), np.uint8)
        resize = self.resize or round(self.image_size * 256 / 224)

        def read(index: int) -> None:
            pixels_NHWC[index] = read_image(paths[index], self.image_size, resize)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding lets go of the interpreter's lock
            list(pool.map(read, range(len(paths))))  # raises what the first bad file raised
        return Images(pixels=torch.from_numpy(pixels_NHWC), labels=torch.tensor(labels, dtype=torch.int64))


def read_image(path: Path, size: int, resize: int) -> np.ndarray:
    """One image as uint8 (size, size, 3): its shorter side scaled to ``resize`` (bilinear), then its centre.

    Args:
        path: the file.
        size: side of what is cut out, in pixels.
        resize: length of the shorter side before that.

    Raises:
        DataError: a file that is no image, is cut off, has more than ``MAX_PIXELS`` pixels, or grey ones of more than 8 bits.
    """
    try:
        with PillowImage.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise DataError(f"{path} has {file.width}x{file.height} pixels, more than {MAX_PIXELS}: remove or shrink it")
            if file.mode.startswith(WIDE_MODES):  # Pillow would cut their values to 0..255: an image all white, or all black
                raise DataError(f"{path} has pixels of more than 8 bits (Pillow's mode {file.mode}): save it with 8 bits each")
            image = ImageOps.exif_transpose(file).convert("RGB")
        side = min(image.size) * size / resize  # of the part that stays, in the file's own pixels
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((size, size), PillowImage.Resampling.BILINEAR, box=box))
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, *BOMBS) as error:  # what Pillow raises for files that are no images
        raise DataError(f"{path} is no readable image ({one_line(error)}): remove or replace it") from error


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class, sorted by name; without hidden ones, which systems and tools leave beside them."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is missing; set data.root to the folder that holds train/<class>/* and val/<class>/* (or test/<class>/*)"
        )
    classes = {}
    for entry in sorted(folder.glob("[!.]*")):
        if entry.is_dir():
            members = sorted(path for path in entry.glob("[!.]*") if path.suffix.lower() in SUFFIXES)
            if not members:
                raise DataError(f"{entry} holds no image ({', '.join(SUFFIXES)})")
            classes[entry.name] = members
    if not classes:
        raise DataError(f"{folder} holds no class: one sub-folder of images each")
    return classes
