"""MNIST (LeCun et al., 1998) and Fashion-MNIST (Xiao et al., 2017): 60,000 and 10,000 grey images of 28x28, as idx files.

The layout is torchvision's: ``root/MNIST/raw/train-images-idx3-ubyte`` and so on, unpacked or as downloaded (.gz).
"""

import gzip
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from tdcompress.data.augment import Flip
from tdcompress.data.base import FileDataSettings
from tdcompress.data.fetch import fetch_archive
from tdcompress.data.images import ImageDataset, Images, ImageSettings
from tdcompress.errors import DataError

SIDE = 28
TRAIN_SIZE, TEST_SIZE = 60_000, 10_000


@dataclass(frozen=True, kw_only=True)
class IdxSettings(FileDataSettings, ImageSettings):
    """What both sets share."""

    title: ClassVar[str]  # the name for people
    folder: ClassVar[str]
    url: ClassVar[str]
    archives: ClassVar[Mapping[str, str]]  # file name, without .gz -> md5 of the .gz
    classes: ClassVar[tuple[str, ...]]

    def side(self) -> int:  # noqa: D102
        return SIDE

    def fetched_files(self) -> list[Path]:  # noqa: D102
        folder = self.root_folder() / self.folder / "raw"
        return [self._find(folder, name, md5) for name, md5 in self.archives.items()]

    def _find(self, folder: Path, name: str, md5: str) -> Path:
        plain, packed = folder / name, folder / f"{name}.gz"
        if self.download and not plain.is_file() and not packed.is_file():
            fetch_archive(f"{self.url}{name}.gz", folder, md5, self.title)
        for path in (plain, packed):
            if path.is_file():
                return path
        raise self.missing(self.title, plain, f"{self.folder}/raw", f"{self.url}{name}.gz", "unpacked or not")

    def load(self) -> ImageDataset:  # noqa: D102
        train_pixels, train_labels, test_pixels, test_labels = self.fetched_files()
        return ImageDataset(
            name=self.name,
            train=read_images(train_pixels, train_labels, TRAIN_SIZE),
            test=read_images(test_pixels, test_labels, TEST_SIZE),
            classes=self.classes,
            preprocess=self.preprocess(),
            augmentation=self.augmentation(),
        )


def read_images(pixels_path: Path, labels_path: Path, size: int) -> Images:
    """One part of a set from its two idx files.

    Args:
        pixels_path: idx file of uint8 (N, 28, 28).
        labels_path: idx file of uint8 (N,).
        size: how many images there have to be.

    Raises:
        DataError: a file that is cut off, damaged, or of another shape than ``size`` images of 28x28.
    """
    pixels_NHW = read_idx(pixels_path, (size, SIDE, SIDE))
    labels_N = read_idx(labels_path, (size,))
    return Images(pixels=torch.from_numpy(pixels_NHW[..., None]), labels=torch.from_numpy(labels_N.astype(np.int64)))


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The uint8 array of an idx file: 0, 0, type 8, number of axes, each axis as a big-endian uint32, the values.

    Args:
        path: the file, or the same with gzip (.gz).
        shape: the sizes that the header has to give, axis by axis.

    Raises:
        DataError: another header, or another number of bytes than it promises.
    """
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    expected = len(header) + int(np.prod(shape))
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(expected + 1)  # one more than expected, so that neither bomb nor surplus is read whole
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): delete it and fetch it again") from error
    if not content.startswith(header):
        raise DataError(f"{path} is no idx file of {shape} bytes: delete it and fetch it again")
    if len(content) != expected:
        problem = "cut off" if len(content) < expected else "longer than its header says"
        raise DataError(f"{path} is {problem} ({expected} bytes expected): delete it and fetch it again")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy()


@dataclass(frozen=True, kw_only=True)
class MnistSettings(IdxSettings):
    """``name = "mnist"``: handwritten digits. Training images move by up to two pixels."""

    name: ClassVar[str] = "mnist"
    title: ClassVar[str] = "MNIST"
    folder: ClassVar[str] = "MNIST"
    url: ClassVar[str] = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    archives: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    mean: ClassVar[tuple[float, ...]] = (0.1307 * 255,)
    deviation: ClassVar[tuple[float, ...]] = (0.3081 * 255,)
    classes: ClassVar[tuple[str, ...]] = tuple(str(digit) for digit in range(10))
    crop_padding: int = 2


@dataclass(frozen=True, kw_only=True)
class FashionMnistSettings(IdxSettings):
    """``name = "fashion_mnist"``: articles of clothing. Training images move by up to two pixels and are mirrored."""

    name: ClassVar[str] = "fashion_mnist"
    title: ClassVar[str] = "Fashion-MNIST"
    folder: ClassVar[str] = "FashionMNIST"
    url: ClassVar[str] = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    archives: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    }
    mean: ClassVar[tuple[float, ...]] = (0.2860 * 255,)
    deviation: ClassVar[tuple[float, ...]] = (0.3530 * 255,)
    classes: ClassVar[tuple[str, ...]] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    crop_padding: int = 2
    flip: Flip = True
